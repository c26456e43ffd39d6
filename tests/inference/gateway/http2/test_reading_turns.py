"""Connections read in turns, so that one with much data does not hold up others."""

import asyncio
import itertools

from hyperframe import frame as hyper

from inference.gateway.http2 import limits
from tests.inference.gateway.http2.peer import (
    LIVE,
    Peer,
    framed,
    head,
    on_loop,
    serving,
)
from tests.inference.gateway.http2.wire import connect
from tests.inference.gateway.plant import Plant

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
async def test_of_those_who_take_long_one_goes_on_at_a_time(tmp_path):
    times = iter(range(10**6))
    async with serving(Plant(tmp_path)) as found:
        # To ask for the time takes a tenth of a turn.
        found.server.now = lambda: next(times) * limits.TURN_S / 10
        connections, wires = zip(
            *(connect(found.server) for _ in range(3)), strict=True
        )

        for connection in connections:
            connection.data_received(_calls()[:-10])
            # Data that comes nevertheless waits behind the rest.
            connection.data_received(_calls()[-10:])
        stopped = not any(wire.reading for wire in wires)
        await asyncio.sleep(0)
        counts = [[_answered(wire) for wire in wires]]
        while counts[-1] != [CALLS] * 3:
            await asyncio.sleep(0)
            counts.append([_answered(wire) for wire in wires])
        for connection in connections:
            connection.connection_lost(None)

    assert stopped
    assert all(wire.reading for wire in wires)
    for before, after in itertools.pairwise(counts):
        gains = [new - old for old, new in zip(before, after, strict=True)]
        assert sum(gain > 0 for gain in gains) <= 1
        # No connection is ahead by more than a turn.
        assert max(after) - min(after) <= 10


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


@on_loop
async def test_a_client_that_reads_nothing_is_not_answered_any_more(tmp_path):
    most = 1000
    peer = Peer(None, None)
    refused = b"".join(
        peer.headers(
            stream_id, head(key=None), flags=("END_HEADERS", "END_STREAM")
        ).serialize()
        for stream_id in range(1, 4_000, 2)
    )
    async with serving(Plant(tmp_path)) as found:
        connection, wire = connect(found.server, most_bytes=most)

        connection.data_received(refused)
        await asyncio.sleep(0)
        kept = wire.sent_bytes
        times = 0
        while _answered(wire) < 2_000:
            assert not wire.reading
            wire.be_read()
            times += 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        connection.connection_lost(None)

    # One turn's answers are kept, not those to all that had come.
    assert kept < most + limits.TURN_BYTES + 1000
    assert times > 2
