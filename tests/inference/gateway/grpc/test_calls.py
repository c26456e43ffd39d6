"""gRPC calls over HTTP/2, frame by frame: heads, messages, ends."""

import asyncio
import gzip
import zlib

import pytest
from hyperframe import frame as hyper

from inference.dialects.open_inference.open_inference_pb2 import (
    ModelStreamInferResponse,
)
from inference.gateway.http2 import limits
from inference.gateway.http2.frames import Code
from tests.inference.gateway.http2.peer import (
    ALIVE,
    LIVE,
    STREAM,
    framed,
    head,
    on_loop,
    row,
    serving,
)
from tests.inference.gateway.plant import KEY, Plant

OK, DEADLINE_EXCEEDED, TOO_LARGE, UNIMPLEMENTED, INTERNAL = "0", "4", "8", "12", "13"
UNAUTHENTICATED = "16"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (head(LIVE, content_type="application/grpc+proto"), OK),
        (head(LIVE, content_type="application/grpc;charset=utf-8"), OK),
        (head(LIVE, grpc_timeout="99999999H"), OK),
        (head(LIVE, grpc_encoding="identity"), OK),
        (head("/inference.GRPCInferenceService/Other"), UNIMPLEMENTED),
        (head("/v2/models/m/infer"), UNIMPLEMENTED),
        (head(LIVE, grpc_encoding="br"), UNIMPLEMENTED),
        (head(LIVE, te=None), INTERNAL),
        (head(LIVE, grpc_timeout="123456789S"), INTERNAL),
        (head(LIVE, grpc_timeout="1x"), INTERNAL),
    ],
)
@on_loop
async def test_heads_say_whether_there_is_a_call(tmp_path, fields, status):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.call(1, fields=fields)
        answer, data = await peer.answer(1)

    assert answer["grpc-status"] == status
    assert data == (ALIVE if status == OK else b"")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"content_type": "application/json"}, "415"),
        ({"content_type": "application/grpc-web"}, "415"),
        ({"content_type": None}, "415"),
    ],
)
@on_loop
async def test_what_is_no_call_is_answered_by_http(tmp_path, changed, status):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.call(1, fields=head(LIVE, **changed))
        answer, _ = await peer.answer(1)
        get = [(n, "GET" if n == ":method" else value) for n, value in head(LIVE)]
        peer.call(3, fields=get)
        other, _ = await peer.answer(3)

    assert answer == {":status": status}
    assert other == {":status": "405"}


@on_loop
async def test_encodings_that_are_read_are_named(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.call(1, fields=head(grpc_encoding="snappy"))
        answer, _ = await peer.answer(1)

    assert answer["grpc-accept-encoding"] == "identity,gzip,deflate"


@on_loop
async def test_refused_calls_need_not_be_finished(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, head(key="")))
        answer, _ = await peer.answer(1)

        assert answer["grpc-status"] == "16"
        # The client may stop sending; this does not fail its call (RFC 9113, 8.1).
        assert await peer.reset(1) == Code.NO_ERROR
        # Frames that were under way are ignored.
        peer.send(hyper.DataFrame(1, b"late", flags=("END_STREAM",)))
        await peer.pong()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", UNIMPLEMENTED),
        (framed(row(1)) + framed(row(1)), UNIMPLEMENTED),
        (framed(row(1)) + b"\0", UNIMPLEMENTED),
        (framed(row(1))[:-1], INTERNAL),
        (b"\0\0", INTERNAL),
        (b"\x02" + framed(row(1))[1:], INTERNAL),
        (framed(row(1), compressed=True), INTERNAL),
        (framed(b"", length=2**31), TOO_LARGE),
        (framed(row(1)), OK),
    ],
)
@pytest.mark.parametrize("in_one", [True, False])
@on_loop
async def test_a_call_brings_one_whole_message(tmp_path, data, status, in_one):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1))
        if in_one:
            peer.send(hyper.DataFrame(1, data, flags=("END_STREAM",)))
        else:
            peer.send(hyper.DataFrame(1, data))
            peer.send(hyper.DataFrame(1, flags=("END_STREAM",)))
        answer, _ = await peer.answer(1)

    assert answer["grpc-status"] == status


@on_loop
async def test_a_call_may_end_with_its_head(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, flags=("END_HEADERS", "END_STREAM")))
        answer, _ = await peer.answer(1)

    assert answer["grpc-status"] == UNIMPLEMENTED


@on_loop
async def test_answers_beyond_the_limit_are_refused(tmp_path):
    plant = Plant(tmp_path)
    fields = head("/inference.GRPCInferenceService/ServerMetadata")

    async with serving(plant, max_message_bytes=20) as found, found.peer() as peer:
        peer.call(1, fields=fields)
        answer, _ = await peer.answer(1)

    assert answer["grpc-status"] == TOO_LARGE


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
@on_loop
async def test_compressed_messages_are_read(tmp_path, encoding, compress):
    bomb = compress(bytes(2**22))
    assert len(bomb) < 10_000

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        for stream_id, body in ((1, compress(row(1.5))), (3, bomb), (5, b"none")):
            peer.send(
                peer.headers(stream_id, head(grpc_encoding=encoding)),
                hyper.DataFrame(
                    stream_id, framed(body, compressed=True), flags=("END_STREAM",)
                ),
            )
        statuses = [(await peer.answer(n))[0]["grpc-status"] for n in (1, 3, 5)]

    assert statuses == [OK, TOO_LARGE, INTERNAL]


@pytest.mark.parametrize("key", [KEY.token, None])
@pytest.mark.parametrize(
    "method", ["ServerLive", "ServerReady", "ServerMetadata", "ModelInfer"]
)
@on_loop
async def test_every_method_reads_what_may_be_compressed(tmp_path, key, method):
    """We read every encoding that `grpc-accept-encoding` names (compression.md)."""
    path = f"/inference.GRPCInferenceService/{method}"
    body = gzip.compress(row(1.5) if method == "ModelInfer" else b"")
    end = hyper.DataFrame(1, framed(body, compressed=True), flags=("END_STREAM",))

    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, head(path, key=key, grpc_encoding="gzip")), end)
        answer, _ = await peer.answer(1)

    refused = method == "ModelInfer" and key is None
    assert answer["grpc-status"] == (UNAUTHENTICATED if refused else OK)


@on_loop
async def test_late_calls_are_ended_and_their_work_is_given_up(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found, found.peer() as peer:
        peer.call(1, row(1.5), head(grpc_timeout="3S"))
        peer.send(peer.headers(3, head(STREAM, grpc_timeout="3000m")))
        await peer.until_called(plant)
        found.pass_time(2)
        await peer.pong()
        assert not peer.ended(1)
        found.pass_time(3)
        statuses = [(await peer.answer(n))[0]["grpc-status"] for n in (1, 3)]

    assert statuses == [DEADLINE_EXCEEDED] * 2
    assert plant.metrics.abandoned == 1


@on_loop
async def test_streams_answer_message_by_message(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        peer.send(peer.headers(1, head(STREAM)))
        sent = framed(row(1, id="a")) + framed(row(2, id="b")) + framed(b"\xff")
        for start in range(0, len(sent), 7):
            peer.send(hyper.DataFrame(1, sent[start : start + 7]))
        answer, data = await peer.answer(1)

    # The third message is invalid.
    assert answer["grpc-status"] == "3"
    assert [response.infer_response.id for response in unframed(data)] == ["a", "b"]


def unframed(data):
    found = []
    while data:
        end = 5 + int.from_bytes(data[1:5])
        found.append(ModelStreamInferResponse.FromString(data[5:end]))
        data = data[end:]
    return found


@on_loop
async def test_streams_end_when_their_client_has_said_all(tmp_path):
    async with serving(Plant(tmp_path)) as found, found.peer() as peer:
        for stream_id, data in ((1, b""), (3, framed(row(1))), (5, b"\0\0")):
            peer.send(
                peer.headers(stream_id, head(STREAM)),
                hyper.DataFrame(stream_id, data, flags=("END_STREAM",)),
            )
        statuses = [(await peer.answer(n))[0]["grpc-status"] for n in (1, 3, 5)]

    assert statuses == [OK, OK, INTERNAL]


@on_loop
async def test_a_stream_whose_answers_are_not_read_takes_no_more_messages(tmp_path):
    plant = Plant(tmp_path)
    message = framed(row(1))

    async with (
        serving(plant) as found,
        found.peer(INITIAL_WINDOW_SIZE=60) as peer,
    ):
        peer.send(peer.headers(1, head(STREAM)))
        left = limits.STREAM_WINDOW // len(message)
        for _ in range(left):
            peer.send(hyper.DataFrame(1, message))
        await peer.until_called(plant, 2)
        await peer.pong()
        calls = plant.engine.calls
        await asyncio.sleep(0.1)
        assert plant.engine.calls == calls < 5

        # Its window is not opened for more than one message either.
        assert not peer.of(hyper.WindowUpdateFrame, 1)
        peer.send(hyper.WindowUpdateFrame(1, 10**6), hyper.WindowUpdateFrame(0, 10**6))
        await peer.until(lambda: peer.of(hyper.WindowUpdateFrame, 1))
        peer.send(hyper.DataFrame(1, flags=("END_STREAM",)))
        answer, data = await peer.answer(1)

    assert answer["grpc-status"] == OK
    assert len(unframed(data)) == left


@on_loop
async def test_a_client_may_leave_a_stream_at_any_time(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found:
        async with found.peer() as peer:
            peer.send(peer.headers(1, head(STREAM)), hyper.DataFrame(1, framed(row(1))))
            await peer.until_called(plant)
            peer.send(hyper.RstStreamFrame(1, Code.CANCEL))
            await peer.pong()
            assert found.server.calls == 0
        await found.emptied()

    assert plant.metrics.abandoned == 1
