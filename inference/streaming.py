"""The part of the plan that answers chunk by chunk. Pure.

The head waits for the first chunk, so that what fails until then has a status of its
own. An error after it is the last event; the driver writes it as such.
"""

from collections.abc import Callable, Generator
from typing import Any

import msgspec

from inference.dialects.dialect import Headers
from inference.dialects.native import event_stream
from inference.dialects.native.event_stream import Usage
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.installation.shares import Shares
from inference.snapshot.targets import Target
from inference.stream_effects import (
    NextChunk,
    OpenStream,
    SendHead,
    SendPiece,
    Sign,
    Stream,
    StreamEffect,
)

DEFAULT_MAX_STREAM_S = 300.0
DEFAULT_MAX_STREAMS = 256
_KEEP_ALIVE_S = 15.0
_RETRY_AFTER_S = 5.0
# A client that takes less on average is given up: it holds what others wait for.
_MIN_READ_BYTES_PER_S = 8 * 1024
_READ_GRACE_S = 10.0
# A client may take this long to take a fixed answer.
_FIXED_S = 10.0


class StreamLimits:
    """Bound how many streams a process has, and how long; customers share them."""

    def __init__(
        self,
        max_streams: int = DEFAULT_MAX_STREAMS,
        max_stream_s: float = DEFAULT_MAX_STREAM_S,
    ) -> None:
        self.shares = Shares(max_streams)
        self.max_stream_s = max_stream_s

    def enter(self, customer_id: int) -> None:
        """Raise ApiError OVERLOADED if too many are open."""
        if self.shares.take(customer_id):
            return
        message = "There are as many streams as can be served at once. Try again."
        own = self.shares.held(customer_id)
        if own:
            message = (
                f"You have {own} streams open here, and the rest is for others. End "
                "one, or try again."
            )
        raise ApiError(ErrorCode.OVERLOADED, message, retry_after_s=_RETRY_AFTER_S)

    def leave(self, customer_id: int) -> None:
        self.shares.give_back(customer_id)


class StreamedCall(msgspec.Struct):
    """A call whose units are spent, and how it is answered."""

    opening: OpenStream
    target: Target
    request_id: str
    headers: Headers
    # Seconds since the call began.
    elapsed: Callable[[], float]
    # The head has left, so that nothing can stand in any more.
    begun: bool = False


def stream(
    call: StreamedCall, limits: StreamLimits
) -> Generator[StreamEffect, Any, bytes]:
    """Send the head and all events but the last, which is returned."""
    customer_id = call.opening.customer_id
    limits.enter(customer_id)
    try:
        chunks = yield from _send_chunks(call)
    finally:
        limits.leave(customer_id)
    usage = Usage(1, chunks, round(call.elapsed() * 1000, 2))
    return event_stream.end_event(call.target.model_json, usage, call.request_id)


def send_fixed(
    chunk: Any,
    model_json: msgspec.Raw,
    *,
    request_id: str,
    headers: Headers,
    elapsed_s: float,
) -> Generator[StreamEffect, Any, bytes]:
    """Send a fixed answer as the only chunk; return the last event."""
    yield SendHead(headers)
    yield SendPiece(event_stream.chunk_event(0, chunk), _FIXED_S)
    usage = Usage(1, 1, round(elapsed_s * 1000, 2))
    return event_stream.end_event(model_json, usage, request_id)


def _send_chunks(call: StreamedCall) -> Generator[StreamEffect, Any, int]:
    source, chunk = yield from _open(call)
    call.begun = True
    yield SendHead(call.headers)
    count = 0
    while chunk is not Sign.ENDED:
        if chunk is Sign.NOTHING_YET:
            piece = event_stream.KEEP_ALIVE
        else:
            piece = event_stream.chunk_event(count, chunk)
            count += 1
        taking_s = _READ_GRACE_S + len(piece) / _MIN_READ_BYTES_PER_S
        yield SendPiece(piece, min(taking_s, _left(call)))
        chunk = yield _next(call, source)
    return count


def _open(call: StreamedCall) -> Generator[StreamEffect, Any, tuple[Stream, Any]]:
    try:
        source: Stream = yield call.opening
        chunk = yield _next(call, source)
    except EngineError as error:
        if error.code is EngineErrorCode.BAD_REQUEST:
            raise refusals.not_streamed(error) from error
        raise
    return source, chunk


def _next(call: StreamedCall, source: Stream) -> NextChunk:
    return NextChunk(source, min(_KEEP_ALIVE_S, _left(call)))


def _left(call: StreamedCall) -> float:
    left = call.opening.timeout_s - call.elapsed()
    if left <= 0:
        raise refusals.too_late()
    return left
