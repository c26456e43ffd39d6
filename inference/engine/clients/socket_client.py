"""Call an engine asynchronously, with many calls in flight over one connection."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Protocol, cast

from inference.engine.clients import requests
from inference.engine.clients.inbox import Inbox
from inference.engine.wire import frames
from inference.engine.wire.calls import ExplanationCall, PredictionCall, StreamCall
from inference.engine.wire.errors import EngineError
from inference.engine.wire.frames import ForeignFormat, FrameDecoder, MalformedFrame
from inference.engine.wire.messages import (
    Cancel,
    Credit,
    EngineStatus,
    Explained,
    Failed,
    GetStatus,
    Load,
    Predicted,
    StreamChunk,
    Unload,
    VersionKey,
    VersionToLoad,
)
from inference.engine.wire.tensors import Prediction

_MAX_ID = 2**32 - 1
# One sweep over all calls is cheaper than a timer for each.
_SWEEP_S = 0.01
# A process that ended is soon back, so try often at first.
_FIRST_BACKOFF_S = 0.03
_OFTEN_FOR_S = 2.0
_MAX_BACKOFF_S = 1.0
_CONNECT_TIMEOUT_S = 1.0
_CONTROL_TIMEOUT_S = 10.0
_MAX_BUFFERED_BYTES = 64 * 1024 * 1024
_LARGE_BYTES = 64 * 1024
# After this many calls in one turn of the loop, send them before the turn ends: the
# engine can compute them while the loop reads more.
_MAX_TOGETHER = 16


class Waiter(Protocol):
    """The receiver of one reply, or of a stream's chunks, on the event loop."""

    def resume(self, value: Any) -> None: ...

    def fail(self, error: Exception) -> None: ...


class PendingCall:
    """A call that is not answered yet."""

    __slots__ = ("client", "deadline", "id", "waiter")

    def __init__(
        self,
        client: "SocketEngineClient",
        id: int,  # noqa: A002 - the protocol's name for it
        waiter: Waiter,
        deadline: float,
    ) -> None:
        self.client = client
        self.id = id
        self.waiter = waiter
        self.deadline = deadline

    def abandon(self) -> None:
        """Stop waiting for the answer, and tell the engine so."""
        self.client.abandon(self.id)


class _FutureWaiter:
    """Set a future, so that a coroutine can wait for the reply."""

    __slots__ = ("_future",)

    def __init__(self, future: "asyncio.Future[Any]") -> None:
        self._future = future

    def resume(self, value: Any) -> None:
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: Exception) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class _Connection(asyncio.Protocol):
    def __init__(self, client: "SocketEngineClient") -> None:
        self._client = client
        self._decoder = FrameDecoder()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are not subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._client.received(frame.header, frame.body)
        except MalformedFrame as error:
            if isinstance(error, ForeignFormat):
                foreign = functools.partial(requests.foreign_format, error)
                self._client.lost(self, foreign)
            if self.transport is not None:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._client.lost(self)


class SocketEngineClient:
    """An asynchronous client that reconnects by itself; use it on one event loop.

    Without a connection every call fails at once with CONNECTION_LOST. Calls in flight
    when a connection ends fail with DIED.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pending: dict[int, PendingCall] = {}
        self._next_id = 0
        self._out: list[bytes] = []
        self._sweeping = False
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def in_flight(self) -> int:
        """How many calls are not answered yet."""
        return len(self._pending)

    async def connect(self) -> bool:
        """Try to connect now; return whether there is a connection."""
        if self._connection is not None:
            return True
        self._loop = asyncio.get_running_loop()
        try:
            _, connection = await asyncio.wait_for(
                self._loop.create_unix_connection(
                    lambda: _Connection(self), self._path
                ),
                _CONNECT_TIMEOUT_S,
            )
        except (OSError, TimeoutError):
            return False
        if connection.transport is None:
            # The engine ended at once; `lost` was called before there was a connection.
            return False
        if self._connection is not None or self._closed:
            # Another call connected first.
            connection.transport.abort()
            return self._connection is not None
        self._connection = connection
        return True

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None and connection.transport is not None:
            connection.transport.close()
        self._fail_all(lambda: requests.connection_lost("the client was closed"))

    # EngineClient

    async def predict(self, call: PredictionCall) -> Prediction:
        if self._connection is None:
            await self.reach()
        assert self._loop is not None
        future = self._loop.create_future()
        pending = self.begin(call, _FutureWaiter(future))
        try:
            prediction: Prediction = await future
        except asyncio.CancelledError:
            pending.abandon()
            raise
        return prediction

    def begin(self, call: PredictionCall, waiter: Waiter) -> PendingCall:
        """Ask for a prediction without a coroutine; call only while `connected`."""
        request_id = self._take_id()
        data = requests.predict(request_id, call)
        return self._send(request_id, data, call.timeout_s, waiter)

    async def stream(self, call: StreamCall) -> AsyncGenerator[Any, None]:
        if self._connection is None:
            await self.reach()
        request_id = self._take_id()
        data = requests.stream(request_id, call)
        box = Inbox(lambda count: self._write(frames.encode(Credit(request_id, count))))
        pending = self._send(request_id, data, call.timeout_s, box)
        try:
            async for chunk in box.chunks():
                yield chunk
        finally:
            # After the end another call may already use the same id.
            if not box.finished:
                pending.abandon()

    async def explain(self, call: ExplanationCall) -> Explained:
        explained: Explained = await self._call(
            lambda request_id: requests.explain(request_id, call),
            call.timeout_s,
        )
        return explained

    async def load(self, version: VersionToLoad) -> None:
        await self._call(lambda request_id: frames.encode(Load(request_id, version)))

    async def unload(self, key: VersionKey) -> None:
        await self._call(lambda request_id: frames.encode(Unload(request_id, key)))

    async def status(self) -> EngineStatus:
        status: EngineStatus = await self._call(
            lambda request_id: frames.encode(GetStatus(request_id))
        )
        return status

    async def _call(
        self, encode: Callable[[int], bytes], timeout_s: float = _CONTROL_TIMEOUT_S
    ) -> Any:
        if self._connection is None:
            await self.reach()
        request_id = self._take_id()
        assert self._loop is not None
        future = self._loop.create_future()
        pending = self._send(
            request_id, encode(request_id), timeout_s, _FutureWaiter(future)
        )
        try:
            return await future
        except asyncio.CancelledError:
            pending.abandon()
            raise

    # Sending

    def _take_id(self) -> int:
        pending = self._pending
        request_id = self._next_id
        while request_id in pending:
            request_id = (request_id + 1) & _MAX_ID
        self._next_id = (request_id + 1) & _MAX_ID
        return request_id

    def _send(
        self, request_id: int, data: bytes, timeout_s: float, waiter: Waiter
    ) -> PendingCall:
        loop = self._loop
        assert loop is not None
        pending = PendingCall(self, request_id, waiter, loop.time() + timeout_s)
        self._pending[request_id] = pending
        self._write(data)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(_SWEEP_S, self._sweep)
        return pending

    def _write(self, data: bytes) -> None:
        if not self._out:
            assert self._loop is not None
            self._loop.call_soon(self._flush)
        self._out.append(data)
        if len(self._out) >= _MAX_TOGETHER:
            self._flush()

    def _flush(self) -> None:
        """Send all queued frames in one write; called at the end of each loop turn."""
        out, self._out = self._out, []
        connection = self._connection
        if not out or connection is None or connection.transport is None:
            return
        transport = connection.transport
        if transport.get_write_buffer_size() > _MAX_BUFFERED_BYTES:
            # The engine hangs: drop the connection before memory runs out.
            transport.abort()
            return
        if max(map(len, out)) > _LARGE_BYTES:
            # uvloop sends the parts without joining them into one copy.
            transport.writelines(out)
        else:
            transport.write(b"".join(out))

    def abandon(self, request_id: int) -> None:
        if self._pending.pop(request_id, None) is not None:
            self._write(frames.encode(Cancel(request_id)))

    # Receiving

    def received(self, header: memoryview, body: memoryview) -> None:
        reply = frames.decode_reply(header)
        pending = self._pending.get(reply.id)
        if pending is None:
            return
        # Remove the call only after decoding: if that fails, the connection closes and
        # must fail this call too.
        if isinstance(reply, Predicted):
            result: Any = requests.prediction(reply, body)
        elif isinstance(reply, StreamChunk):
            pending.waiter.resume(reply)
            return
        else:
            result = reply
        del self._pending[reply.id]
        if isinstance(reply, Failed):
            pending.waiter.fail(requests.error(reply))
        else:
            pending.waiter.resume(result)

    def _sweep(self) -> None:
        assert self._loop is not None
        self._sweeping = False
        if not self._pending:
            return
        now = self._loop.time()
        late = [call for call in self._pending.values() if call.deadline <= now]
        for call in late:
            call.abandon()
            call.waiter.fail(requests.timed_out())
        self._sweeping = True
        self._loop.call_later(_SWEEP_S, self._sweep)

    # Connecting

    async def reach(self) -> None:
        """Connect; raise if that fails, or while a background task is trying."""
        if self._closed:
            raise requests.connection_lost("the client was closed")
        if self._connecting is None and await self.connect():
            return
        if self._connection is None:
            self._reconnect()
            raise requests.connection_lost("the engine is not there")

    def _reconnect(self) -> None:
        if self._connecting is None and not self._closed:
            assert self._loop is not None
            self._connecting = self._loop.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        assert self._loop is not None
        often_until = self._loop.time() + _OFTEN_FOR_S
        backoff_s = _FIRST_BACKOFF_S
        try:
            while not self._closed and not await self.connect():
                await asyncio.sleep(backoff_s)
                if self._loop.time() > often_until:
                    backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
        finally:
            self._connecting = None

    def lost(
        self,
        connection: _Connection,
        error: Callable[[], EngineError] = requests.died,
    ) -> None:
        """Fail all calls in flight and begin to reconnect."""
        if connection is not self._connection:
            return
        self._connection = None
        self._fail_all(error)
        self._reconnect()

    def _fail_all(self, error: Callable[[], EngineError]) -> None:
        self._out.clear()
        pending, self._pending = self._pending, {}
        for call in pending.values():
            call.waiter.fail(error())
