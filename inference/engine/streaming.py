"""Run models that answer chunk by chunk, each stream in its own thread.

States: `running → ended | failed | cancelled`. A stream makes chunks only while its
caller has granted credits for them, so the amount waiting to be sent is bounded.
Between two chunks, and while the thread waits for credits, it notices that its caller
left, ran out of time or stopped granting; then it closes the model's generator.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from inference.engine.batching import execution, redaction
from inference.engine.devices import failures
from inference.engine.runners.runner import StreamRunner
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Params, credits_of
from inference.engine.wire.tensors import Tensor
from inference.installation.shares import Shares

logger = structlog.get_logger()

# Limit for one chunk, encoded in MessagePack.
MAX_CHUNK_BYTES = 1024 * 1024
MAX_CREDITS = MAX_CHUNK_BYTES
_BUSY_RETRY_MS = 1000

_encoder = msgspec.msgpack.Encoder()


class StreamReader(Protocol):
    """A stream's reader, on the event loop; `ended` or `stream_failed` comes last."""

    def chunk(self, stream_id: int, chunk: msgspec.Raw) -> None:
        """Take one JSON value, in MessagePack."""

    def ended(self, stream_id: int, chunks: int) -> None: ...

    def stream_failed(self, stream_id: int, error: EngineError) -> None: ...


class RunningStream:
    """One running stream. All but `_run` and what it calls belong to the event loop."""

    def __init__(
        self,
        stream_id: int,
        listener: StreamReader,
        *,
        credits: int,  # noqa: A002 - the protocol's name for it
        loop: asyncio.AbstractEventLoop,
        counters: dict[str, int],
        on_end: Callable[["RunningStream"], None],
        name: str = "",
        request_id: str = "",
        log_values: bool = False,
    ) -> None:
        self.id = stream_id
        self._listener: StreamReader | None = listener
        self._loop = loop
        self._counters = counters
        self._on_end = on_end
        # Name of the version and id of the request, for the log.
        self._name = name
        self._request_id = request_id
        self._log_values = log_values
        self._changed = threading.Condition()
        self._credits = min(max(credits, 0), MAX_CREDITS)
        self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None

    def start(
        self,
        runner: StreamRunner,
        tensors: Sequence[Tensor],
        params: Params | None,
        *,
        timeout_s: float,
    ) -> None:
        self._timer = self._loop.call_later(timeout_s, self._expire)
        # Not from a pool, whose threads would keep the process alive while a model
        # never yields.
        threading.Thread(
            target=self._run,
            args=(runner, tensors, params),
            name=f"stream-{self.id}",
            daemon=True,
        ).start()

    def grant(self, credits: int) -> None:  # noqa: A002 - the protocol's name for it
        """Let the model make more chunks."""
        with self._changed:
            self._credits = min(self._credits + max(credits, 0), MAX_CREDITS)
            self._changed.notify()

    def cancel(self) -> None:
        """Stop calling the listener, and close the model's generator."""
        self._listener = None
        if self._timer is not None:
            self._timer.cancel()
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    @property
    def has_listener(self) -> bool:
        return self._listener is not None

    # On the event loop

    def _expire(self) -> None:
        listener = self._listener
        self.cancel()
        if listener is not None:
            listener.stream_failed(
                self.id,
                EngineError(
                    EngineErrorCode.DEADLINE_EXCEEDED, "the stream took too long"
                ),
            )

    def _pass_on(self, chunk: msgspec.Raw) -> None:
        if self._listener is not None:
            self._counters["stream_chunks"] += 1
            self._listener.chunk(self.id, chunk)

    def _finish(self, chunks: int, error: EngineError | None) -> None:
        listener = self._listener
        self.cancel()
        self._on_end(self)
        if listener is None:
            return
        if error is None:
            listener.ended(self.id, chunks)
        else:
            listener.stream_failed(self.id, error)

    # In the stream's thread

    def _run(
        self,
        runner: StreamRunner,
        tensors: Sequence[Tensor],
        params: Params | None,
    ) -> None:
        chunks, failure = 0, None
        try:
            chunks = self._make(runner, tensors, params)
        # A model may raise anything; also its sys.exit must not end the engine.
        except (Exception, SystemExit) as cause:
            reason = failures.said(cause)
            failure = execution.error_of(cause)
            if not self._log_values:
                reason = redaction.redacted(reason, [tensors])
                failure = execution.without_values(failure, cause, reason)
            logger.warning(
                "stream_failed",
                version=self._name,
                request_id=self._request_id,
                exception=type(cause).__name__,
                reason=reason[:500],
                trace=execution.trace_of(cause),
            )
        # The loop is closed when the engine stops.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish, chunks, failure)

    def _make(
        self,
        runner: StreamRunner,
        tensors: Sequence[Tensor],
        params: Params | None,
    ) -> int:
        """Make chunks while somebody reads them; return how many."""
        generator = runner.stream(tensors, params)
        made = 0
        try:
            while self._wanted():
                try:
                    chunk = next(generator)
                except StopIteration:
                    break
                made += 1
                encoded = _encode(chunk)
                with self._changed:
                    self._credits -= credits_of(encoded)
                self._loop.call_soon_threadsafe(self._pass_on, encoded)
        finally:
            generator.close()
        return made

    def _wanted(self) -> bool:
        """Wait for a credit; return False if nobody reads any more.

        A chunk's size is known only once it is made, so it may take more credits than
        are left.
        """
        with self._changed:
            while self._credits < 1 and not self._cancelled:
                self._changed.wait()
            return not self._cancelled


class Streams:
    """The streams of one engine; customers share the limit on their number."""

    def __init__(self, max_streams: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self._shares = Shares(max_streams)
        self._loop = loop
        self._running: set[RunningStream] = set()
        self.counters = {"streams": 0, "stream_chunks": 0, "refused_streams": 0}

    def __len__(self) -> int:
        """Return the number of threads, also those whose caller has just left."""
        return len(self._running)

    @property
    def unanswered(self) -> int:
        """The number of streams that somebody still reads."""
        return sum(stream.has_listener for stream in self._running)

    def start(
        self,
        stream_id: int,
        listener: StreamReader,
        runner: StreamRunner,
        tensors: Sequence[Tensor],
        params: Params | None,
        *,
        credits: int,  # noqa: A002 - the protocol's name for it
        timeout_s: float,
        customer_id: int = 0,
        name: str = "",
        request_id: str = "",
        log_values: bool = False,
    ) -> RunningStream:
        """Start a stream; raise EngineError OVERLOADED if too many run already."""
        if not self._shares.take(customer_id):
            self.counters["refused_streams"] += 1
            raise EngineError(
                EngineErrorCode.OVERLOADED,
                f"{len(self._running)} streams are running already, "
                f"{self._shares.held(customer_id)} of them for this customer",
                retry_after_ms=_BUSY_RETRY_MS,
                of_customer=self._shares.used < self._shares.most,
            )

        def ended(stream: RunningStream) -> None:
            self._running.discard(stream)
            self._shares.give_back(customer_id)

        self.counters["streams"] += 1
        stream = RunningStream(
            stream_id,
            listener,
            credits=credits,
            loop=self._loop,
            counters=self.counters,
            on_end=ended,
            name=name,
            request_id=request_id,
            log_values=log_values,
        )
        self._running.add(stream)
        stream.start(runner, tensors, params, timeout_s=timeout_s)
        return stream

    def close(self) -> None:
        for stream in list(self._running):
            stream.cancel()


def _encode(chunk: Any) -> msgspec.Raw:
    """Encode a chunk; raise ValueError if it cannot be sent."""
    try:
        data = _encoder.encode(chunk)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError("a chunk that is no JSON value") from error
    if len(data) > MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk of {len(data)} bytes; {MAX_CHUNK_BYTES} may be sent")
    return msgspec.Raw(data)
