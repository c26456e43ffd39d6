"""Run the plan for one message of a gRPC call."""

from typing import Any

import structlog

from inference.dialects.dialect import Call, Headers
from inference.dialects.open_inference import open_inference_pb2 as messages
from inference.dialects.open_inference.over_grpc import OPEN_INFERENCE_GRPC
from inference.gateway.driver.driver import GatewayDriver
from inference.gateway.driver.plan_run import PlanRun
from inference.gateway.grpc import statuses
from inference.gateway.grpc.methods import MethodCall
from inference.prediction.effects import Answer, NeedBody

# Headers of an answer that become metadata. Few: each entry costs both sides time.
_ON_SUCCESS = frozenset(
    {
        b"x-request-id",
        b"x-model-version",
        b"RateLimit",
        b"deprecation",
        b"sunset",
        b"link",
    }
)
_NOT_ON_REFUSAL = frozenset(
    {b"cache-control", b"content-length", b"content-type", b"www-authenticate"}
)
logger = structlog.get_logger(__name__)

# Field 2 of ModelStreamInferResponse, which holds a ModelInferResponse.
_INFER_RESPONSE_TAG = b"\x12"


class PredictionRun(PlanRun):
    """One prediction; it answers its call once the usage event has been written."""

    __slots__ = ("_method_call", "_request")

    def __init__(self, driver: GatewayDriver, call: MethodCall, request: Any) -> None:
        super().__init__(driver)
        self._method_call = call
        self._request = request

    def start(self) -> None:
        call, request = self._method_call, self._request
        call.work = self
        self._begin(
            Call(
                "predict",
                call.plan_head(),
                OPEN_INFERENCE_GRPC,
                request.model_name,
                request.model_version or None,
                peer=call.connection.client,
            )
        )

    def abandon(self) -> None:
        """Release what the prediction holds: its client has left."""
        if not self._over:
            self._driver.metrics.abandoned += 1
            self._leave()

    def _body(self, effect: NeedBody) -> Any:
        return self._request

    def _give(self, answer: Answer) -> None:
        try:
            self._pass_on(answer)
        except Exception:
            # Other answers of this turn of the loop must go on.
            logger.exception("answer_failed")
            self._method_call.connection.abort()

    def _pass_on(self, answer: Answer) -> None:
        if answer.status == 200:
            self._method_call.reply(answer.body, statuses.metadata(metadata(answer)))
        else:
            refuse(self._method_call, answer)

    def _request_id(self) -> str:
        return self._driver.plan.new_request_id()

    def _received_bytes(self) -> int:
        return int(self._request.ByteSize())


class StreamedRun(PredictionRun):
    """One prediction of a streamed call; if refused, it does not end the call."""

    __slots__ = ()

    def _pass_on(self, answer: Answer) -> None:
        body = answer.body
        if answer.status == 200:
            self._method_call.reply(_INFER_RESPONSE_TAG + _varint(len(body)) + body)
        elif answer.status == 401:
            refuse(self._method_call, answer)
        else:
            response = messages.ModelStreamInferResponse(
                error_message=body.decode(),
                infer_response=messages.ModelInferResponse(id=self._request.id),
            )
            self._method_call.reply(response.SerializeToString())


def refuse(call: MethodCall, answer: Answer) -> None:
    """End a call with an answer that is an error."""
    call.refuse(
        statuses.of_http(answer.status),
        answer.body.decode(),
        statuses.metadata(metadata(answer)),
    )


def _varint(number: int) -> bytes:
    """Encode a protobuf integer: seven bits a byte, the lowest first."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def metadata(answer: Answer) -> Headers:
    """Return the headers of an answer that become a call's metadata."""
    if answer.status == 200:
        return [header for header in answer.headers if header[0] in _ON_SUCCESS]
    return [header for header in answer.headers if header[0] not in _NOT_ON_REFUSAL]
