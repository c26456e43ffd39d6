"""Encode requests as frames and decode replies, for all clients over a socket."""

from collections.abc import Sequence

from inference.engine.clients import inbox
from inference.engine.wire import frames, tensors
from inference.engine.wire.calls import ExplanationCall, PredictionCall, StreamCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.frames import ForeignFormat
from inference.engine.wire.messages import (
    MAX_FRAME_BYTES,
    Explain,
    Failed,
    Predict,
    Predicted,
    StreamRequest,
    TensorHeader,
)
from inference.engine.wire.tensors import Buffer, InvalidTensor, Prediction, Tensor


def _timeout_ms(timeout_s: float) -> int:
    ms = int(timeout_s * 1000)
    # 0 would mean no timeout.
    return ms if ms > 0 else 1


def _encoded(
    sent: Sequence[Tensor],
) -> tuple[tuple[TensorHeader, ...], Sequence[Buffer]]:
    if not sent or sent[0].data.ndim == 0 or not len(sent[0].data):
        raise EngineError(EngineErrorCode.BAD_REQUEST, "a request needs rows")
    headers, buffers = [], []
    rows = len(sent[0].data)
    try:
        if len(sent) == 1:
            header, buffer = tensors.encode(sent[0])
            return (header,), (buffer,)
        for tensor in sent:
            if tensor.data.ndim == 0 or len(tensor.data) != rows:
                raise InvalidTensor("all tensors need the same rows")
            header, buffer = tensors.encode(tensor)
            headers.append(header)
            buffers.append(buffer)
    except InvalidTensor as error:
        raise EngineError(EngineErrorCode.BAD_REQUEST, str(error)) from error
    return tuple(headers), buffers


def predict(request_id: int, call: PredictionCall) -> bytes:
    headers, buffers = _encoded(call.tensors)
    return _bounded(
        Predict(
            request_id,
            call.key,
            headers[0].shape[0],
            headers,
            _timeout_ms(call.timeout_s),
            call.max_batch_rows,
            call.priority,
            call.params,
            call.customer_id,
            call.request_id,
        ),
        *buffers,
    )


def stream(
    request_id: int,
    call: StreamCall,
    *,
    credits: int = inbox.WINDOW,  # noqa: A002 - the protocol's name for it
) -> bytes:
    headers, buffers = _encoded(call.tensors)
    return _bounded(
        StreamRequest(
            request_id,
            call.key,
            headers,
            _timeout_ms(call.timeout_s),
            credits,
            call.params,
            call.customer_id,
            call.request_id,
        ),
        *buffers,
    )


def explain(request_id: int, call: ExplanationCall) -> bytes:
    headers, buffers = _encoded(call.tensors)
    return _bounded(
        Explain(
            request_id,
            call.key,
            headers[0].shape[0],
            headers,
            _timeout_ms(call.timeout_s),
            call.options,
            call.priority,
            call.customer_id,
            call.request_id,
        ),
        *buffers,
    )


def _bounded(message: Predict | Explain | StreamRequest, *buffers: Buffer) -> bytes:
    data = frames.encode(message, *buffers)
    if len(data) - 4 > MAX_FRAME_BYTES:
        # The engine would close the connection, which ends all other calls too.
        raise EngineError(
            EngineErrorCode.BAD_REQUEST, f"a request of {len(data)} bytes is too large"
        )
    return data


def prediction(reply: Predicted, body: memoryview) -> Prediction:
    return Prediction(
        frames.decode_tensors(reply.tensors, body),
        reply.queue_us,
        reply.compute_us,
        reply.batch_rows,
    )


def error(reply: Failed) -> EngineError:
    try:
        code = EngineErrorCode(reply.code)
    except ValueError:  # from a newer engine
        code = EngineErrorCode.MODEL_ERROR
    return EngineError(
        code,
        reply.message,
        retry_after_ms=reply.retry_after_ms,
        option=reply.option,
        of_customer=reply.of_customer,
    )


def connection_lost(message: str) -> EngineError:
    return EngineError(
        EngineErrorCode.CONNECTION_LOST, message, retry_after_ms=_RECONNECT_MS
    )


def foreign_format(error: ForeignFormat) -> EngineError:
    """Return why a call was not read: until it is replaced, the engine is away."""
    return connection_lost(f"the engine runs other code: {error}")


def died() -> EngineError:
    return EngineError(
        EngineErrorCode.DIED,
        "the connection to the engine was lost",
        retry_after_ms=_RECONNECT_MS,
    )


def timed_out() -> EngineError:
    return EngineError(
        EngineErrorCode.DEADLINE_EXCEEDED, "the engine did not answer in time"
    )


# Supervisors need at least this long to restart an engine.
_RECONNECT_MS = 1000
