"""Streams through the gateway's own sockets."""

import asyncio
import functools
import json

import pytest

from accounts.admission.limits import Limits
from inference.engine.wire.errors import EngineError, EngineErrorCode
from tests.inference.gateway.plant import DAY_OF_ONE, GOOD, Plant, request, settled
from tests.waiting import until

STREAM = "/api/v1/models/m/stream"
CONTENT = json.dumps(GOOD).encode()
MODEL = {"name": "m", "version": "1", "variant": "default"}


def on_loop(test):
    """Run a coroutine function as a test."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


async def skip_to(reader, marker):
    tail = b""
    while marker not in tail:
        tail = tail[-len(marker) :] + await reader.read(1 << 20)


def events_of(text):
    """Read events as a client does: (event, id, data), without comments."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if line[:1] != ":"
        )
        if fields:
            data = json.loads(fields["data"])
            events.append((fields.get("event"), fields.get("id"), data))
    return events


@on_loop
async def test_chunks_arrive_as_events_and_are_metered_once(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.chunks = ["a", {"b": None}]

    answer = await plant.ask(STREAM)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-model-version"] == "1"
    assert "x-ratelimit-limit" in answer.headers
    first, second, (kind, _, end) = events_of(answer.text)
    assert first == (None, "0", {"chunk": "a"})
    assert second == (None, "1", {"chunk": {"b": None}})
    assert (kind, end["model"]) == ("end", MODEL)
    assert (end["usage"]["rows"], end["usage"]["chunks"]) == (1, 2)
    assert end["request_id"] == answer.headers["x-request-id"]
    [event] = plant.events()
    assert (event.operation, event.status) == ("stream", 200)
    assert (event.rows, event.charged) == (1, True)
    assert plant.plan.streams.shares.used == plant.engine.streaming == 0


@on_loop
async def test_the_event_is_written_before_the_last_piece_leaves(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.chunks = ["a"]
    written = []
    append = plant.writer.append_encoded
    plant.writer.append_encoded = lambda frames: (
        written.append(sent.copy()),
        append(frames),
    )
    sent = []

    async with plant.connect(request(STREAM, CONTENT)) as (reader, _):
        while b"event: end" not in b"".join(sent):
            sent.append(await asyncio.wait_for(reader.read(65536), 30))

    [before] = written
    assert b"event: end" not in b"".join(before)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (EngineErrorCode.MODEL_ERROR, 500, "MODEL_ERROR"),
        (EngineErrorCode.OVERLOADED, 503, "OVERLOADED"),
        (EngineErrorCode.DEADLINE_EXCEEDED, 504, "INFERENCE_TIMEOUT"),
    ],
)
@on_loop
async def test_what_fails_before_the_first_chunk_has_a_status(
    tmp_path, failure, status, code
):
    plant = Plant(tmp_path)
    plant.engine.chunks = [EngineError(failure, "secret")]

    answer = await plant.ask(STREAM)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "secret" not in answer.text
    assert [event.charged for event in plant.events()] == [False]


@on_loop
async def test_what_fails_later_is_the_last_event_and_costs_nothing(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.chunks = ["a", EngineError(EngineErrorCode.MODEL_ERROR, "secret")]

    answer = await plant.ask(STREAM)

    assert answer.status_code == 200
    _, (kind, _, data) = events_of(answer.text)
    assert (kind, data["error"]["code"]) == ("error", "MODEL_ERROR")
    assert "secret" not in answer.text
    [event] = plant.events()
    assert (event.status, event.code, event.charged) == (500, "MODEL_ERROR", False)


@on_loop
async def test_another_engine_streams_what_the_first_cannot(tmp_path):
    plant = Plant(tmp_path, engines=("one", "two"))
    for engine in plant.made.values():
        engine.chunks = [EngineError(EngineErrorCode.LOADING, "")]
    plant.made["one"].chunks = ["a"]

    for _ in range(2):
        answer = await plant.ask(STREAM)
        assert events_of(answer.text)[0] == (None, "0", {"chunk": "a"})


@on_loop
async def test_a_client_that_leaves_ends_the_models_work(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.chunks = ["a", asyncio.Event(), "never"]

    async with plant.connect(request(STREAM, CONTENT)) as (reader, writer):
        await asyncio.wait_for(reader.readuntil(b'"a"}\n\n'), 30)
        assert plant.engine.streaming == 1
        writer.transport.abort()
        await until(lambda: plant.engine.streaming == 0)
        await until(plant.events)

    [event] = plant.events()
    assert (event.status, event.code, event.charged) == (499, "CLIENT_LEFT", True)
    assert plant.plan.streams.shares.used == 0
    assert plant.metrics.abandoned == 1


@on_loop
async def test_a_client_that_leaves_before_the_head_is_not_charged(tmp_path):
    plant = Plant(tmp_path, limits=Limits(plan="p", rates=(), quotas=(DAY_OF_ONE,)))
    plant.engine.chunks = [asyncio.Event()]

    async with plant.connect(request(STREAM, CONTENT)) as (_, writer):
        await until(lambda: plant.engine.streaming == 1)
        writer.transport.abort()
        await until(lambda: plant.engine.streaming == 0)

    assert plant.events() == []
    plant.engine.chunks = ["a"]
    assert (await plant.ask(STREAM)).status_code == 200


@on_loop
async def test_a_rollout_knows_of_streams_given_up_before_their_head(tmp_path):
    plant = Plant(tmp_path)
    plant.add_canary()
    plant.engine.chunks = [asyncio.Event()]

    async with plant.connect(request(STREAM, CONTENT)) as (_, writer):
        await until(lambda: plant.engine.streaming == 1)
        writer.transport.abort()
        await until(lambda: plant.engine.streaming == 0)
        await until(plant.events)

    [event] = plant.events()
    assert (event.status, event.code, event.charged) == (499, "CLIENT_LEFT", False)
    assert event.dealt.given_up_rows == 1
    assert plant.plan.streams.shares.used == 0


@on_loop
async def test_a_slow_client_holds_the_model_back(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.chunks = ["x" * 100_000] * 300

    async with plant.connect() as (reader, writer):
        reader._transport.pause_reading()
        writer.write(request(STREAM, CONTENT))
        held = await settled(lambda: plant.engine.given)

        assert held < 300
        reader._transport.resume_reading()
        async with asyncio.timeout(60):
            await skip_to(reader, b"event: end")

    assert plant.engine.given == 300


@on_loop
async def test_streams_at_once_are_bounded(tmp_path):
    plant = Plant(tmp_path)
    plant.plan.streams.shares.most = 1
    plant.engine.chunks = ["a", asyncio.Event()]

    async with plant.connect(request(STREAM, CONTENT)) as (reader, writer):
        await asyncio.wait_for(reader.readuntil(b'"a"}\n\n'), 30)
        async with plant.connect(request(STREAM, CONTENT)) as (other, _):
            head = await asyncio.wait_for(other.readuntil(b"\r\n\r\n"), 30)
        writer.transport.abort()
        await until(lambda: plant.plan.streams.shares.used == 0)

    assert head.startswith(b"HTTP/1.1 503")
    assert b"retry-after: " in head


@on_loop
async def test_a_stream_ends_at_its_deadline(tmp_path):
    plant = Plant(tmp_path)
    plant.plan.streams.max_stream_s = 0.1
    plant.engine.chunks = ["a", asyncio.Event()]

    answer = await asyncio.wait_for(plant.ask(STREAM), 30)

    _, (kind, _, data) = events_of(answer.text)
    assert (kind, data["error"]["code"]) == ("error", "INFERENCE_TIMEOUT")
    await until(lambda: plant.engine.streaming == 0)


@on_loop
async def test_a_client_that_takes_nothing_is_given_up_at_the_deadline(tmp_path):
    plant = Plant(tmp_path)
    plant.plan.streams.max_stream_s = 0.3
    plant.engine.chunks = ["x" * 1_000_000] * 100

    async with plant.connect() as (reader, writer):
        reader._transport.pause_reading()
        writer.write(request(STREAM, CONTENT))
        await until(plant.events)

    assert [event.status for event in plant.events()] == [499]
    assert plant.plan.streams.shares.used == 0
    await until(lambda: plant.engine.streaming == 0)


@on_loop
async def test_an_event_that_cannot_be_written_is_told_instead_of_the_end(tmp_path):
    plant = Plant(tmp_path, max_total_bytes=0)
    plant.engine.chunks = ["a"]

    answer = await plant.ask(STREAM)

    assert [kind for kind, _, _ in events_of(answer.text)] == [None, "error"]
    assert events_of(answer.text)[1][2]["error"]["code"] == "OVERLOADED"


@on_loop
async def test_the_connection_serves_the_next_request(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.chunks = ["a"]

    async with plant.connect(request(STREAM, CONTENT) * 2) as (reader, _):
        for _ in range(2):
            await asyncio.wait_for(reader.readuntil(b"event: end"), 30)
            await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), 30)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/event-stream", 200),
        ("*/*", 200),
        ("application/json", 200),
        ("text/html", 406),
    ],
)
@on_loop
async def test_the_answer_must_be_acceptable(tmp_path, accept, status):
    plant = Plant(tmp_path)

    answer = await plant.ask(STREAM, headers={"accept": accept})

    assert answer.status_code == status


@on_loop
async def test_a_stream_takes_one_instance(tmp_path):
    plant = Plant(tmp_path)
    content = json.dumps({"instances": GOOD["instances"] * 2}).encode()

    answer = await plant.ask(STREAM, content)

    assert (answer.status_code, plant.engine.calls) == (400, 0)
