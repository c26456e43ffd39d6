"""Strangers and callers with a key over one connection, as behind a proxy."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hyperframe import frame as hyper
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.admission.limits import Limits
from inference.gateway.http2 import limits
from inference.gateway.http2.frames import Code
from tests import torture
from tests.inference.gateway.http2.peer import (
    INFER,
    LIVE,
    Peer,
    framed,
    head,
    on_loop,
    row,
    serving,
)
from tests.inference.gateway.http2.wire import connect
from tests.inference.gateway.plant import Plant

CALM = Code.ENHANCE_YOUR_CALM
MANY = 1_100
UNLIMITED = Limits(plan="p", rates=())
STRANGER = head(INFER, key=None)
MESSAGE = (framed(b"x" * 100),)


def refused(peer, stream_id, fields=STRANGER, data=MESSAGE):
    """Write a whole call that is refused by its head."""
    made = [peer.headers(stream_id, fields)]
    made += [hyper.DataFrame(stream_id, part) for part in data]
    made[-1].flags.add("END_STREAM")
    return made


@pytest.mark.parametrize(
    "fields", [STRANGER, head(key="my_live_nobody"), head("/no/method"), head(te=None)]
)
@on_loop
async def test_refused_calls_do_not_end_a_connection(tmp_path, fields):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        last = 2 * MANY + 1
        for stream_id in range(1, last, 2):
            peer.send(*refused(peer, stream_id, fields))
        peer.call(last, row(1.5))
        answer, _ = await peer.answer(last)
        assert all(map(peer.ended, range(1, last, 2)))

    assert answer["grpc-status"] == "0"


@pytest.mark.parametrize("given_up", [True, False])
@on_loop
async def test_refused_calls_may_be_given_up_or_end_by_trailers(tmp_path, given_up):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        last = 2 * MANY + 1
        for stream_id in range(1, last, 2):
            end = ("END_HEADERS", "END_STREAM")
            peer.send(
                peer.headers(stream_id, STRANGER),
                hyper.RstStreamFrame(stream_id, 8)
                if given_up
                else peer.headers(stream_id, [("x", "y")], flags=end),
            )
        peer.call(last, row(1.5))
        answer, _ = await peer.answer(last)

    assert answer["grpc-status"] == "0"


@pytest.mark.parametrize("late", [b"", b"x" * 16_000])
@on_loop
async def test_more_than_was_on_its_way_is_noise(tmp_path, late):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, STRANGER), *[hyper.DataFrame(1, late)] * MANY)

        assert await peer.end() == CALM


@on_loop
async def test_refused_callers_with_a_key_get_their_headers_back(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        for number in range(60):
            stream_id = 2 * number + 1
            fields = [*head(), ("x-new", f"{number}" + "~" * 2_500)]
            peer.call(stream_id, row(1.5, model="other"), fields)
            answer, _ = await peer.answer(stream_id)
            assert answer["grpc-status"] == "5"


def _new_headers(number):
    return [*STRANGER, ("x-new", f"{number}" + "~" * 2_500)]


@on_loop
async def test_new_headers_of_strangers_slow_callers_down_and_no_more(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.call(1, row(1.5))
        await peer.answer(1)
        for number in range(60):
            peer.send(*refused(peer, 2 * number + 3, _new_headers(number)))
        peer.call(123, row(1.5))
        await peer.until(lambda: peer.ended(31))
        await asyncio.sleep(0.1)
        waits = not peer.ended(119)
        # The server must read on because time passes, and for no other reason.
        for _ in range(40):
            found.pass_time(0.5)
            await asyncio.sleep(0.01)
        answer, _ = await peer.answer(123)

    assert waits
    assert not peer.of(hyper.GoAwayFrame)
    assert answer["grpc-status"] == "0"


@on_loop
async def test_headers_of_strangers_are_read_at_their_rate_and_no_faster(tmp_path):
    async with serving(Plant(tmp_path)) as found:
        connection, wire = connect(found.server)
        peer = Peer(None, None)

        def send(*frames):
            connection.data_received(b"".join(each.serialize() for each in frames))

        data = hyper.DataFrame(1, framed(row(1.5)), flags=("END_STREAM",))
        send(peer.headers(1), data)
        await found.answered()
        blocks = [
            peer.headers(number, [*STRANGER, ("x-new", f"{number}" + "~" * 9_000)])
            for number in range(3, 83, 2)
        ]
        send(*blocks)
        read = []
        for _ in range(2):
            await asyncio.sleep(0)
            ended = {frame.stream_id for frame in wire.of(hyper.HeadersFrame)}
            read.append(sum(len(b.data) for b in blocks if b.stream_id in ended))
            for _ in range(2):
                found.pass_time(0.5)
                await asyncio.sleep(0)
        goaways = wire.of(hyper.GoAwayFrame)
        connection.connection_lost(None)

    # The last block may exceed what is left, and fields cost something too.
    most, block = limits.HEADER_BYTES, 16 * 1024
    later = most + limits.TRUSTED_PACE * limits.HEADER_BYTES_PER_S
    assert goaways == []
    assert most - block < read[0] < most + block
    assert later - 2 * block < read[1] < later + block


@on_loop
async def test_trust_is_not_for_ever(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.call(1, row(1.5))
        await peer.answer(1)
        found.pass_time(limits.TRUST_S + 1)
        for number in range(60):
            peer.send(*refused(peer, 2 * number + 3, _new_headers(number)))

        assert await peer.end() == CALM


@on_loop
async def test_answers_without_a_key_earn_no_trust(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        # This method needs no key, so the key is not checked.
        peer.call(1, fields=head(LIVE))
        await peer.answer(1)
        for number in range(60):
            peer.send(*refused(peer, 2 * number + 3, _new_headers(number)))

        assert await peer.end() == CALM


def _cancelled(peer, stream_id):
    fields = head(LIVE, key=None)
    return [peer.headers(stream_id, fields), hyper.RstStreamFrame(stream_id, 8)]


def _in_parts(peer, stream_id):
    return refused(peer, stream_id, data=(b"\0\0", b"", b"\0\0\x64", b"x" * 100))


def _with_trailers(peer, stream_id):
    return [
        peer.headers(stream_id, STRANGER),
        hyper.DataFrame(stream_id, framed(b"x" * 100)),
        peer.headers(stream_id, [("x", "y")], flags=("END_HEADERS", "END_STREAM")),
    ]


def _alive(peer, stream_id):
    return refused(peer, stream_id, head(LIVE, key=None), data=(framed(b""),))


def _malformed(peer, stream_id):
    return refused(peer, stream_id, head(te="gzip", key=None))


def _new(peer, stream_id):
    return refused(peer, stream_id, [*STRANGER, ("x-id", f"{stream_id:032}")])


# What strangers do, as a proxy may pass it on.
STRANGERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                refused,
                _cancelled,
                _in_parts,
                _with_trailers,
                _alive,
                _malformed,
                _new,
            ]
        ),
        st.sampled_from([1, 50, 700]),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


async def share(folder, steps, seconds):
    plant = Plant(folder, limits=UNLIMITED)
    async with serving(plant) as found:
        connection, wire = connect(found.server)
        # This peer only encodes frames.
        peer, stream_id, known = Peer(None, None), 1, []

        def send(frames):
            connection.data_received(b"".join(each.serialize() for each in frames))

        def ask():
            nonlocal stream_id
            data = hyper.DataFrame(stream_id, framed(row(1.5)), flags=("END_STREAM",))
            send([peer.headers(stream_id, head()), data])
            known.append(stream_id)
            stream_id += 2

        ask()
        await found.answered()
        for act, times, asks in steps:
            for _ in range(times):
                send(act(peer, stream_id))
                stream_id += 2
            if asks:
                ask()
            await asyncio.sleep(0)
            found.pass_time(seconds)
        # What waits is read as time passes.
        while not wire.reading:
            found.pass_time(1)
            await asyncio.sleep(0)
        await found.answered()
        await asyncio.sleep(0)
        answered = [
            frame.stream_id
            for frame in wire.of(hyper.HeadersFrame)
            if "END_STREAM" in frame.flags and frame.stream_id in known
        ]
        goaways = wire.of(hyper.GoAwayFrame)
        connection.connection_lost(None)

    assert goaways == []
    assert sorted(answered) == known
    assert {event.status for event in plant.events()} == {200}


@settings(deadline=None, max_examples=torture.examples(8))
@given(STRANGERS, st.sampled_from([0, 0.5, 3]))
def test_strangers_do_not_end_a_connection_on_which_calls_succeed(steps, seconds):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(share(Path(folder), steps, seconds))
