"""Draining a gRPC server: what happens to calls under way."""

import asyncio

import grpc
import pytest
from grpc import aio
from hyperframe import frame as hyper

from inference.dialects.open_inference.open_inference_pb2 import ModelInferResponse
from inference.gateway.http2.frames import Code
from tests.inference.gateway.http2.peer import (
    INFER,
    STREAM,
    framed,
    head,
    on_loop,
    row,
    serving,
)
from tests.inference.gateway.plant import KEY, Plant

UNAVAILABLE = "14"
ANY_STREAM = 2**31 - 1


async def stop(found, peer, grace_s=60):
    """Begin to stop; return the task, and the answer to the server's ping."""
    stopping = asyncio.create_task(found.server.stop(grace_s))
    await peer.until(peer.pings)
    [ping] = peer.pings()
    return stopping, hyper.PingFrame(0, ping.opaque_data, flags=("ACK",))


def goaways(peer):
    return [(f.last_stream_id, f.error_code) for f in peer.of(hyper.GoAwayFrame)]


@on_loop
async def test_what_was_sent_before_a_client_knew_of_the_end_is_answered(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found, found.peer() as peer:
        peer.call(1, row(1.5))
        await peer.until_called(plant)
        stopping = asyncio.create_task(found.server.stop(60))
        await peer.until(lambda: peer.of(hyper.PingFrame))
        [ping] = peer.of(hyper.PingFrame)
        # These were under way; the client has not read GOAWAY yet.
        peer.call(3, row(1.5))
        peer.send(hyper.PingFrame(0, ping.opaque_data, flags=("ACK",)))
        await peer.until(lambda: len(peer.of(hyper.GoAwayFrame)) == 2)
        # This call came too late.
        peer.call(5, row(1.5))
        assert await peer.reset(5) == Code.REFUSED_STREAM
        plant.engine.hold.set()
        statuses = [(await peer.answer(n))[0]["grpc-status"] for n in (1, 3)]
        code = await peer.end()
        peer.writer.close()
        await stopping

    assert [f.last_stream_id for f in peer.of(hyper.GoAwayFrame)] == [2**31 - 1, 3]
    assert (statuses, code) == (["0", "0"], Code.NO_ERROR)


@on_loop
async def test_clients_that_do_not_hear_of_the_end_are_not_waited_for(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        await peer.pong()
        stopping = asyncio.create_task(found.server.stop(60))
        await peer.until(lambda: peer.of(hyper.GoAwayFrame))
        found.clock.advance(2)
        assert await peer.end() == Code.NO_ERROR
        peer.writer.close()
        await stopping


class _Slow:
    """A transport with bytes to send that its client does not read."""

    def __init__(self, transport):
        self._transport = transport
        self.aborted = False

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def get_write_buffer_size(self):
        return 1000

    def abort(self):
        self.aborted = True
        self._transport.abort()


@on_loop
async def test_an_answer_on_its_way_is_not_cut_by_a_drain(tmp_path):
    async with serving(Plant(tmp_path)) as found:
        async with found.peer() as peer:
            peer.call(1, row(1.5))
            await peer.answer(1)
            [connection] = found.server.connections
            slow = connection._transport = _Slow(connection._transport)
            connection.drain()
            connection.finish_draining()

            found.pass_time(3)
            cut_soon = slow.aborted
            found.pass_time(30)

        assert not cut_soon
        assert slow.aborted


@on_loop
async def test_calls_whose_message_is_on_its_way_at_the_end_are_answered(tmp_path):
    data = hyper.DataFrame(1, framed(row(1.5)), flags=("END_STREAM",))

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1))
        await peer.pong()
        stopping, pong = await stop(found, peer)
        peer.send(pong)
        await peer.until(lambda: len(goaways(peer)) == 2)
        peer.send(data)
        answer, _ = await peer.answer(1)
        assert await peer.end() == Code.NO_ERROR
        peer.writer.close()
        await stopping

    assert answer["grpc-status"] == "0"
    assert goaways(peer) == [(ANY_STREAM, Code.NO_ERROR), (1, Code.NO_ERROR)]


@pytest.mark.parametrize("path", [INFER, STREAM])
@pytest.mark.parametrize("data", [b"", framed(row(1.5))[:-1]])
@on_loop
async def test_calls_whose_message_does_not_come_may_be_made_again(
    tmp_path, path, data
):
    async with serving(Plant(tmp_path)) as found:
        async with found.peer() as peer:
            peer.send(peer.headers(1, head(path)), hyper.DataFrame(1, data))
            await peer.pong()
            stopping, pong = await stop(found, peer)
            peer.send(pong)
            await peer.until(lambda: len(goaways(peer)) == 2)
            # The grace time is almost over.
            found.clock.advance(59.9)
            answer, _ = await peer.answer(1)
            code = await peer.end()
            peer.writer.close()
            await stopping
        await found.emptied()

    assert answer["grpc-status"] == UNAVAILABLE
    assert answer["retry-after"] == "1"
    assert goaways(peer) == [(ANY_STREAM, Code.NO_ERROR), (1, Code.NO_ERROR)]
    assert code == Code.NO_ERROR


@on_loop
async def test_streams_opened_before_a_client_knew_of_the_end_are_ended(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        await peer.pong()
        stopping, pong = await stop(found, peer)
        # When the server drains, the first call has no message, and the second has one,
        # which is answered.
        peer.send(peer.headers(1, head(STREAM)), peer.headers(3, head(STREAM)))
        peer.send(hyper.DataFrame(3, framed(row(1.5))), pong)
        ends = [(await peer.answer(n))[0] for n in (1, 3)]
        assert await peer.end() == Code.NO_ERROR
        peer.writer.close()
        await stopping

    assert [end["grpc-status"] for end in ends] == [UNAVAILABLE] * 2
    assert len(peer.data[3]) > 5
    assert goaways(peer) == [(ANY_STREAM, Code.NO_ERROR), (3, Code.NO_ERROR)]


@on_loop
async def test_calls_that_are_not_done_in_time_are_unavailable_to_clients(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found:
        target = f"127.0.0.1:{found.server.port}"
        async with aio.insecure_channel(target) as channel:
            infer = channel.unary_unary(
                INFER, response_deserializer=ModelInferResponse.FromString
            )
            metadata = (("authorization", f"Bearer {KEY.token}"),)
            call = infer(row(1.5), metadata=metadata)
            while not plant.engine.calls:
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(found.server.stop(60))
            await asyncio.sleep(0.1)
            found.clock.advance(59.9)
            with pytest.raises(aio.AioRpcError) as caught:
                await call
            await stopping

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "going away" in caught.value.details()
    assert dict(caught.value.trailing_metadata())["retry-after"] == "1"
    assert plant.metrics.abandoned == 1


@on_loop
async def test_answers_that_are_not_read_do_not_hold_up_the_end(tmp_path):
    async with serving(Plant(tmp_path)) as found:
        async with found.peer(INITIAL_WINDOW_SIZE=3) as peer:
            peer.call(1, row(1.5))
            await peer.until(lambda: peer.data.get(1))
            stopping, _ = await stop(found, peer, grace_s=10)
            found.clock.advance(9.9)
            assert await peer.end() == Code.NO_ERROR
            peer.writer.close()
            await stopping
        await found.emptied()

    assert not peer.ended(1)


@on_loop
async def test_who_has_next_to_no_time_is_told_all_the_same(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1))
        await peer.pong()
        stopping, _ = await stop(found, peer, grace_s=0.5)
        # The client has not answered the ping.
        found.clock.advance(0.4)
        answer, _ = await peer.answer(1)
        assert await peer.end() == Code.NO_ERROR
        peer.writer.close()
        await stopping

    assert answer["grpc-status"] == UNAVAILABLE
    assert goaways(peer) == [(ANY_STREAM, Code.NO_ERROR), (1, Code.NO_ERROR)]
