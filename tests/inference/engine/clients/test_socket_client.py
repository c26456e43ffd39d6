"""Test what the socket client writes and when; `test_client_contract` tests answers."""

import asyncio
import contextlib
import struct

import numpy as np
import pytest

from inference.engine.clients.socket_client import SocketEngineClient
from inference.engine.wire import frames
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Predict, VersionKey
from inference.engine.wire.tensors import Tensor

KEY = VersionKey("m", 1)
ROW = Tensor("input", np.zeros((1, 2), np.float32))


class Nobody:
    def resume(self, value):
        raise AssertionError("nothing was answered")

    fail = resume


def test_calls_of_one_turn_leave_together_but_none_waits_for_many(tmp_path):
    """An engine can then compute the first ones while the client reads the others."""
    within_the_turn, writes, received = asyncio.run(written(tmp_path, calls=40))

    assert [asked(data) for data in within_the_turn] == [16, 16]
    assert [asked(data) for data in writes] == [16, 16, 8]
    assert asked(b"".join(received)) == 40


async def written(tmp_path, *, calls):
    received, ended = [], []

    async def engine(reader, writer):
        while data := await reader.read(1 << 20):
            received.append(data)
        writer.close()
        await writer.wait_closed()
        ended.append(True)

    server = await asyncio.start_unix_server(engine, tmp_path / "engine.sock")
    client = SocketEngineClient(tmp_path / "engine.sock")
    assert await client.connect()
    writes = []
    client._connection.transport = Writes(client._connection.transport, writes)

    for _ in range(calls):
        client.begin(PredictionCall(KEY, (ROW,), timeout_s=5), Nobody())
    within_the_turn = list(writes)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    client._pending.clear()
    await client.close()
    while not ended:
        await asyncio.sleep(0.001)
    server.close()
    await server.wait_closed()
    return within_the_turn, writes, received


class Writes:
    """A transport that records what was written to it."""

    def __init__(self, transport, writes):
        self._transport = transport
        self._writes = writes

    def write(self, data):
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name):
        return getattr(self._transport, name)


def asked(data):
    requests = [
        frames.decode_request(one.header) for one in frames.FrameDecoder().feed(data)
    ]
    assert all(isinstance(request, Predict) for request in requests)
    assert len({request.id for request in requests}) == len(requests)
    return len(requests)


def test_an_engine_that_is_soon_back_is_found_at_once(tmp_path):
    async def main():
        path = tmp_path / "engine.sock"
        client = SocketEngineClient(path)
        loop = asyncio.get_running_loop()
        first = await loop.create_unix_server(asyncio.Protocol, path)
        assert await client.connect()
        first.close()
        # Python 3.13 removes it with its server.
        path.unlink(missing_ok=True)
        client._connection.transport.abort()
        while client.connected:
            await asyncio.sleep(0)

        await asyncio.sleep(0.8)
        second = await loop.create_unix_server(asyncio.Protocol, path)
        came_back = loop.time()
        while not client.connected:
            await asyncio.sleep(0.001)
        took_s = loop.time() - came_back
        await client.close()
        await asyncio.sleep(0.01)
        second.close()
        return took_s

    # With the pauses of earlier times, the next try was up to 0.4 s away.
    assert asyncio.run(main()) < 0.2


def test_an_engine_that_ends_while_it_is_connected_to_is_not_there(
    tmp_path, monkeypatch
):
    async def main():
        client = SocketEngineClient(tmp_path / "engine.sock")

        async def gone_at_once(make_protocol, path):
            protocol = make_protocol()
            protocol.connection_made(asyncio.Transport())
            protocol.connection_lost(None)
            return None, protocol

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "create_unix_connection", gone_at_once)

        assert not await client.connect()
        assert not client.connected

    asyncio.run(main())


def test_an_engine_of_another_format_is_away_and_the_error_says_why(tmp_path):
    async def main():
        begun, ended = [], []

        async def engine(reader, writer):
            begun.append(True)
            await reader.read(1)
            writer.write(struct.pack("<IBI", 10, 2, 5))
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            ended.append(True)

        path = tmp_path / "engine.sock"
        server = await asyncio.start_unix_server(engine, path)
        client = SocketEngineClient(path)
        try:
            await client.status()
        finally:
            await client.close()
            server.close()
            while len(ended) < len(begun):
                await asyncio.sleep(0.001)
            await server.wait_closed()

    with pytest.raises(EngineError) as caught:
        asyncio.run(main())

    assert caught.value.code is EngineErrorCode.CONNECTION_LOST
    assert "its messages have format 2, and this code reads 1" in str(caught.value)
