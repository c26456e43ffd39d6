"""Implement inference.GRPCInferenceService, the Open Inference Protocol over gRPC."""

from typing import Any

from google.protobuf.message import DecodeError, Message

from inference.dialects.call_headers import Head
from inference.dialects.dialect import Call
from inference.dialects.open_inference import open_inference_pb2 as messages
from inference.dialects.open_inference.over_grpc import OPEN_INFERENCE_GRPC
from inference.errors.api_error import ApiError
from inference.gateway.driver.driver import GatewayDriver
from inference.gateway.grpc import statuses
from inference.gateway.grpc.methods import Method, MethodCall, Shape
from inference.gateway.grpc.prediction import (
    PredictionRun,
    StreamedRun,
    metadata,
    refuse,
)
from inference.gateway.grpc.statuses import Status
from inference.gateway.open_inference.facts import OpenInferenceFacts, TensorFacts
from inference.prediction.callers import find_caller, require_network
from inference.prediction.effects import Answer
from inference.snapshot.keys import KeyEntry

NAME = "inference.GRPCInferenceService"
_SERVICE = b"/%b/" % NAME.encode()

Body = bytes | memoryview


class InferenceService:
    """The methods of the service."""

    def __init__(self, driver: GatewayDriver, facts: OpenInferenceFacts) -> None:
        self._driver = driver
        self._facts = facts
        self.methods = {
            _SERVICE + b"ModelInfer": Method(self._infer),
            _SERVICE + b"ModelStreamInfer": Method(
                self._stream_infer, shape=Shape.STREAMED
            ),
            _SERVICE + b"ModelReady": self._answered(self._model_ready),
            _SERVICE + b"ModelMetadata": self._answered(self._model_metadata),
            _SERVICE + b"ServerLive": self._answered_to_all(self._server_live),
            _SERVICE + b"ServerReady": self._answered_to_all(self._server_ready),
            _SERVICE + b"ServerMetadata": self._answered_to_all(self._server_metadata),
        }

    def find_caller(self, call: MethodCall) -> KeyEntry | bytes:
        """Return the caller's key, or the header block that refuses the call.

        This happens before a message is read.
        """
        try:
            return find_caller(
                self._driver.plan.tables, call.facts.token, self._driver.clock()
            )
        except ApiError as error:
            self._driver.metrics.unauthenticated += 1
            answer = self._rendered(error)
            return statuses.refusal(
                statuses.of_http(answer.status),
                answer.body.decode(),
                statuses.metadata(metadata(answer)),
            )

    # Predictions

    def _infer(self, call: MethodCall, body: Body) -> None:
        request = _parsed(messages.ModelInferRequest, call, body)
        if request is not None:
            PredictionRun(self._driver, call, request).start()

    def _stream_infer(self, call: MethodCall, body: Body) -> None:
        request = _parsed(messages.ModelInferRequest, call, body)
        if request is not None:
            StreamedRun(self._driver, call, request).start()

    # Server and models

    def _server_live(self, call: MethodCall, body: Body) -> Message:
        return messages.ServerLiveResponse(live=True)

    def _server_ready(self, call: MethodCall, body: Body) -> Message:
        return messages.ServerReadyResponse(ready=self._facts.server_ready())

    def _server_metadata(self, call: MethodCall, body: Body) -> Message:
        facts = self._facts.server()
        return messages.ServerMetadataResponse(
            name=facts.name, version=facts.version, extensions=facts.extensions
        )

    def _model_ready(self, call: MethodCall, body: Body) -> Message | None:
        request = _parsed(messages.ModelReadyRequest, call, body)
        if request is None:
            return None
        ready = self._facts.model_ready(
            self._caller(call), request.name, request.version or None
        )
        return messages.ModelReadyResponse(ready=ready)

    def _model_metadata(self, call: MethodCall, body: Body) -> Message | None:
        request = _parsed(messages.ModelMetadataRequest, call, body)
        if request is None:
            return None
        facts = self._facts.model(
            self._caller(call), request.name, request.version or None
        )
        return messages.ModelMetadataResponse(
            name=facts.name,
            versions=facts.versions,
            platform=facts.platform,
            inputs=map(_described, facts.inputs),
            outputs=map(_described, facts.outputs),
        )

    def _answered(self, ask: Any, *, needs_key: bool = True) -> Method:
        def handle(call: MethodCall, body: Body) -> None:
            try:
                found = ask(call, body)
            except ApiError as error:
                refuse(call, self._rendered(error))
            else:
                if found is not None:
                    call.reply(found.SerializeToString())

        return Method(handle, needs_key=needs_key)

    def _answered_to_all(self, ask: Any) -> Method:
        return self._answered(ask, needs_key=False)

    def _caller(self, call: MethodCall) -> KeyEntry:
        """Find the caller's key and check its network; raises ApiError."""
        plan, head = self._driver.plan, call.facts
        caller = find_caller(plan.tables, head.token, self._driver.clock())
        peer = call.connection.client
        require_network(caller, peer, head.forwarded_for, plan.trusted_proxies)
        return caller

    def _rendered(self, error: ApiError) -> Answer:
        status, headers, body = OPEN_INFERENCE_GRPC.render(
            Call("predict", Head(), OPEN_INFERENCE_GRPC),
            error,
            request_id=self._driver.plan.new_request_id(),
            now=self._driver.clock(),
        )
        return Answer(status, headers, body, None)


def _parsed(kind: Any, call: MethodCall, body: Body) -> Any:
    """Parse a message; if it is invalid, refuse the call and return None."""
    try:
        return kind.FromString(body)
    except DecodeError:
        call.refuse(Status.INVALID_ARGUMENT, "The message cannot be read.")
        return None


def _described(tensor: TensorFacts) -> messages.ModelMetadataResponse.TensorMetadata:
    return messages.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )
