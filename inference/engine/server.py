"""Serve the engine's Unix socket: frames in, frames out, one write per loop turn."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import cast

import msgspec
import structlog

from inference.engine import replies
from inference.engine.batching.entry import BatchAnswer, Entry
from inference.engine.engine import EngineCore
from inference.engine.explaining.plugins import ExplainResult, ExplainTask
from inference.engine.streaming import RunningStream
from inference.engine.wire import frames
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.frames import ForeignFormat, FrameDecoder, MalformedFrame
from inference.engine.wire.messages import (
    Accepted,
    Cancel,
    Credit,
    Explain,
    Failed,
    GetStatus,
    Load,
    Predict,
    Reply,
    Request,
    StreamChunk,
    StreamEnd,
    StreamRequest,
    TensorHeader,
    Unload,
)
from inference.engine.wire.tensors import InvalidTensor, Tensor
from inference.installation import modes

logger = structlog.get_logger()

_MAX_ID = 2**32 - 1
_LARGE_BYTES = 64 * 1024
_FOREVER_S = 86_400.0
_GRACE_S = 0.1
_BACKLOG = 512


class EngineConnection(asyncio.Protocol):
    """One client's connection, and the Caller of the entries that it sent."""

    def __init__(
        self,
        engine: EngineCore,
        connections: "set[EngineConnection]",
        *,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._connections = connections
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder(engine.settings.max_frame_bytes)
        self._writer = replies.ReplyWriter()
        self._transport: asyncio.Transport | None = None
        self._entries: dict[int, Entry] = {}
        self._explaining: dict[int, Future[ExplainResult]] = {}
        self._streams: dict[int, RunningStream] = {}
        self._out: list[bytes] = []

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._engine.counters["connections"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        for entry in self._entries.values():
            self._engine.cancel(entry)
        self._entries.clear()
        for future in self._explaining.values():
            future.cancel()
        self._explaining.clear()
        for stream in self._streams.values():
            stream.cancel()
        self._streams.clear()

    def pause_writing(self) -> None:
        # A client that does not read its answers may not send more requests.
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._handle(frames.decode_request(frame.header), frame.body)
        except ForeignFormat as error:
            # The client reads no more of the answer than its format.
            self._send(Failed(0, EngineErrorCode.BAD_REQUEST, str(error)))
            self._give_up(error)
        except MalformedFrame as error:
            self._give_up(error)

    def _give_up(self, error: MalformedFrame) -> None:
        self._engine.counters["malformed_frames"] += 1
        logger.warning("malformed_frame", reason=str(error))
        self.close()

    # Requests

    def _handle(self, request: Request, body: memoryview) -> None:
        if not 0 <= request.id <= _MAX_ID:
            raise MalformedFrame("an id is out of range")
        if isinstance(request, Predict):
            self._predict(request, body)
            return
        if isinstance(request, Explain):
            self._explain(request, body)
            return
        if isinstance(request, StreamRequest):
            self._stream(request, body)
            return
        if len(body):
            raise MalformedFrame("this message has no buffers")
        if isinstance(request, Cancel):
            self._cancel(request.id)
        elif isinstance(request, Credit):
            stream = self._streams.get(request.id)
            if stream is not None:
                stream.grant(request.credits)
        elif isinstance(request, GetStatus):
            self._send(self._engine.status(request.id))
        elif isinstance(request, Load):
            self._engine.load(request.version)
            self._send(Accepted(request.id))
        elif isinstance(request, Unload):
            self._engine.unload(request.key)
            self._send(Accepted(request.id))

    def _predict(self, request: Predict, body: memoryview) -> None:
        tensors = _rows(request, body)
        if request.id in self._entries:
            raise MalformedFrame("an id is in use")
        now = self._clock()
        timeout_ms = request.timeout_ms
        entry = Entry(
            self,
            request.id,
            tensors,
            nbytes=len(body),
            arrived_at=now,
            deadline=now + (timeout_ms / 1000 if timeout_ms > 0 else _FOREVER_S),
            max_batch_rows=request.max_batch_rows,
            job=request.priority == "job",
            params=request.params,
            customer_id=request.customer_id,
            request_id=request.request_id,
        )
        try:
            self._engine.submit(request.key, entry)
        except EngineError as error:
            self._send_error(request.id, error)
        else:
            self._entries[request.id] = entry

    def _explain(self, request: Explain, body: memoryview) -> None:
        tensors = _rows(request, body)
        timeout_s = request.timeout_ms / 1000 if request.timeout_ms > 0 else _FOREVER_S
        try:
            task = self._engine.explain(
                request.key,
                tensors,
                request.options,
                timeout_s=timeout_s,
                priority=request.priority,
                customer_id=request.customer_id,
                request_id=request.request_id,
            )
        except EngineError as error:
            self._send_error(request.id, error)
            return
        self._explaining[request.id] = task.future

        def done(future: Future[ExplainResult]) -> None:
            self._loop.call_soon_threadsafe(self._explained, request.id, task)

        task.future.add_done_callback(done)

    def _stream(self, request: StreamRequest, body: memoryview) -> None:
        tensors = _decoded(request.tensors, body)
        if request.id in self._streams or request.id in self._entries:
            raise MalformedFrame("an id is in use")
        timeout_ms = request.timeout_ms
        try:
            self._streams[request.id] = self._engine.stream(
                request.key,
                tensors,
                self,
                params=request.params,
                credits=request.credits,
                timeout_s=timeout_ms / 1000 if timeout_ms > 0 else _FOREVER_S,
                stream_id=request.id,
                customer_id=request.customer_id,
                request_id=request.request_id,
            )
        except EngineError as error:
            self._send_error(request.id, error)

    def _cancel(self, request_id: int) -> None:
        entry = self._entries.pop(request_id, None)
        if entry is not None:
            self._engine.cancel(entry)
        stream = self._streams.pop(request_id, None)
        if stream is not None:
            stream.cancel()
        future = self._explaining.pop(request_id, None)
        if future is not None:
            future.cancel()

    # Answers

    def answered(
        self, entry: Entry, answer: BatchAnswer, start: int, queue_us: int
    ) -> None:
        self._entries.pop(entry.id, None)
        try:
            data = self._writer.encode(entry, answer, start, queue_us)
        except InvalidTensor as error:
            # Encoding finds what a check of dtypes cannot: half a surrogate pair.
            self._send_error(
                entry.id, EngineError(EngineErrorCode.MODEL_ERROR, str(error))
            )
            return
        self._out.append(data)

    def delivered(self) -> None:
        self.flush()

    def failed(self, entry: Entry, error: EngineError) -> None:
        self._entries.pop(entry.id, None)
        self._send_error(entry.id, error)

    # Listener of streams

    def chunk(self, stream_id: int, chunk: msgspec.Raw) -> None:
        self._send(StreamChunk(stream_id, chunk))

    def ended(self, stream_id: int, chunks: int) -> None:
        self._streams.pop(stream_id, None)
        self._send(StreamEnd(stream_id, chunks))

    def stream_failed(self, stream_id: int, error: EngineError) -> None:
        self._streams.pop(stream_id, None)
        self._send_error(stream_id, error)

    def _explained(self, request_id: int, task: ExplainTask) -> None:
        future = task.future
        if self._explaining.pop(request_id, None) is None or future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._send(task.explained(request_id, future.result()))
        else:
            # The explain thread turns every exception into an EngineError.
            assert isinstance(error, EngineError)
            self._send_error(request_id, error)

    def _send_error(self, request_id: int, error: EngineError) -> None:
        self._send(
            Failed(
                request_id,
                error.code,
                error.message,
                error.retry_after_ms,
                error.option,
                error.of_customer,
            )
        )

    def _send(self, reply: Reply) -> None:
        self._write(frames.encode(reply))

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(data)

    def flush(self) -> None:
        """Write all answers of this turn of the loop at once."""
        if self._out and self._transport is not None:
            if max(map(len, self._out)) > _LARGE_BYTES:
                # uvloop sends the parts without joining them into one copy.
                self._transport.writelines(self._out)
            else:
                self._transport.write(b"".join(self._out))
        self._out.clear()

    def close(self) -> None:
        """Send what is ready, then close the connection."""
        self.flush()
        if self._transport is not None:
            self._transport.close()


def _rows(request: Predict | Explain, body: memoryview) -> tuple[Tensor, ...]:
    """Decode the tensors; each must have as many rows as the request says."""
    tensors = _decoded(request.tensors, body)
    if len(tensors[0].data) != request.rows:
        raise MalformedFrame("tensors of different rows")
    return tensors


def _decoded(headers: tuple[TensorHeader, ...], body: memoryview) -> tuple[Tensor, ...]:
    tensors = frames.decode_tensors(headers, body)
    if not tensors or tensors[0].data.ndim == 0 or not len(tensors[0].data):
        raise MalformedFrame("a request without rows")
    rows = len(tensors[0].data)
    for tensor in tensors:
        if tensor.data.ndim == 0 or len(tensor.data) != rows:
            raise MalformedFrame("tensors of different rows")
    return tensors


def listen(path: Path) -> socket.socket:
    """Take over a socket's path; the engine that had it must have ended."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    modes.close_to_others(path.parent)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(modes.of_files(path.parent))
    listener.listen(_BACKLOG)
    return listener


class EngineServer:
    """Listen on a Unix socket in a folder of this installation."""

    def __init__(
        self, engine: EngineCore, path: Path, *, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._path = path
        self._clock = clock
        self._connections: set[EngineConnection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket | None = None) -> None:
        """Listen, on a socket that `listen` made or on a new one."""
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: EngineConnection(
                self._engine, self._connections, clock=self._clock
            ),
            sock=listener or listen(self._path),
            backlog=_BACKLOG,
        )

    async def stop(self, drain_s: float) -> bool:
        """Stop listening and finish accepted requests; return whether all ended."""
        if self._server is not None:
            self._server.close()
            # In a sandbox only its host may do that.
            with contextlib.suppress(PermissionError):
                self._path.unlink(missing_ok=True)
            # Also accept requests that were sent before this and are still on the way.
            await asyncio.sleep(min(_GRACE_S, drain_s))
        finished = await self._engine.drain(drain_s)
        for connection in list(self._connections):
            connection.close()
        # Let the transports write what they hold.
        await asyncio.sleep(0.01)
        return finished
