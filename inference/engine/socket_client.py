"""The asynchronous client: many calls in flight over one connection."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from inference.engine import calls, frames
from inference.engine.frames import FrameDecoder, MalformedFrame
from inference.engine.messages import (
    Cancel,
    EngineStatus,
    Explained,
    ExplainOptions,
    Failed,
    GetStatus,
    Load,
    Predicted,
    Unload,
    VersionKey,
    VersionToLoad,
)
from inference.engine.tensors import Prediction, Tensor

_MAX_ID = 2**32 - 1
# One sweep over all calls is cheaper than a timer for each.
_SWEEP_S = 0.01
_FIRST_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 1.0
_CONNECT_TIMEOUT_S = 1.0
_CONTROL_TIMEOUT_S = 10.0
_MAX_BUFFERED_BYTES = 64 * 1024 * 1024


class _Connection(asyncio.Protocol):
    def __init__(self, client: "SocketEngineClient") -> None:
        self._client = client
        self._decoder = FrameDecoder()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's transports are no subclass of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._client.received(frame.header, frame.body)
        except MalformedFrame:
            if self.transport is not None:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self)


class SocketEngineClient:
    """Reconnects on its own; belongs to the event loop of its first call.

    While the engine is away every call fails at once with CONNECTION_LOST.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        # Replies are of the type that the call expects, as `_result` makes them.
        self._pending: dict[int, tuple[asyncio.Future[Any], float]] = {}
        self._next_id = 0
        self._out: list[bytes] = []
        self._sweeping = False
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def connect(self) -> bool:
        """Try to connect now; tell whether the engine is there."""
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
        if self._connection is not None or self._closed:
            # Another call was quicker.
            if connection.transport is not None:
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
        self._fail_all("the client was closed")

    # EngineClient

    async def predict(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        timeout_s: float,
        max_batch_rows: int = 0,
    ) -> Prediction:
        if self._connection is None:
            await self._reach()
        request_id = self._take_id()
        data = calls.predict(
            request_id,
            key,
            tensors,
            timeout_s=timeout_s,
            max_batch_rows=max_batch_rows,
        )
        future = self._send(request_id, data, timeout_s)
        try:
            prediction: Prediction = await future
        except asyncio.CancelledError:
            self._abandon(request_id)
            raise
        return prediction

    async def explain(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        options: ExplainOptions,
        timeout_s: float,
    ) -> Explained:
        explained: Explained = await self._call(
            lambda request_id: calls.explain(
                request_id, key, tensors, options=options, timeout_s=timeout_s
            ),
            timeout_s,
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
            await self._reach()
        request_id = self._take_id()
        future = self._send(request_id, encode(request_id), timeout_s)
        try:
            return await future
        except asyncio.CancelledError:
            self._abandon(request_id)
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
        self, request_id: int, data: bytes, timeout_s: float
    ) -> "asyncio.Future[Any]":
        loop = self._loop
        assert loop is not None
        future = loop.create_future()
        self._pending[request_id] = (future, loop.time() + timeout_s)
        self._write(data)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(_SWEEP_S, self._sweep)
        return future

    def _write(self, data: bytes) -> None:
        if not self._out:
            assert self._loop is not None
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        """Send all calls of this turn of the loop in one write."""
        out, self._out = self._out, []
        connection = self._connection
        if connection is None or connection.transport is None:
            return
        transport = connection.transport
        if transport.get_write_buffer_size() > _MAX_BUFFERED_BYTES:
            # The engine hangs: better to lose the connection than the memory.
            transport.abort()
            return
        transport.write(b"".join(out))

    def _abandon(self, request_id: int) -> None:
        if self._pending.pop(request_id, None) is not None:
            self._write(frames.encode(Cancel(request_id)))

    # Receiving

    def received(self, header: memoryview, body: memoryview) -> None:
        reply = frames.decode_reply(header)
        pending = self._pending.get(reply.id)
        if pending is None:
            return
        # Still pending while it is decoded: if that fails, so does the connection,
        # and this call with it.
        result = (
            calls.prediction(reply, body) if isinstance(reply, Predicted) else reply
        )
        del self._pending[reply.id]
        future = pending[0]
        if future.done():
            return
        if isinstance(result, Prediction):
            future.set_result(result)
        elif isinstance(reply, Failed):
            future.set_exception(calls.error(reply))
        else:
            future.set_result(reply)

    def _sweep(self) -> None:
        assert self._loop is not None
        self._sweeping = False
        if not self._pending:
            return
        now = self._loop.time()
        late = [
            request_id
            for request_id, (_, deadline) in self._pending.items()
            if deadline <= now
        ]
        for request_id in late:
            future = self._pending[request_id][0]
            self._abandon(request_id)
            if not future.done():
                future.set_exception(calls.timed_out())
        self._sweeping = True
        self._loop.call_later(_SWEEP_S, self._sweep)

    # Connecting

    async def _reach(self) -> None:
        """Connect, unless that goes on in the background already; or raise."""
        if self._closed:
            raise calls.connection_lost("the client was closed")
        if self._connecting is None and await self.connect():
            return
        if self._connection is None:
            self._reconnect()
            raise calls.connection_lost("the engine is not there")

    def _reconnect(self) -> None:
        if self._connecting is None and not self._closed:
            assert self._loop is not None
            self._connecting = self._loop.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        try:
            while not self._closed and not await self.connect():
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
        finally:
            self._connecting = None

    def lost(self, connection: _Connection) -> None:
        """Fail what was in flight and begin to reconnect."""
        if connection is not self._connection:
            return
        self._connection = None
        self._fail_all("the connection to the engine was lost")
        self._reconnect()

    def _fail_all(self, message: str) -> None:
        self._out.clear()
        pending, self._pending = self._pending, {}
        for future, _ in pending.values():
            if not future.done():
                future.set_exception(calls.connection_lost(message))
