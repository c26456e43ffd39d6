"""Plan a prediction that is answered chunk by chunk.

The head waits for the first chunk, so an error until then has its own status. A later
error is the last event of the stream, and the driver writes it.
"""

from collections.abc import Callable, Generator
from typing import Any

import msgspec

from inference.dialects.dialect import Headers
from inference.dialects.native import event_stream
from inference.dialects.native.event_stream import Usage
from inference.engine.signatures.signature import UnsupportedSignature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.installation.shares import Shares
from inference.prediction import fallbacks, refused, row_sources
from inference.prediction.effects import (
    Answer,
    CallAbandoned,
    ChunkSource,
    Effect,
    NextChunk,
    NoChunk,
    OpenStream,
    SendHead,
    SendPiece,
    StreamAbandoned,
    StreamEffect,
)
from inference.prediction.fallbacks import FallbackLog
from inference.prediction.stages import (
    CLIENT_LEFT_CODE,
    CLIENT_LEFT_STATUS,
    KnownCall,
    PreparedCall,
    log_failure,
    quarantined,
    usage_event,
)
from inference.snapshot.targets import Target, fallback_json

DEFAULT_MAX_STREAM_S = 300.0
DEFAULT_MAX_STREAMS = 256
_KEEP_ALIVE_S = 15.0
_RETRY_AFTER_S = 5.0
# A client that reads each piece more slowly than this is given up, because it holds a
# stream that others may wait for.
_MIN_READ_BYTES_PER_S = 8 * 1024
_READ_GRACE_S = 10.0
# A client has this long to read a fixed answer.
_FIXED_S = 10.0


class StreamLimits:
    """Bound the streams of a process in number and time; customers share them."""

    def __init__(
        self,
        max_streams: int = DEFAULT_MAX_STREAMS,
        max_stream_s: float = DEFAULT_MAX_STREAM_S,
    ) -> None:
        self.shares = Shares(max_streams)
        self.max_stream_s = max_stream_s

    def enter(self, customer_id: int) -> None:
        """Count one more stream; raises ApiError OVERLOADED if too many are open."""
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


class StreamedAnswer(msgspec.Struct):
    """A stream to open, and the facts for its answer."""

    opening: OpenStream
    target: Target
    request_id: str
    headers: Headers
    # Seconds since the call began.
    elapsed: Callable[[], float]
    # An engine was asked for it.
    asked: bool = False
    # The head was sent, so a fallback cannot answer any more.
    begun: bool = False


def stream(
    call: StreamedAnswer, limits: StreamLimits
) -> Generator[StreamEffect, Any, bytes]:
    """Send the head and all events but the last; return the last event."""
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


def _send_chunks(call: StreamedAnswer) -> Generator[StreamEffect, Any, int]:
    source, chunk = yield from _open(call)
    call.begun = True
    yield SendHead(call.headers)
    count = 0
    while chunk is not NoChunk.ENDED:
        if chunk is NoChunk.NOTHING_YET:
            piece = event_stream.KEEP_ALIVE
        else:
            piece = event_stream.chunk_event(count, chunk)
            count += 1
        taking_s = _READ_GRACE_S + len(piece) / _MIN_READ_BYTES_PER_S
        yield SendPiece(piece, min(taking_s, _left(call)))
        chunk = yield _next(call, source)
    return count


def _open(
    call: StreamedAnswer,
) -> Generator[StreamEffect, Any, tuple[ChunkSource, Any]]:
    if call.target.quarantined:
        raise quarantined(call.target.key)
    call.asked = True
    try:
        source: ChunkSource = yield call.opening
        chunk = yield _next(call, source)
    except EngineError as error:
        if error.code is EngineErrorCode.BAD_REQUEST:
            raise refusals.not_streamed(error) from error
        raise
    return source, chunk


def _next(call: StreamedAnswer, source: ChunkSource) -> NextChunk:
    return NextChunk(source, min(_KEEP_ALIVE_S, _left(call)))


def _left(call: StreamedAnswer) -> float:
    left = call.opening.timeout_s - call.elapsed()
    if left <= 0:
        raise refusals.too_late()
    return left


class StreamedPrediction:
    """Make the steps of streams, from calls that are admitted and decoded."""

    def __init__(
        self,
        limits: StreamLimits,
        *,
        boot_id: str,
        timer: Callable[[], float],
        fallback_log: FallbackLog,
    ) -> None:
        self._limits = limits
        self._boot_id = boot_id
        self._timer = timer
        self._fallback_log = fallback_log

    def steps(self, call: PreparedCall) -> Generator[Effect, Any, Answer]:
        """Send all events but the last: it waits until the usage event is written."""
        known = call.known
        streamed = self._streamed(call)
        status, code, last = 200, "", b""
        try:
            try:
                last = yield from stream(streamed, self._limits)
            except (ApiError, EngineError, CallAbandoned) as error:
                known.asked = streamed.asked
                if streamed.begun or isinstance(error, CallAbandoned):
                    raise
                if isinstance(error, EngineError):
                    log_failure(known, error)
                    error = refusals.of_engine(error)
                last = yield from self._stream_instead(call, error)
        except StreamAbandoned:
            # The model has worked, so the call is charged.
            status, code = CLIENT_LEFT_STATUS, CLIENT_LEFT_CODE
        finally:
            total_us = int(streamed.elapsed() * 1e6)
            known.compute_us = 0 if known.fallback == "fixed" else total_us
        charged = known.is_charged()
        if charged:
            known.spent = False
        event = usage_event(
            known,
            boot_id=self._boot_id,
            status=status,
            code=code,
            charged=charged,
            total_us=total_us,
        )
        return Answer(status, [], last, event)

    def _streamed(self, call: PreparedCall) -> StreamedAnswer:
        known, target = call.known, call.target
        # Another version may have been tried before.
        optional = target.optional
        known.used = None if optional is None else optional.used(call.decoded)
        return StreamedAnswer(
            OpenStream(
                target.key,
                call.decoded.tensors,
                call.timeout_s,
                call.decoded.params,
                known.customer_id,
                known.request_id,
                engines=target.engines,
            ),
            target,
            known.request_id,
            [*self._stream_headers(known), *target.headers],
            lambda: self._timer() - known.started,
        )

    def _stream_headers(self, known: KnownCall) -> Headers:
        headers = [
            *event_stream.HEADERS,
            (b"x-request-id", known.request_id.encode()),
            *known.entry.admission.headers(known.now),
        ]
        if known.fallback:
            headers.append((b"x-fallback", known.fallback.encode()))
        return headers

    def _stream_instead(
        self, call: PreparedCall, error: ApiError
    ) -> Generator[Effect, Any, bytes]:
        """Stream from another version, or send the fixed answer as one chunk.

        What only the canary refuses, the default streams; else the route's fallback.
        """
        known = call.known
        default = call.model.default
        if (
            known.is_on_canary
            and default is not None
            and error.code in refused.BY_DECODER
        ):
            last = yield from self._stream_from(
                default, call, fault=refused.INPUT_REFUSED
            )
            if last is not None:
                return last
        fallback, target = fallbacks.of_route(call, error)
        if target is not None:
            last = yield from self._stream_from(
                target, call, fault=error.code, fallback="version"
            )
            if last is not None:
                self._fallback_log.note(known, error)
                return last
        if fallback.answer is None:
            raise error
        known.target, known.fallback, known.fault = None, "fixed", error.code
        self._fallback_log.note(known, error)
        return (
            yield from send_fixed(
                fallback.answer.prediction,
                fallback_json(call.model.model.name, None, reason=error.code),
                request_id=known.request_id,
                headers=[*self._stream_headers(known), *call.model.headers],
                elapsed_s=self._timer() - known.started,
            )
        )

    def _stream_from(
        self, target: Target, call: PreparedCall, *, fault: str, fallback: str = ""
    ) -> Generator[Effect, Any, bytes | None]:
        """Stream from a version that was not in charge; None if it cannot begin."""
        known = call.known
        remaining_s = call.remaining_s(self._timer())
        if remaining_s <= 0:
            return None
        before = known.fault
        streamed = None
        try:
            other = yield from row_sources.decode_for(target, call, remaining_s)
            known.target, known.fallback, known.fault = target, fallback, fault
            streamed = self._streamed(other)
            last: bytes = yield from stream(streamed, self._limits)
        except (ApiError, EngineError, UnsupportedSignature):
            if streamed is not None and streamed.begun:
                raise
            # The error of the version in charge says more.
            known.target, known.fallback, known.fault = call.target, "", before
            return None
        return last
