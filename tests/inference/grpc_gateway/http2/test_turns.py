"""How long one connection may be worked on before others have their turn."""

import asyncio

from hyperframe import frame as hyper

from inference.grpc_gateway.http2 import limits
from tests.inference.gateway.plant import Plant
from tests.inference.grpc_gateway.peer import (
    LIVE,
    Peer,
    framed,
    head,
    on_loop,
    serving,
)
from tests.inference.grpc_gateway.wire import connect

CALLS = 50


def _calls():
    peer, sent = Peer(None, None), b""
    for stream_id in range(1, 2 * CALLS, 2):
        data = hyper.DataFrame(stream_id, framed(b""), flags=("END_STREAM",))
        sent += peer.headers(stream_id, head(LIVE)).serialize() + data.serialize()
    return sent


def _answered(wire):
    return sum("END_STREAM" in frame.flags for frame in wire.of(hyper.HeadersFrame))


@on_loop
async def test_connections_that_take_long_have_turns(tmp_path):
    times = iter(range(10**6))
    async with serving(Plant(tmp_path)) as found:
        # To ask for the time takes a tenth of a turn.
        found.server.now = lambda: next(times) * limits.TURN_S / 10
        (one, its_wire), (other, other_wire) = (connect(found.server) for _ in "12")

        one.data_received(_calls()[:-10])
        other.data_received(_calls()[:-10])
        # What comes nevertheless waits behind what is there.
        one.data_received(_calls()[-10:])
        stopped = not its_wire.reading and not other_wire.reading
        after_each_turn = []
        while _answered(its_wire) < CALLS:
            await asyncio.sleep(0)
            after_each_turn.append((_answered(its_wire), _answered(other_wire)))
        one.connection_lost(None)
        other.connection_lost(None)

    assert stopped
    assert its_wire.reading
    assert 0 < after_each_turn[0][0] < CALLS / 2
    # None is ahead by more than a turn.
    assert all(abs(mine - others) <= 10 for mine, others in after_each_turn)


@on_loop
async def test_connections_that_are_done_soon_have_one_turn(tmp_path):
    async with serving(Plant(tmp_path)) as found:
        connection, wire = connect(found.server)

        connection.data_received(_calls())
        reading = wire.reading
        await asyncio.sleep(0)
        connection.connection_lost(None)

    assert reading
    assert _answered(wire) == CALLS
