"""Every limit on what a client may ask of the gRPC port, and that nothing leaks."""

import asyncio
import contextlib
import gc
import gzip
import threading
from unittest.mock import Mock

import pytest
from hyperframe import frame as hyper

from accounts.admission.limits import Limits
from accounts.admission.networks import Networks
from inference.gateway.grpc import calls, inflating
from inference.gateway.grpc.calls import GrpcCall
from inference.gateway.grpc.messages import inflate
from inference.gateway.http2 import limits
from inference.gateway.http2.connection import Http2Connection
from inference.gateway.http2.frames import Code
from tests.inference.gateway.http2.peer import (
    ALIVE,
    INFER,
    LIVE,
    PREFACE,
    STREAM,
    framed,
    head,
    on_loop,
    row,
    serve_wide,
    serving,
)
from tests.inference.gateway.plant import KEY, OTHER_KEY, Plant
from tests.waiting import until

CALM = Code.ENHANCE_YOUR_CALM
MANY = 1_100
UNLIMITED = Limits(plan="p", rates=())


@pytest.mark.parametrize(
    "frame",
    [
        hyper.SettingsFrame(0),
        hyper.PingFrame(0),
        hyper.PingFrame(0, flags=("ACK",)),
        hyper.PriorityFrame(1),
        hyper.DataFrame(1),
        hyper.DataFrame(1, flags=("PADDED",), pad_length=20),
        hyper.WindowUpdateFrame(0, 1),
        hyper.WindowUpdateFrame(1, 1),
    ],
)
@on_loop
async def test_floods_of_empty_frames_end_the_connection(tmp_path, frame):
    async with serving(Plant(tmp_path)) as found:
        async with found.peer() as peer:
            peer.send(peer.headers(1), *[frame] * MANY)

            assert await peer.end() == CALM
        await found.emptied()


@pytest.mark.parametrize("kind", [hyper.DataFrame, hyper.RstStreamFrame])
@on_loop
async def test_floods_of_frames_that_come_too_late_end_the_connection(tmp_path, kind):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.call(1, fields=head(LIVE))
        peer.send(*[kind(1)] * MANY)

        assert await peer.end() == CALM


@on_loop
async def test_useful_calls_give_back_what_noise_takes(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        for stream_id in range(1, 2 * MANY, 2):
            peer.send(hyper.PingFrame(0), hyper.WindowUpdateFrame(0, 1))
            peer.call(stream_id, fields=head(LIVE))
            if stream_id % 64 == 1:
                await peer.answer(stream_id)
        _, data = await peer.answer(2 * MANY - 1)

    assert data == ALIVE


@on_loop
async def test_rapid_resets_are_bounded_and_their_work_is_given_up(tmp_path):
    plant = Plant(tmp_path, limits=UNLIMITED)
    plant.engine.hold = asyncio.Event()
    opened = 0

    async with serving(plant) as found:
        async with found.peer() as peer:
            for stream_id in range(1, 8 * limits.MAX_STREAMS, 2):
                peer.call(stream_id, row(1.5))
                peer.send(hyper.RstStreamFrame(stream_id, 8))
                opened += 1
                if opened % 64 == 0:
                    # Some have begun when they are reset, and some have not.
                    await asyncio.sleep(0)
            assert await peer.end() == CALM
        await found.emptied()

    assert plant.metrics.abandoned == 2 * limits.MAX_STREAMS + 1
    assert plant.metrics.abandoned < opened


@on_loop
async def test_resets_that_a_client_provokes_are_bounded_too(tmp_path):
    plant = Plant(tmp_path, limits=UNLIMITED)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found:
        async with found.peer() as peer:
            for stream_id in range(1, 8 * limits.MAX_STREAMS, 2):
                peer.call(stream_id, row(1.5))
                # RFC 9113, section 6.9: we reset the stream (CVE-2025-8671).
                peer.raw(b"\0\0\x04\x08\0" + stream_id.to_bytes(4) + bytes(4))
            assert await peer.end() == CALM
        await found.emptied()

    # Each update counts as noise too, so fewer calls begin.
    assert plant.metrics.abandoned <= 2 * limits.MAX_STREAMS


@pytest.mark.parametrize("piece", [b"", b"x" * 10_000])
@on_loop
async def test_header_blocks_without_an_end_are_cut_off(tmp_path, piece):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, flags=()))
        peer.send(*[hyper.ContinuationFrame(1, piece)] * 20)

        assert await peer.end() == CALM


@on_loop
async def test_too_large_metadata_refuses_its_call_only(tmp_path):
    large = [*head(LIVE), ("x-large", "1" * limits.MAX_HEADER_LIST_BYTES)]

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        # Huffman's code for `1` has five bits.
        peer.call(1, fields=large)
        fields, _ = await peer.answer(1)
        peer.call(3, fields=head(LIVE))
        _, data = await peer.answer(3)

    assert fields["grpc-status"] == "8"
    assert data == ALIVE


@on_loop
async def test_bombs_of_indexed_headers_are_not_unpacked(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, [*head(LIVE), ("x-bomb", "v" * 3_000)]))
        bomb = peer.encoder.encode([*head(LIVE), *[("x-bomb", "v" * 3_000)] * 1_000])
        assert len(bomb) < 1_200
        peer.send(peer.headers(3, block=bomb))

        assert await peer.end() == CALM


@on_loop
async def test_header_blocks_that_must_be_read_anew_are_bounded(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        for number in range(40):
            value = f"{number}" + "~" * 4_000
            peer.send(peer.headers(2 * number + 1, [*head(LIVE), ("x-new", value)]))

        assert await peer.end() == CALM


@on_loop
async def test_header_blocks_of_many_short_fields_are_bounded_sooner(tmp_path):
    # `:method: POST`, `:scheme: http`, `:path: /`, and 400 fields of one byte each.
    block = b"\x83\x86\x84" + b"\x90" * 400
    count = limits.HEADER_BYTES // (limits.FIELD_BYTES * 400) + 1

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        for number in range(count):
            new = block + b"\x00\x01x\x02%02d" % number
            stream_id = 2 * number + 1
            end = ("END_HEADERS", "END_STREAM")
            peer.send(peer.headers(stream_id, block=new, flags=end))

        assert await peer.end() == CALM

    assert count * len(new) < limits.HEADER_BYTES / 8


@on_loop
async def test_callers_with_a_key_may_change_their_headers_with_every_call(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        for number in range(60):
            stream_id = 2 * number + 1
            value = f"{number}" + "~" * 2_500
            peer.call(stream_id, row(1.5), [*head(), ("x-new", value)])
            fields, _ = await peer.answer(stream_id)
            assert fields["grpc-status"] == "0"


@on_loop
async def test_streams_beyond_the_bound_are_refused_alone(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()
    last = 2 * limits.MAX_STREAMS + 1

    async with serving(plant) as found, found.peer() as peer:
        for stream_id in range(1, last + 2, 2):
            peer.call(stream_id, row(1.5))
        assert await peer.reset(last) == Code.REFUSED_STREAM
        plant.engine.hold.set()
        fields, _ = await peer.answer(last - 2)
        await peer.until(lambda: all(map(peer.ended, range(1, last, 2))))
        peer.call(last + 2, fields=head(LIVE))
        _, data = await peer.answer(last + 2)

    assert fields["grpc-status"] == "0"
    assert data == ALIVE
    assert plant.engine.calls == limits.MAX_STREAMS


@on_loop
async def test_calls_that_one_customer_leaves_open_leave_room_for_others(tmp_path):
    """Such a call has a head, and never gets a message."""
    share = limits.MAX_ALL_CALLS // 2
    plant = Plant(tmp_path)

    async with serving(plant) as found, contextlib.AsyncExitStack() as stack:
        refused = 0
        for _ in range(limits.MAX_ALL_CALLS // limits.MAX_STREAMS):
            peer = await stack.enter_async_context(found.peer())
            for stream_id in range(1, 2 * limits.MAX_STREAMS, 2):
                peer.send(peer.headers(stream_id, head(STREAM)))
            await peer.pong()
            assert {each["grpc-status"] for each in peer.blocks.values()} <= {"8"}
            refused += len(peer.blocks)
        assert refused == found.server.calls == share
        other = await stack.enter_async_context(found.peer())
        other.call(1, row(1.5), head(key=OTHER_KEY.token))
        fields, _ = await other.answer(1)

        assert fields["grpc-status"] == "0"
        [counts] = [plant.metrics.state()]
        assert counts.refused["grpc_calls"] == share
        assert counts.used["grpc_calls"] == share


@on_loop
async def test_streams_that_ask_for_nothing_are_ended(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(
            peer.headers(1, head(STREAM)),
            peer.headers(3, head(STREAM)),
            hyper.DataFrame(3, framed(row(1.5))),
        )
        await peer.until(lambda: peer.data.get(3))
        await found.pass_life(peer, limits.IDLE_S - 5)
        assert found.server.calls == 2
        await found.pass_life(peer, 10)
        endings = [(await peer.answer(stream_id))[0] for stream_id in (1, 3)]

    assert [each["grpc-status"] for each in endings] == ["4", "4"]
    assert endings[0]["grpc-message"] == "No whole message came within 300 seconds."


@on_loop
async def test_one_address_leaves_calls_without_a_key_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ALL_KEYLESS_CALLS", 8)
    keyless = head(LIVE, key=None)

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        for stream_id in range(1, 16, 2):
            peer.send(peer.headers(stream_id, keyless))
        await peer.pong()
        refused = len(peer.blocks)
        # The kernel answers for all of 127.0.0.0/8.
        async with found.peer(address="127.0.0.2") as other:
            other.call(1, fields=keyless)
            _, data = await other.answer(1)

    assert refused == 4
    assert data == ALIVE


@pytest.mark.parametrize(
    ("length", "frames"),
    [
        ("6", [(5, True)]),
        ("4", [(5, True)]),
        ("4", [(2, False), (3, False)]),
        ("8", [(2, False), (3, True)]),
        ("0", [(5, True)]),
        ("x", [(5, True)]),
        ("-5", [(5, True)]),
        ("5, 5", [(5, True)]),
        ("9" * 19, [(5, True)]),
    ],
)
@on_loop
async def test_a_length_that_is_not_what_came_resets_its_call(tmp_path, length, frames):
    """RFC 9113, section 8.1.1."""
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, head(LIVE, content_length=length)))
        for size, ended in frames:
            flags = ("END_STREAM",) if ended else ()
            peer.send(hyper.DataFrame(1, bytes(size), flags=flags))

        assert await peer.reset(1) == Code.PROTOCOL_ERROR
        peer.call(3, fields=head(LIVE, content_length="5"))
        _, data = await peer.answer(3)

    assert data == ALIVE


@on_loop
async def test_a_length_without_a_body_resets_its_call(tmp_path):
    fields = head(LIVE, content_length="5")

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, fields, flags=("END_HEADERS", "END_STREAM")))
        # Trailers end a body as well.
        peer.send(peer.headers(3, fields), hyper.DataFrame(3, b"12"))
        peer.send(peer.headers(3, [("x", "y")], flags=("END_HEADERS", "END_STREAM")))
        twice = [*fields, ("content-length", "6")]
        peer.send(peer.headers(5, twice))

        for stream_id in (1, 3, 5):
            assert await peer.reset(stream_id) == Code.PROTOCOL_ERROR


@on_loop
async def test_strangers_leave_room_for_callers_with_a_key(tmp_path, monkeypatch):
    # One address may have half of all: as many as one connection.
    monkeypatch.setattr(limits, "MAX_ALL_KEYLESS_CALLS", 2 * limits.MAX_KEYLESS_CALLS)
    first_too_many = 2 * limits.MAX_KEYLESS_CALLS + 1
    keyless = head(LIVE, key=None)

    async with serving(Plant(tmp_path)) as found:
        async with found.peer() as peer, found.peer() as other:
            for stream_id in range(1, first_too_many + 1, 2):
                peer.send(peer.headers(stream_id, keyless))
            refused = [(await peer.answer(first_too_many))[0]]
            assert list(peer.blocks) == [first_too_many]
            other.send(other.headers(3, keyless))
            refused.append((await other.answer(3))[0])
            other.call(5, row(1.5))
            fields, _ = await other.answer(5)
            # Answered calls make room.
            peer.send(hyper.DataFrame(1, framed(b""), flags=("END_STREAM",)))
            await peer.answer(1)
            peer.call(first_too_many + 2, fields=keyless)
            _, data = await peer.answer(first_too_many + 2)
        await found.emptied()

    assert [each["grpc-status"] for each in refused] == ["8", "8"]
    assert fields["grpc-status"] == "0"
    assert data == ALIVE


@on_loop
async def test_messages_of_strangers_are_small(tmp_path):
    keyless = head(LIVE, key=None)
    data = framed(b"", length=limits.MAX_KEYLESS_MESSAGE_BYTES + 1)

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, keyless), hyper.DataFrame(1, data))
        answer, _ = await peer.answer(1)
        assert not peer.of(hyper.WindowUpdateFrame, 1)

    assert answer["grpc-status"] == "8"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (gzip.compress(b""), "0"),
        (gzip.compress(bytes(limits.MAX_KEYLESS_MESSAGE_BYTES)), "0"),
        (gzip.compress(bytes(limits.MAX_KEYLESS_MESSAGE_BYTES + 1)), "8"),
        (gzip.compress(bytes(2**19)), "8"),
        (gzip.compress(b"")[:-1], "13"),
        (b"", "13"),
    ],
    # gzip writes the time, and ids must be the same in all workers.
    ids=["empty", "the most", "one byte more", "bomb", "cut", "none"],
)
@on_loop
async def test_compressed_messages_of_strangers_cost_no_thread(
    tmp_path, monkeypatch, message, status
):
    """Whatever `grpc-accept-encoding` names is read (compression.md of gRPC)."""
    keyless = head(LIVE, key=None, grpc_encoding="gzip")
    data = framed(message, compressed=True)

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        monkeypatch.setattr(found.server.inflators, "begin", None)
        end = hyper.DataFrame(1, data, flags=("END_STREAM",))
        peer.send(peer.headers(1, keyless), end)
        answer, _ = await peer.answer(1)

    assert answer["grpc-status"] == status


@on_loop
async def test_a_window_that_stays_shut_ends_its_stream(tmp_path):
    async with serving(Plant(tmp_path)) as found:
        async with found.peer(INITIAL_WINDOW_SIZE=0) as peer:
            peer.call(1, fields=head(LIVE))
            await peer.pong()
            found.pass_time(limits.STALL_S - 1)
            await peer.pong()
            assert not peer.of(hyper.RstStreamFrame)
            found.pass_time(2)
            assert await peer.reset(1) == Code.CANCEL
        await found.emptied()


@pytest.mark.parametrize("stream_id", [0, 3])
@on_loop
async def test_windows_opened_for_nothing_are_noise_while_answers_wait(
    tmp_path, stream_id
):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found:
        async with found.peer(INITIAL_WINDOW_SIZE=0) as peer:
            peer.call(1, fields=head(LIVE))
            peer.call(3, row(1.5))
            await peer.pong()
            peer.send(*[hyper.WindowUpdateFrame(stream_id, 1)] * MANY)

            assert await peer.end() == CALM
        await found.emptied()


@on_loop
async def test_windows_opened_byte_by_byte_are_none_if_they_let_answers_go(tmp_path):
    width = 2 * MANY // 4
    plant = Plant(tmp_path)
    serve_wide(plant, width)

    async with (
        serving(plant) as found,
        found.peer(INITIAL_WINDOW_SIZE=0) as peer,
    ):
        peer.call(1, fields=head(LIVE))
        peer.call(3, row(*[0] * width))
        await peer.until(lambda: 3 in peer.blocks)
        peer.send(*[hyper.WindowUpdateFrame(3, 1)] * MANY)
        await peer.until(lambda: len(peer.data.get(3, b"")) == MANY)
        # The other stream gets nothing of it.
        assert 1 not in peer.data
        peer.send(hyper.WindowUpdateFrame(3, 10**6), hyper.WindowUpdateFrame(1, 10**6))
        _, data = await peer.answer(1)
        fields, _ = await peer.answer(3)

    assert data == ALIVE
    assert fields["grpc-status"] == "0"


@on_loop
async def test_answers_that_nobody_reads_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_UNREAD_BYTES", 10)

    async with serving(Plant(tmp_path)) as found:
        async with found.peer(INITIAL_WINDOW_SIZE=0) as peer:
            for stream_id in (1, 3, 5):
                peer.call(stream_id, fields=head(LIVE))
            assert await peer.reset(5) == Code.REFUSED_STREAM
            peer.send(hyper.WindowUpdateFrame(1, 100))
            await peer.answer(1)
            peer.call(7, fields=head(LIVE))
            peer.send(hyper.WindowUpdateFrame(7, 100))
            _, data = await peer.answer(7)
        await found.emptied()

    assert data == ALIVE


@on_loop
async def test_a_client_that_reads_nothing_at_all_is_hung_up_on(tmp_path):
    width, count = 15_000, 400
    plant = Plant(tmp_path, limits=UNLIMITED)
    serve_wide(plant, width)
    message = framed(row(*[0] * width))

    async with (
        serving(plant) as found,
        found.peer(INITIAL_WINDOW_SIZE=2**31 - 1) as peer,
    ):
        peer.send(hyper.WindowUpdateFrame(0, 2**30))
        peer.writer.transport.pause_reading()
        for stream_id in range(1, 2 * count, 2):
            frames = [
                hyper.DataFrame(stream_id, message[start : start + 16_384])
                for start in range(0, len(message), 16_384)
            ]
            frames[-1].flags.add("END_STREAM")
            peer.send(peer.headers(stream_id), *frames)
        # The kernel's buffers fill with answers; then calls are not read any more.
        known = -1
        while known != plant.engine.calls:
            known = plant.engine.calls
            await asyncio.sleep(1)
        assert 0 < known < count
        found.pass_time(limits.STALL_S - 1)
        assert found.server.connections
        found.pass_time(2)
        await found.emptied()


@on_loop
async def test_large_messages_have_their_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_LARGE_BYTES", 300_000)
    plant = Plant(tmp_path)
    serve_wide(plant, 50_000)
    message = framed(row(*[0] * 50_000))

    async with serving(plant) as found:
        async with found.peer(INITIAL_WINDOW_SIZE=10**6) as peer:
            peer.send(hyper.WindowUpdateFrame(0, 10**6))
            for stream_id in (1, 3, 5):
                peer.send(
                    peer.headers(stream_id), hyper.DataFrame(stream_id, message[:10])
                )
            await peer.pong()
            granted = [f.stream_id for f in peer.of(hyper.WindowUpdateFrame)]
            assert granted == [0, 1, 3]

            rest = [
                hyper.DataFrame(1, message[start : start + 10_000])
                for start in range(10, len(message), 10_000)
            ]
            rest[-1].flags.add("END_STREAM")
            peer.send(*rest)
            fields, _ = await peer.answer(1)
            await peer.until(lambda: peer.of(hyper.WindowUpdateFrame, 5))
        await found.emptied()

    assert fields["grpc-status"] == "0"


@on_loop
async def test_nothing_is_kept_of_streams_that_end_before_their_turn(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(limits, "MAX_LARGE_BYTES", 300_000)

    async with serving(Plant(tmp_path)) as found:
        async with found.peer() as peer:
            for stream_id in (1, 3, 5):
                data = framed(b"", length=250_000)
                peer.send(peer.headers(stream_id), hyper.DataFrame(stream_id, data))
            await peer.pong()
            [connection] = found.server.connections
            assert len(connection.grants._asking) == 2
            peer.send(hyper.RstStreamFrame(3, 8), hyper.RstStreamFrame(5, 8))
            await peer.pong()
            assert not connection.grants._asking
        await found.emptied()


@on_loop
async def test_a_message_that_waits_for_its_turn_is_not_late(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_LARGE_BYTES", 300_000)
    large = framed(b"", length=250_000)

    async with serving(Plant(tmp_path), message_timeout_s=5) as found:
        async with found.peer() as peer:
            peer.send(peer.headers(1), hyper.DataFrame(1, large))
            await peer.pong()
            found.pass_time(3)
            peer.send(peer.headers(3), hyper.DataFrame(3, large))
            await peer.pong()
            found.pass_time(3)
            late, _ = await peer.answer(1)
            await peer.until(lambda: peer.of(hyper.WindowUpdateFrame, 3))
            # From now on the server waits for the client.
            found.pass_time(4)
            await peer.pong()
            assert not peer.ended(3)
            found.pass_time(2)
            await peer.answer(3)
        await found.emptied()

    assert late["grpc-status"] == "4"


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + b"\0\0\0"])
@on_loop
async def test_clients_that_do_not_introduce_themselves_are_hung_up_on(tmp_path, sent):
    async with serving(Plant(tmp_path)) as found, found.peer(greet=False) as peer:
        peer.raw(sent)
        async with asyncio.timeout(10):
            while not found.server.connections:
                await asyncio.sleep(0.01)
        found.pass_time(limits.GREETING_S + 1)

        assert await peer.end() == Code.SETTINGS_TIMEOUT


@on_loop
async def test_half_a_header_block_is_not_waited_for_for_ever(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        await peer.pong()
        peer.send(peer.headers(1, flags=()))
        await asyncio.sleep(0.1)
        found.pass_time(limits.GREETING_S + 1)

        assert await peer.end() == Code.SETTINGS_TIMEOUT


@pytest.mark.parametrize("sent", [b"", framed(b"", length=1000), b"\0\0"])
@on_loop
async def test_half_a_message_is_not_waited_for_for_ever(tmp_path, sent):
    async with serving(Plant(tmp_path), message_timeout_s=5) as found:
        async with found.peer() as peer:
            peer.send(peer.headers(1), hyper.DataFrame(1, sent))
            await peer.pong()
            found.pass_time(4)
            await peer.pong()
            assert not peer.ended(1)
            found.pass_time(2)
            fields, _ = await peer.answer(1)
        await found.emptied()

    assert fields["grpc-status"] == "4"


@on_loop
async def test_idle_connections_are_asked_to_leave(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.call(1, fields=head(LIVE))
        await peer.answer(1)
        found.pass_time(limits.IDLE_S + 2)
        await peer.until(lambda: peer.of(hyper.PingFrame))
        [ping] = peer.of(hyper.PingFrame)
        peer.send(hyper.PingFrame(0, ping.opaque_data, flags=("ACK",)))

        assert await peer.end() == Code.NO_ERROR


@on_loop
async def test_clients_that_are_gone_are_found_out(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found, found.peer() as peer:
        peer.call(1, row(1.5))
        await peer.until_called(plant)
        found.pass_time(limits.SILENT_S + 1)
        await peer.until(lambda: peer.of(hyper.PingFrame))
        found.pass_time(limits.PING_S + 1)
        await found.emptied()

    assert plant.metrics.abandoned == 1


@on_loop
async def test_clients_that_are_alive_may_wait_for_their_answer(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found, found.peer() as peer:
        peer.call(1, row(1.5))
        await peer.until_called(plant)
        for count in (1, 2, 3):
            found.pass_time(limits.SILENT_S + 1)
            await peer.until(lambda known=count: len(peer.of(hyper.PingFrame)) == known)
            ping = peer.of(hyper.PingFrame)[-1]
            peer.send(hyper.PingFrame(0, ping.opaque_data, flags=("ACK",)))
            await asyncio.sleep(0.05)
        plant.engine.hold.set()
        fields, _ = await peer.answer(1)

    assert fields["grpc-status"] == "0"


@on_loop
async def test_a_client_that_closes_its_half_has_left(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found, found.peer() as peer:
        peer.call(1, row(1.5))
        await peer.until_called(plant)
        peer.writer.write_eof()
        await found.emptied()

    assert plant.metrics.abandoned == 1


@on_loop
async def test_connections_beyond_the_bound_are_turned_away(tmp_path):
    plant = Plant(tmp_path)

    async with serving(plant, max_connections=1) as found, found.peer() as first:
        await first.pong()
        async with found.peer() as second:
            assert await second.end() is None
        first.call(1, fields=head(LIVE))
        await first.answer(1)


@on_loop
async def test_nothing_is_left_of_connections(tmp_path):
    async with serving(Plant(tmp_path)) as found:
        for number in range(5):
            async with found.peer() as peer:
                peer.call(1, row(1.5))
                peer.call(3, row(1.5, model="other"))
                await peer.answer(1)
                await peer.answer(3)
                # Two calls that stay open: half a message, and none.
                peer.send(peer.headers(5), hyper.DataFrame(5, b"\0\0"))
                peer.send(peer.headers(7), *[hyper.PingFrame(0)] * number)
                await peer.pong()
        await found.emptied()
        del peer
    gc.collect()

    left = [
        each for each in gc.get_objects() if type(each) in (Http2Connection, GrpcCall)
    ]
    assert left == []


@pytest.mark.parametrize(
    ("trusted", "most"), [((), 2), (("127.0.0.1/32",), 4)], ids=["client", "proxy"]
)
@on_loop
async def test_one_address_leaves_connections_to_others(tmp_path, trusted, most):
    plant = Plant(tmp_path)
    plant.plan.trusted_proxies = Networks(trusted)

    async with serving(plant, max_connections=4) as found:
        async with contextlib.AsyncExitStack() as stack:
            joined = 0
            for _ in range(5):
                peer = await stack.enter_async_context(found.peer(greet=False))
                with contextlib.suppress(AssertionError):
                    await peer.until(lambda peer=peer: peer.frames)
                joined += bool(peer.frames)
            if not trusted:
                once = await stack.enter_async_context(found.peer(address="127.0.0.2"))
                once.call(1, fields=head(LIVE))
                _, data = await once.answer(1)
                assert data == ALIVE
            assert joined == most
        await found.emptied()


@on_loop
async def test_addresses_of_one_network_share_connections(tmp_path):
    async with serving(Plant(tmp_path), max_connections=4) as found:
        connections = [Mock(client=f"2001:db8::{number}") for number in range(3)]
        joined = [found.server.join(connection) for connection in connections]
        for connection in connections:
            found.server.leave(connection)

    assert joined == [True, True, False]


@on_loop
async def test_large_messages_of_one_customer_leave_room_for_others(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(limits, "MAX_ALL_LARGE_BYTES", 1)
    largest = 1_000_000
    large = framed(b"", length=largest - 10)

    async def begin(stack, key):
        """Announce a large message on a connection of its own."""
        peer = await stack.enter_async_context(found.peer())
        peer.send(peer.headers(1, head(key=key.token)), hyper.DataFrame(1, large))
        await peer.pong()
        return peer, bool(peer.of(hyper.WindowUpdateFrame, 1))

    async with serving(Plant(tmp_path), max_message_bytes=largest) as found:
        async with contextlib.AsyncExitStack() as stack:
            flood = [await begin(stack, KEY) for _ in range(6)]
            assert [granted for _, granted in flood] == [True] * 2 + [False] * 4
            assert (await begin(stack, OTHER_KEY))[1]
            # A call that is reset makes room for the one that has waited longest.
            flood[0][0].send(hyper.RstStreamFrame(1, 8))
            third = flood[2][0]
            await third.until(lambda: third.of(hyper.WindowUpdateFrame, 1))
        await found.emptied()
        assert found.server.large_messages.shares.used == 0


@pytest.mark.parametrize("path", [INFER, STREAM])
@on_loop
async def test_large_answers_that_wait_for_one_customer_leave_room_for_others(
    tmp_path, monkeypatch, path
):
    monkeypatch.setattr(calls, "STREAM_WINDOW", 1000)
    width = 15_000
    # A customer alone has half, which is one answer.
    plant = Plant(tmp_path, limits=UNLIMITED, max_large_bytes=10 * width)
    serve_wide(plant, width)
    message = framed(row(*[0] * width))

    async with serving(plant) as found:
        async with found.peer(INITIAL_WINDOW_SIZE=0) as peer:
            for asked, key in enumerate((KEY, KEY, OTHER_KEY)):
                stream_id = 2 * asked + 1
                frames = [
                    hyper.DataFrame(stream_id, message[start : start + 16_384])
                    for start in range(0, len(message), 16_384)
                ]
                frames[-1].flags.add("END_STREAM")
                peer.send(peer.headers(stream_id, head(path, key=key.token)), *frames)
                await until(lambda asked=asked: plant.engine.calls > asked)
            assert await peer.reset(3) == Code.CANCEL
            assert plant.driver.unread.used > 2 * 4 * width
            for stream_id in (1, 5):
                peer.send(
                    hyper.WindowUpdateFrame(stream_id, 10 * width),
                    hyper.WindowUpdateFrame(0, 10 * width),
                )
                fields, _ = await peer.answer(stream_id)
                assert fields["grpc-status"] == "0"
        await found.emptied()
        assert (plant.driver.unread.used, plant.driver.unread.refused) == (0, 1)


def compressed(peer, stream_id, message, key):
    end = framed(gzip.compress(message), compressed=True)
    fields = head(key=key.token, grpc_encoding="gzip")
    peer.send(
        peer.headers(stream_id, fields),
        hyper.DataFrame(stream_id, end, flags=("END_STREAM",)),
    )


@on_loop
async def test_compressed_messages_of_one_customer_leave_threads_to_others(
    tmp_path, monkeypatch
):
    """A few bytes decompress to the largest message allowed."""
    begun, released = [], threading.Event()

    def slow(body, window, *, max_bytes):
        begun.append(len(body))
        released.wait(20)
        return inflate(body, window, max_bytes=max_bytes)

    monkeypatch.setattr(inflating, "inflate", slow)
    bomb, own = bytes(2**20), row(1.5)

    async with serving(Plant(tmp_path, limits=UNLIMITED)) as found:
        async with found.peer() as flood, found.peer() as other:
            for stream_id in range(1, 80, 2):
                compressed(flood, stream_id, bomb, KEY)
            await flood.pong()
            compressed(other, 1, own, OTHER_KEY)
            await other.pong()
            # Threads for other work, such as the spool's, are free.
            await asyncio.wait_for(asyncio.to_thread(int), 20)
            released.set()
            answer, _ = await other.answer(1)
            assert answer["grpc-status"] == "0"
            assert begun.index(len(gzip.compress(own))) <= 4
            for stream_id in range(1, 80, 2):
                await flood.answer(stream_id)
        await found.emptied()
        assert found.server.inflators.shares.used == 0


@on_loop
async def test_what_compressed_messages_become_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ALL_LARGE_BYTES", 1)
    # There is room for four messages; a customer alone has half.
    width = 240_000
    message = row(*[0] * width)
    plant = Plant(tmp_path, limits=UNLIMITED)
    plant.engine.hold = asyncio.Event()
    serve_wide(plant, width)

    async with serving(plant, max_message_bytes=len(message) + 1000) as found:
        wide = {"INITIAL_WINDOW_SIZE": 2**30}
        async with found.peer(**wide) as flood, found.peer(**wide) as other:
            for peer in (flood, other):
                peer.send(hyper.WindowUpdateFrame(0, 2**30))
            for stream_id in range(1, 11, 2):
                compressed(flood, stream_id, message, KEY)
            await flood.until_called(plant, 2)
            compressed(other, 1, message, OTHER_KEY)
            await other.until_called(plant, 3)
            # A message whose call is reset while it waits needs no room.
            flood.send(hyper.RstStreamFrame(9, 8))
            await flood.pong()
            await asyncio.sleep(0.1)
            assert plant.engine.calls == 3
            plant.engine.hold.set()
            for peer, stream_id in ((other, 1), *((flood, n) for n in (1, 3, 5, 7))):
                answer, _ = await peer.answer(stream_id)
                assert answer["grpc-status"] == "0"
        await found.emptied()
        assert found.server.inflators.shares.used == 0
        assert plant.engine.calls == 5
