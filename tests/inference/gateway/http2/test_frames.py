"""HTTP/2 by RFC 9113, with frames that another library writes."""

import asyncio

import pytest
from hyperframe import frame as hyper

from inference.dialects.open_inference.open_inference_pb2 import ModelInferResponse
from inference.gateway.http2 import limits
from inference.gateway.http2.frames import Code
from tests.inference.gateway.http2.peer import (
    ALIVE,
    LIVE,
    PREFACE,
    framed,
    head,
    on_loop,
    row,
    serve_wide,
    serving,
)
from tests.inference.gateway.plant import Plant


@on_loop
async def test_a_call_is_answered_by_head_message_and_trailers(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.call(1, row(1.5, id="7"))
        fields, data = await peer.answer(1)

    assert fields[":status"] == "200"
    assert fields["content-type"] == "application/grpc"
    assert fields["grpc-status"] == "0"
    assert fields["x-model-version"] == "1"
    assert data[:5] == b"\0" + len(data[5:]).to_bytes(4)
    assert ModelInferResponse.FromString(data[5:]).id == "7"


@on_loop
async def test_bytes_may_come_one_by_one(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer(greet=False) as peer:
        sent = PREFACE + b"".join(
            frame.serialize()
            for frame in (
                hyper.SettingsFrame(0),
                peer.headers(1, head(LIVE)),
                hyper.DataFrame(1, framed(b""), flags=("END_STREAM",)),
            )
        )
        for byte in sent:
            peer.raw(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0)
        _, data = await peer.answer(1)

    assert data == ALIVE


@on_loop
async def test_headers_may_be_cut_padded_and_prioritized(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        block = peer.encoder.encode(head(LIVE))
        peer.send(
            hyper.HeadersFrame(
                1, block[:10], flags=("PADDED", "PRIORITY"), pad_length=7, depends_on=0
            ),
            hyper.ContinuationFrame(1, block[10:20]),
            hyper.ContinuationFrame(1, block[20:], flags=("END_HEADERS",)),
            hyper.PriorityFrame(1, depends_on=0),
            hyper.DataFrame(1, b"\0\0", flags=("PADDED",), pad_length=100),
            hyper.DataFrame(1, b"\0\0\0", flags=("PADDED", "END_STREAM"), pad_length=0),
        )
        _, data = await peer.answer(1)

    assert data == ALIVE


@on_loop
async def test_settings_and_pings_are_acknowledged(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        await peer.pong()
        acks = [f for f in peer.of(hyper.SettingsFrame) if "ACK" in f.flags]
        [greeting] = [f for f in peer.of(hyper.SettingsFrame) if "ACK" not in f.flags]

    assert len(acks) == 1
    assert greeting.settings == {
        hyper.SettingsFrame.MAX_CONCURRENT_STREAMS: limits.MAX_STREAMS,
        hyper.SettingsFrame.MAX_HEADER_LIST_SIZE: limits.MAX_HEADER_LIST_BYTES,
    }


@on_loop
async def test_frames_of_unknown_kinds_are_ignored(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.raw(b"\0\0\x06\xfa\xff\0\0\0\x01grease")
        peer.call(1, fields=head(LIVE))
        _, data = await peer.answer(1)

    assert data == ALIVE


@on_loop
async def test_trailers_of_a_request_end_it(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(
            peer.headers(1, head(LIVE)),
            hyper.DataFrame(1, framed(b"")),
            peer.headers(1, [("x-sum", "1")], flags=("END_HEADERS", "END_STREAM")),
        )
        _, data = await peer.answer(1)

    assert data == ALIVE


@on_loop
async def test_a_smaller_table_is_acknowledged_by_the_next_block(tmp_path):
    async with (
        serving(Plant(tmp_path)) as found,
        found.peer(HEADER_TABLE_SIZE=0) as peer,
    ):
        peer.decoder.max_allowed_table_size = 0
        for stream_id in (1, 3):
            peer.call(stream_id, fields=head(LIVE))
            _, data = await peer.answer(stream_id)
            assert data == ALIVE

    assert peer.of(hyper.HeadersFrame)[0].data[:1] == b"\x20"


@on_loop
async def test_answers_keep_to_the_windows_of_the_client(tmp_path):
    async with (
        serving(Plant(tmp_path)) as found,
        found.peer(INITIAL_WINDOW_SIZE=3) as peer,
    ):
        for stream_id in (1, 3):
            peer.call(stream_id, fields=head(LIVE))
        await peer.pong()
        assert peer.data == {1: ALIVE[:3], 3: ALIVE[:3]}

        peer.send(hyper.WindowUpdateFrame(3, 1))
        await peer.pong()
        assert peer.data == {1: ALIVE[:3], 3: ALIVE[:4]}

        peer.send(hyper.SettingsFrame(0, settings={4: 5}))
        await peer.pong()
        assert peer.data == {1: ALIVE[:5], 3: ALIVE[:6]}

        peer.send(hyper.WindowUpdateFrame(1, 100), hyper.WindowUpdateFrame(3, 100))
        for stream_id in (1, 3):
            fields, data = await peer.answer(stream_id)
            assert (fields["grpc-status"], data) == ("0", ALIVE)


@on_loop
async def test_one_stream_without_a_window_does_not_hold_up_the_others(tmp_path):
    async with (
        serving(Plant(tmp_path)) as found,
        found.peer(INITIAL_WINDOW_SIZE=0) as peer,
    ):
        peer.call(1, fields=head(LIVE))
        peer.send(
            peer.headers(3, head(LIVE)),
            hyper.WindowUpdateFrame(3, 100),
            hyper.DataFrame(3, framed(b""), flags=("END_STREAM",)),
        )
        _, data = await peer.answer(3)

    assert data == ALIVE
    assert 1 not in peer.data


@on_loop
async def test_large_messages_cross_small_windows_both_ways(tmp_path):
    values = 100_000
    plant = Plant(tmp_path)
    serve_wide(plant, values)
    data = framed(row(*[0] * values))

    async with serving(plant) as found, found.peer() as peer:
        peer.send(peer.headers(1))
        start, window = 0, limits.STREAM_WINDOW
        while start < len(data):
            size = min(window, 16_384, len(data) - start)
            if not size:
                await peer.until(lambda: peer.of(hyper.WindowUpdateFrame, 1))
                [update] = peer.of(hyper.WindowUpdateFrame, 1)
                window += update.window_increment
                continue
            last = start + size == len(data)
            flags = ("END_STREAM",) if last else ()
            peer.send(hyper.DataFrame(1, data[start : start + size], flags=flags))
            start, window = start + size, window - size
        # The rest of the message was granted at once, and no more.
        assert window == 0
        read = 0
        while not peer.ended(1):
            await peer.until(
                lambda known=read: len(peer.data.get(1, b"")) > known or peer.ended(1)
            )
            more, read = len(peer.data[1]) - read, len(peer.data[1])
            if more:
                peer.send(
                    hyper.WindowUpdateFrame(0, more), hyper.WindowUpdateFrame(1, more)
                )

    [output] = ModelInferResponse.FromString(peer.data[1][5:]).raw_output_contents
    assert output == bytes(4 * values)
    assert peer.blocks[1]["grpc-status"] == "0"
    assert max(len(f.data) for f in peer.of(hyper.DataFrame)) <= 16_384


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        # Wrong stream ids.
        (lambda p: [p.headers(2)], Code.PROTOCOL_ERROR),
        (lambda p: [p.headers(3), p.headers(1)], Code.PROTOCOL_ERROR),
        (lambda p: [hyper.DataFrame(1, b"x")], Code.PROTOCOL_ERROR),
        (lambda p: [hyper.RstStreamFrame(1, 8)], Code.PROTOCOL_ERROR),
        (lambda p: [hyper.WindowUpdateFrame(1, 8)], Code.PROTOCOL_ERROR),
        # Another frame within a header block.
        (
            lambda p: [p.headers(1, flags=()), hyper.PingFrame(0)],
            Code.PROTOCOL_ERROR,
        ),
        (
            lambda p: [p.headers(1, flags=()), hyper.ContinuationFrame(3, b"")],
            Code.PROTOCOL_ERROR,
        ),
        (lambda p: [hyper.ContinuationFrame(1, b"x")], Code.PROTOCOL_ERROR),
        # Windows that open too far, or not at all.
        (
            lambda p: [hyper.WindowUpdateFrame(0, 2**31 - 1)],
            Code.FLOW_CONTROL_ERROR,
        ),
        (
            lambda p: [hyper.SettingsFrame(0, settings={4: 2**31})],
            Code.FLOW_CONTROL_ERROR,
        ),
        (lambda p: [hyper.SettingsFrame(0, settings={5: 100})], Code.PROTOCOL_ERROR),
        (lambda p: [hyper.SettingsFrame(0, settings={2: 2})], Code.PROTOCOL_ERROR),
        (
            lambda p: [
                hyper.SettingsFrame(0, settings=dict.fromkeys(range(99, 199), 1))
            ],
            Code.ENHANCE_YOUR_CALM,
        ),
        # An invalid header block.
        (lambda p: [p.headers(1, block=b"\xff\x00")], Code.COMPRESSION_ERROR),
    ],
)
@on_loop
async def test_broken_rules_end_the_connection(tmp_path, frames, code):
    async with serving(Plant(tmp_path)) as found:
        async with found.peer() as peer:
            peer.send(*frames(peer))
            assert await peer.end() == code
        await found.emptied()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        # Too much padding; one byte over the largest frame; settings cut short.
        (b"\0\0\x02\0\x08\0\0\0\x01\x02x", Code.PROTOCOL_ERROR),
        (b"\0\0\0\0\x08\0\0\0\x01", Code.PROTOCOL_ERROR),
        (b"\0\x40\x01\0\0\0\0\0\x01", Code.FRAME_SIZE_ERROR),
        (b"\0\0\x05\x04\0\0\0\0\0hello", Code.FRAME_SIZE_ERROR),
        (b"\0\0\x01\x04\x01\0\0\0\0x", Code.FRAME_SIZE_ERROR),
        (b"\0\0\0\x04\0\0\0\0\x01", Code.PROTOCOL_ERROR),
        (b"\0\0\x03\x08\0\0\0\0\0abc", Code.FRAME_SIZE_ERROR),
        (b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0", Code.PROTOCOL_ERROR),
        (b"\0\0\x03\x02\0\0\0\0\x01abc", Code.FRAME_SIZE_ERROR),
        (b"\0\0\x07\x06\0\0\0\0\0sevenby", Code.FRAME_SIZE_ERROR),
        (b"\0\0\x08\x06\0\0\0\0\x01of eight", Code.PROTOCOL_ERROR),
        # A stream's frame on stream 0; a connection's frame on a stream.
        (b"\0\0\x05\x02\0\0\0\0\0\0\0\0\0\x10", Code.PROTOCOL_ERROR),
        (b"\0\0\x08\x07\0\0\0\0\x01\0\0\0\0\0\0\0\0", Code.PROTOCOL_ERROR),
        # HEADERS on stream 0, and PUSH_PROMISE.
        (b"\0\0\x01\x01\x04\0\0\0\0\x82", Code.PROTOCOL_ERROR),
        (b"\0\0\x05\x05\x04\0\0\0\x01\0\0\0\x02\x82", Code.PROTOCOL_ERROR),
    ],
)
@on_loop
async def test_broken_frames_end_the_connection(tmp_path, sent, code):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1))
        peer.raw(sent)

        assert await peer.end() == code


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (
            lambda: [hyper.WindowUpdateFrame(1, 2**31 - 1)],
            Code.FLOW_CONTROL_ERROR,
        ),
        (
            lambda: [hyper.DataFrame(1, b"\0\0\0\xff\xff" + bytes(16_000))] * 5,
            Code.FLOW_CONTROL_ERROR,
        ),
    ],
)
@on_loop
async def test_broken_windows_end_their_stream_only(tmp_path, frames, code):
    async with serving(Plant(tmp_path), max_message_bytes=2**20) as found:
        async with found.peer() as peer:
            peer.send(peer.headers(1), *frames())
            assert await peer.reset(1) == code

            peer.call(3, fields=head(LIVE))
            _, data = await peer.answer(3)
        await found.emptied()

    assert data == ALIVE


@on_loop
async def test_data_behind_the_end_resets_the_stream(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found, found.peer() as peer:
        peer.call(1, row(1.5))
        await peer.until_called(plant)
        peer.send(hyper.DataFrame(1, b"more"))

        assert await peer.reset(1) == Code.STREAM_CLOSED

    # The work for it is abandoned.
    assert plant.metrics.abandoned == 1


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"x", b"\0"]
)
@on_loop
async def test_other_protocols_are_hung_up_on(tmp_path, sent):
    async with serving(Plant(tmp_path)) as found, found.peer(greet=False) as peer:
        peer.raw(sent)

        assert await peer.end() is None


@on_loop
async def test_settings_come_first(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer(greet=False) as peer:
        peer.raw(PREFACE)
        peer.call(1)

        assert await peer.end() == Code.PROTOCOL_ERROR


MALFORMED = [
    head(without=[":path"]),
    [*head(), (":path", "/late")],
    [(":path", "/twice"), *head()],
    [(":status", "200"), *head()],
    [*head(), ("Upper", "case")],
    [*head(), ("connection", "close")],
    [*head(te="gzip")],
    [*head(), ("x-line", "a\nb")],
    [*head(), ("", "nameless")],
]


@pytest.mark.parametrize("fields", MALFORMED)
@on_loop
async def test_malformed_requests_reset_their_stream(tmp_path, fields):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, fields))

        assert await peer.reset(1) == Code.PROTOCOL_ERROR
