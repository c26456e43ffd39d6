"""One prediction over gRPC: a message that the plan answers."""

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

# Of an answer; each entry of metadata costs both sides more than its few bytes.
_ON_SUCCESS = frozenset({b"x-request-id", b"x-model-version", b"RateLimit"})
_NOT_ON_REFUSAL = frozenset(
    {b"cache-control", b"content-length", b"content-type", b"www-authenticate"}
)
logger = structlog.get_logger(__name__)

# Field 2 of ModelStreamInferResponse, which holds a ModelInferResponse.
_INFER_RESPONSE_TAG = b"\x12"


class PredictionRun(PlanRun):
    """Answers its call once the event of the answer has been written."""

    __slots__ = ("_asker", "_request")

    def __init__(self, driver: GatewayDriver, asker: MethodCall, request: Any) -> None:
        super().__init__(driver)
        self._asker = asker
        self._request = request

    def start(self) -> None:
        asker, request = self._asker, self._request
        asker.work = self
        self._begin(
            Call(
                "predict",
                asker.plan_head(),
                OPEN_INFERENCE_GRPC,
                request.model_name,
                request.model_version or None,
                peer=asker.connection.client,
            )
        )

    def abandon(self) -> None:
        """Give back what the call holds: nobody waits for it any more."""
        if not self._over:
            self._driver.metrics.abandoned += 1
            self._end()

    def _body(self, effect: NeedBody) -> Any:
        return self._request

    def _give(self, answer: Answer) -> None:
        try:
            self._pass_on(answer)
        except Exception:
            # At the edge of the process: other answers of this turn go on.
            logger.exception("answer_failed")
            self._asker.connection.abort()

    def _pass_on(self, answer: Answer) -> None:
        if answer.status == 200:
            self._asker.reply(answer.body, statuses.metadata(metadata(answer)))
        else:
            refuse(self._asker, answer)

    def _request_id(self) -> str:
        return self._driver.plan.new_request_id()


class StreamedRun(PredictionRun):
    """One of many: what is refused does not end the others."""

    __slots__ = ()

    def _pass_on(self, answer: Answer) -> None:
        body = answer.body
        if answer.status == 200:
            self._asker.reply(_INFER_RESPONSE_TAG + _varint(len(body)) + body)
        elif answer.status == 401:
            refuse(self._asker, answer)
        else:
            response = messages.ModelStreamInferResponse(
                error_message=body.decode(),
                infer_response=messages.ModelInferResponse(id=self._request.id),
            )
            self._asker.reply(response.SerializeToString())


def refuse(call: MethodCall, answer: Answer) -> None:
    """End a call by an answer that is an error."""
    call.refuse(
        statuses.of_http(answer.status),
        answer.body.decode(),
        statuses.metadata(metadata(answer)),
    )


def _varint(number: int) -> bytes:
    """Write a protobuf integer: seven bits a byte, the least first."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def metadata(answer: Answer) -> Headers:
    """Give those headers of an answer that end a call as its metadata."""
    if answer.status == 200:
        return [header for header in answer.headers if header[0] in _ON_SUCCESS]
    return [header for header in answer.headers if header[0] not in _NOT_ON_REFUSAL]
