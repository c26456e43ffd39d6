"""The plan's way through a prediction that is answered chunk by chunk. Pure."""

from collections.abc import Callable, Generator
from typing import Any

from inference import fallbacks, row_sources, streaming
from inference.codecs.decoding import DecodedRequest
from inference.dialects.dialect import Call, Headers
from inference.dialects.native import event_stream
from inference.effects import Answer, Effect
from inference.engine.signatures.signature import UnsupportedSignature
from inference.engine.wire.errors import EngineError
from inference.errors import refusals
from inference.errors.api_error import ApiError
from inference.fallbacks import FallbackLog
from inference.progress import Progress, log_failure, usage_event
from inference.snapshot.targets import Target, fallback_json
from inference.stream_effects import OpenStream, StreamAbandoned
from inference.streaming import StreamLimits

# In events and logs only: nobody is there to be told.
CLIENT_LEFT_STATUS = 499
CLIENT_LEFT_CODE = "CLIENT_LEFT"


class StreamedPrediction:
    """Makes the steps of streams, from what was admitted and decoded."""

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

    def steps(
        self,
        call: Call,
        progress: Progress,
        target: Target,
        body: bytes,
        decoded: DecodedRequest,
        timeout_s: float,
    ) -> Generator[Effect, Any, Answer]:
        """Send all events but the last, which waits until its event is written."""
        streamed = self._streamed(progress, target, decoded, timeout_s)
        status, code, last = 200, "", b""
        try:
            try:
                last = yield from streaming.stream(streamed, self._limits)
            except (ApiError, EngineError) as error:
                if streamed.begun:
                    raise
                if isinstance(error, EngineError):
                    log_failure(progress, error)
                    error = refusals.of_engine(error)
                last = yield from self._stream_instead(
                    call, progress, body, decoded, error, timeout_s
                )
        except StreamAbandoned:
            # The model has worked, so the call is charged.
            status, code = CLIENT_LEFT_STATUS, CLIENT_LEFT_CODE
        finally:
            total_us = int(streamed.elapsed() * 1e6)
            progress.compute_us = 0 if progress.fallback == "fixed" else total_us
        charged = progress.is_charged()
        if charged:
            progress.spent = False
        event = usage_event(
            call,
            progress,
            boot_id=self._boot_id,
            status=status,
            code=code,
            charged=charged,
            total_us=total_us,
        )
        return Answer(status, [], last, event)

    def _streamed(
        self,
        progress: Progress,
        target: Target,
        decoded: DecodedRequest,
        timeout_s: float,
    ) -> streaming.StreamedCall:
        return streaming.StreamedCall(
            OpenStream(
                progress.model.model.engines,  # type: ignore[union-attr]
                target.key,
                decoded.tensors,
                timeout_s,
                decoded.params,
                progress.entry.key.customer_id,  # type: ignore[union-attr]
            ),
            target,
            progress.request_id,
            [*self._stream_headers(progress), target.version_header],
            lambda: self._timer() - progress.started,
        )

    def _stream_headers(self, progress: Progress) -> Headers:
        headers = [
            *event_stream.HEADERS,
            (b"x-request-id", progress.request_id.encode()),
            *progress.entry.admission.headers(progress.now),  # type: ignore[union-attr]
        ]
        if progress.fallback:
            headers.append((b"x-fallback", progress.fallback.encode()))
        return headers

    def _stream_instead(
        self,
        call: Call,
        progress: Progress,
        body: bytes,
        decoded: DecodedRequest,
        error: ApiError,
        timeout_s: float,
    ) -> Generator[Effect, Any, bytes]:
        """Stream from what stands in for the version, or its answer as one chunk."""
        fallback, target = fallbacks.of_route(call, progress, error)
        primary = progress.target
        remaining_s = timeout_s - (self._timer() - progress.started)
        if target is not None and remaining_s > 0:
            streamed = None
            try:
                decoded = yield from row_sources.decode_for(
                    target, call, progress, body, decoded, remaining_s
                )
                progress.target, progress.fallback = target, "version"
                streamed = self._streamed(progress, target, decoded, timeout_s)
                last: bytes = yield from streaming.stream(streamed, self._limits)
            except (ApiError, EngineError, UnsupportedSignature):
                if streamed is not None and streamed.begun:
                    raise
                # What the version in charge said is the better reason.
                progress.target, progress.fallback = primary, ""
            else:
                self._fallback_log.note(progress, error)
                return last
        if fallback.answer is None:
            raise error
        progress.target, progress.fallback = None, "fixed"
        self._fallback_log.note(progress, error)
        return (
            yield from streaming.send_fixed(
                fallback.answer.prediction,
                fallback_json(progress.model.model.name, None, reason=error.code),  # type: ignore[union-attr]
                request_id=progress.request_id,
                headers=self._stream_headers(progress),
                elapsed_s=self._timer() - progress.started,
            )
        )
