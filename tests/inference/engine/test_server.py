import asyncio
import stat
import struct
from contextlib import asynccontextmanager

import pytest
import structlog

from inference.engine.clients import requests
from inference.engine.clients.socket_client import SocketEngineClient
from inference.engine.server import EngineServer
from inference.engine.streaming import MAX_CREDITS
from inference.engine.wire import frames
from inference.engine.wire.calls import PredictionCall, StreamCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    MIN_CHUNK_CREDITS,
    Cancel,
    Credit,
    EngineStatus,
    Failed,
    GetStatus,
    Load,
    Predict,
    Predicted,
    StreamChunk,
    StreamEnd,
    StreamRequest,
    TensorHeader,
)
from tests.inference.engine.fakes import (
    KEY,
    FakeRunner,
    FakeStreamRunner,
    fake_engine,
    ready,
    rows,
    run,
    to_load,
    until,
)


@asynccontextmanager
async def serving(home, runner, **fields):
    engine = fake_engine(home, runner, **fields)
    path = home / "run" / "engine.sock"
    server = EngineServer(engine, path, clock=engine.clock)
    await server.start()
    engine.load(to_load())
    await ready(engine)
    try:
        yield engine, path, server
    finally:
        runner.release()
        await server.stop(1)
        engine.close()


def predict(request_id, *values):
    return requests.predict(
        request_id, PredictionCall(KEY, rows(*values), timeout_s=60)
    )


class Peer:
    """A client that sends and receives raw bytes."""

    def __init__(self, reader, writer):
        self._reader, self.writer = reader, writer
        self._decoder = frames.FrameDecoder()

    @classmethod
    async def connect(cls, path):
        return cls(*await asyncio.open_unix_connection(str(path)))

    async def replies(self, count):
        received = []
        while len(received) < count:
            data = await self._reader.read(65536)
            assert data, "closed"
            received += [
                frames.decode_reply(frame.header) for frame in self._decoder.feed(data)
            ]
        return received

    async def is_closed(self):
        return await self._reader.read() == b""

    def close(self):
        self.writer.close()


def credit(request_id, chunks):
    return frames.encode(Credit(request_id, chunks * MIN_CHUNK_CREDITS))


def stream(request_id, *values, chunks=4):
    return requests.stream(
        request_id,
        StreamCall(KEY, rows(*values), timeout_s=20),
        credits=chunks * MIN_CHUNK_CREDITS,
    )


def test_chunks_come_as_far_as_there_are_credits(tmp_path):
    async def main():
        runner = FakeStreamRunner(count=100)
        async with serving(tmp_path, runner) as (_, path, _):
            peer = await Peer.connect(path)

            peer.writer.write(stream(1, 0, chunks=3))
            first = await peer.replies(3)
            await asyncio.sleep(0.05)
            made = runner.made
            peer.writer.write(credit(1, 2) + credit(9, 5))
            more = await peer.replies(2)

            assert all(isinstance(reply, StreamChunk) for reply in first + more)
            assert made == 3
            peer.close()

    run(main())


def test_credits_beyond_measure_do_not_make_the_engine_queue_without_end(tmp_path):
    async def main():
        runner = FakeStreamRunner(count=100_000)
        async with serving(tmp_path, runner) as (_, path, _):
            peer = await Peer.connect(path)

            peer.writer.write(stream(1, 0, chunks=2**40))
            peer.writer.write(credit(1, 2**40))
            await peer.replies(1)
            most = MAX_CREDITS // MIN_CHUNK_CREDITS
            await until(lambda: runner.made >= most)
            await asyncio.sleep(0.05)

            assert runner.made <= 2 * most
            peer.close()
            assert await asyncio.to_thread(runner.closed.wait, 1)

    run(main())


def test_a_peer_that_hangs_up_closes_its_streams_only(tmp_path):
    async def main():
        runner = FakeStreamRunner(count=1000)
        async with serving(tmp_path, runner) as (engine, path, _):
            leaving, staying = await Peer.connect(path), await Peer.connect(path)
            leaving.writer.write(stream(1, 0) + stream(2, 0))
            staying.writer.write(stream(1, 0))
            await leaving.replies(8)
            await staying.replies(4)

            leaving.writer.transport.abort()

            await until(lambda: len(engine.streams) == 1)
            staying.writer.write(credit(1, 1))
            await staying.replies(1)
            staying.close()

    run(main())


def test_running_streams_finish_before_the_engine_stops(tmp_path):
    async def main():
        runner = FakeStreamRunner(count=3)
        async with serving(tmp_path, runner) as (_, path, server):
            peer = await Peer.connect(path)
            runner.hold()
            peer.writer.write(stream(1, 0))
            await asyncio.sleep(0.02)

            stopping = asyncio.create_task(server.stop(5))
            await asyncio.sleep(0.02)
            runner.release()
            replies = await peer.replies(4)

            assert await stopping
            assert isinstance(replies[-1], StreamEnd)
            peer.close()

    run(main())


def header(dtype="float32", shape=(1, 2), nbytes=8):
    return (TensorHeader("input", dtype, shape, nbytes),)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: engine\r\n\r\n",
        (2**31).to_bytes(4, "little") * 3,
        frames.frame(b"\x93\xa7unknown\x01\x02"),
        frames.frame(b"\xc1"),
        frames.encode(Failed(1, "x", "a reply, not a request")),
        frames.encode(Predict(1, KEY, 1, header(), 1000)),
        frames.encode(Predict(1, KEY, 2, header(), 1000), bytes(8)),
        frames.encode(Predict(1, KEY, 1, header(dtype="object"), 1000), bytes(8)),
        frames.encode(Predict(1, KEY, 0, (), 1000)),
        frames.encode(Predict(-1, KEY, 1, header(), 1000), bytes(8)),
        frames.encode(Predict(2**40, KEY, 1, header(), 1000), bytes(8)),
        frames.encode(GetStatus(1), b"surplus"),
        frames.encode(StreamRequest(1, KEY, (), 1000, 1)),
        frames.encode(StreamRequest(1, KEY, header(), 1000, 1)),
        frames.encode(Credit(1, 1), b"surplus"),
    ],
)
def test_a_malformed_frame_closes_that_connection_only(tmp_path, data):
    async def main():
        async with serving(tmp_path, FakeRunner()) as (engine, path, _):
            bad, good = await Peer.connect(path), await Peer.connect(path)

            bad.writer.write(data)
            closed = await bad.is_closed()
            good.writer.write(predict(1, 21))

            assert closed
            assert isinstance((await good.replies(1))[0], Predicted)
            assert engine.status().counters["malformed_frames"] == 1
            good.close()
            bad.close()

    run(main())


def test_a_client_of_another_format_is_refused_in_words(tmp_path):
    async def main():
        async with serving(tmp_path, FakeRunner()) as (engine, path, _):
            peer = await Peer.connect(path)

            with structlog.testing.capture_logs() as logged:
                peer.writer.write(struct.pack("<IBI", 10, 2, 5))
                # It learns the engine's format from this.
                [reply] = await peer.replies(1)
                closed = await peer.is_closed()

            assert isinstance(reply, Failed)
            assert closed
            assert engine.status().counters["malformed_frames"] == 1
            assert "its messages have format 2, and this code reads 1" in [
                line.get("reason") for line in logged
            ]
            peer.close()

    run(main())


def test_an_id_in_use_closes_the_connection(tmp_path):
    async def main():
        runner = FakeRunner()
        async with serving(tmp_path, runner, inline_ms=0) as (_, path, _server):
            runner.hold()
            peer = await Peer.connect(path)

            peer.writer.write(predict(1, 1) + predict(1, 2))

            assert await peer.is_closed()
            peer.close()

    run(main())


def test_a_peer_that_hangs_up_takes_its_queued_requests_along(tmp_path):
    async def main():
        runner = FakeRunner()
        async with serving(tmp_path, runner, inline_ms=0) as (engine, path, _):
            runner.hold()
            stays, leaves = await Peer.connect(path), await Peer.connect(path)
            stays.writer.write(predict(1, 1))
            await until(runner.started.is_set)
            leaves.writer.write(predict(1, 2, 2) + predict(2, 3, 3, 3))
            stays.writer.write(predict(2, 4))
            await until(lambda: engine.status().versions[0].queued_rows == 6)

            leaves.close()
            await until(lambda: engine.status().counters["unanswered"] == 2)
            runner.release()

            assert {reply.id for reply in await stays.replies(2)} == {1, 2}
            assert runner.batches == [1, 1]
            stays.close()

    run(main())


def test_a_cancelled_request_is_neither_run_nor_answered(tmp_path):
    async def main():
        runner = FakeRunner()
        async with serving(tmp_path, runner, inline_ms=0) as (engine, path, _):
            runner.hold()
            peer = await Peer.connect(path)
            peer.writer.write(predict(1, 1))
            await until(runner.started.is_set)
            peer.writer.write(
                predict(2, 2) + frames.encode(Cancel(2)) + frames.encode(Cancel(99))
            )
            await until(lambda: engine.status().counters["unanswered"] == 1)
            runner.release()
            peer.writer.write(predict(3, 3))

            assert [reply.id for reply in await peer.replies(2)] == [1, 3]
            peer.close()

    run(main())


def test_draining_finishes_what_was_accepted_and_refuses_the_rest(tmp_path):
    async def main():
        runner = FakeRunner()
        async with serving(tmp_path, runner, inline_ms=0) as (engine, path, server):
            runner.hold()
            peer = await Peer.connect(path)
            peer.writer.write(predict(1, 1) + predict(2, 2))
            await until(lambda: engine.status().counters["unanswered"] == 2)

            stopping = asyncio.create_task(server.stop(5))
            await until(lambda: engine.draining)
            peer.writer.write(predict(3, 3))
            (refused,) = await peer.replies(1)
            with pytest.raises(FileNotFoundError):
                await asyncio.open_unix_connection(str(path))
            runner.release()
            accepted = await peer.replies(2)

            assert refused.code == EngineErrorCode.DRAINING
            assert {reply.id for reply in accepted} == {1, 2}
            assert all(isinstance(reply, Predicted) for reply in accepted)
            assert await stopping
            assert await peer.is_closed()
            peer.close()

    run(main())


def test_draining_does_not_wait_for_ever(tmp_path):
    async def main():
        runner = FakeRunner()
        async with serving(tmp_path, runner, inline_ms=0) as (_, path, server):
            runner.hold()
            peer = await Peer.connect(path)
            peer.writer.write(predict(1, 1))
            await until(runner.started.is_set)

            assert not await server.stop(0.02)
            peer.close()

    run(main())


def test_only_this_user_may_connect(tmp_path):
    async def main():
        async with serving(tmp_path, FakeRunner()) as (_, path, _server):
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    run(main())


def test_many_messages_in_one_packet_are_all_answered(tmp_path):
    async def main():
        async with serving(tmp_path, FakeRunner()) as (_, path, _server):
            peer = await Peer.connect(path)

            peer.writer.write(
                b"".join(predict(index, index) for index in range(50))
                + frames.encode(Load(50, to_load()))
                + frames.encode(GetStatus(51))
            )
            replies = await peer.replies(52)

            assert {reply.id for reply in replies} == set(range(52))
            assert sum(isinstance(reply, EngineStatus) for reply in replies) == 1
            peer.close()

    run(main())


def test_a_lost_engine_fails_what_is_in_flight_and_its_return_heals(tmp_path):
    async def main():
        runner = FakeRunner()
        async with serving(tmp_path, runner, inline_ms=0) as (_, path, server):
            client = SocketEngineClient(path)
            runner.hold()
            call = asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            )
            await until(runner.started.is_set)

            await server.stop(0.0)
            with pytest.raises(EngineError) as caught:
                await call

            assert caught.value.code is EngineErrorCode.DIED
            assert not client.connected

        async with serving(tmp_path, FakeRunner()):
            await until(lambda: client.connected)
            answer = await client.predict(PredictionCall(KEY, rows(3), timeout_s=60))
            assert answer.tensors[0].data[0, 0] == 6
            await client.close()

    run(main())


def test_a_caller_that_is_cancelled_tells_the_engine(tmp_path):
    async def main():
        runner = FakeRunner()
        async with serving(tmp_path, runner, inline_ms=0) as (engine, path, _):
            client = SocketEngineClient(path)
            runner.hold()
            first = asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            )
            await until(runner.started.is_set)
            second = asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(2), timeout_s=60))
            )
            await until(lambda: engine.status().counters["unanswered"] == 2)

            second.cancel()
            await until(lambda: engine.status().counters["unanswered"] == 1)
            runner.release()
            await first

            assert runner.batches == [1]
            await client.close()

    run(main())
