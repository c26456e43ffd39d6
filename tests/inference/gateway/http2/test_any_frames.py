"""Any frames in any order: no exception, and nothing is left."""

import asyncio
import tempfile
from pathlib import Path

import structlog
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.gateway.grpc.server import GrpcServer, GrpcSettings
from inference.gateway.http2 import frames
from tests import torture
from tests.inference.gateway.http2.peer import INFER, LIVE, STREAM, framed, head, row
from tests.inference.gateway.http2.wire import connect
from tests.inference.gateway.plant import Plant

STREAMS = st.integers(0, 9)
FLAGS = st.sampled_from([0, 1, 4, 5, 8, 12, 13, 0x20, 0x25, 0xFF])
MESSAGES = st.sampled_from([framed(row(1.5)), framed(b""), b"\0\0\0\0\x05ab", b"\x01"])


def _block(path):
    return Encoder().encode(head(path))


BLOCKS = st.sampled_from([_block(path) for path in (INFER, STREAM, LIVE, "/none")])
NUMBERS = st.sampled_from([0, 1, 100, 2**30, 2**31 - 1]).map(lambda n: n.to_bytes(4))
SETTINGS = st.tuples(st.integers(0, 7), st.sampled_from([0, 1, 20_000, 2**31 - 1])).map(
    lambda pair: pair[0].to_bytes(2) + pair[1].to_bytes(4)
)
FRAMES = st.one_of(
    st.tuples(st.just(frames.DATA), FLAGS, STREAMS, MESSAGES),
    st.tuples(st.just(frames.HEADERS), FLAGS, STREAMS, BLOCKS),
    st.tuples(st.just(frames.RST_STREAM), FLAGS, STREAMS, NUMBERS),
    st.tuples(st.just(frames.WINDOW_UPDATE), FLAGS, STREAMS, NUMBERS),
    st.tuples(st.just(frames.SETTINGS), st.just(0), st.just(0), SETTINGS),
    # Random bytes.
    st.tuples(st.integers(0, 12), FLAGS, STREAMS, st.binary(max_size=40)),
)


async def converse(folder, sent, cut):
    server = GrpcServer(Plant(folder).driver, GrpcSettings(max_message_bytes=1000))
    connection, _ = connect(server)
    for number, frame in enumerate(sent):
        data = frames.frame(*frame)
        for part in (data[:cut], data[cut:]):
            connection.data_received(part)
        if number % 5 == 2:
            connection.pause_writing()
            await asyncio.sleep(0)
            connection.resume_writing()
        connection.sweep(server.now())
    for _ in range(5):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    await server.stop(0)
    assert not connection.streams
    assert not server.connections
    assert server.calls == 0


@settings(deadline=None, max_examples=torture.examples(60))
@given(st.lists(FRAMES, max_size=25), st.integers(0, 30))
def test_any_frames_are_answered_or_refused(sent, cut):
    with (
        tempfile.TemporaryDirectory() as folder,
        structlog.testing.capture_logs() as logged,
    ):
        asyncio.run(converse(Path(folder), sent, cut))

    assert [entry for entry in logged if entry["log_level"] == "error"] == []
