"""The public application, over HTTP."""

import asyncio
import functools
import json
import tracemalloc
from unittest.mock import Mock

import msgspec
import pytest

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.gateway.http1.connection import Http1Connection
from tests.inference.gateway.plant import (
    DAY_OF_ONE,
    GOOD,
    Plant,
    one_at_a_time,
    read_answer,
    request,
    settled,
)


def on_loop(test):
    """Run a coroutine function as a test."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


async def arrival(plant):
    """Wait until a request's head has been read."""
    while not any(not connection.idle for connection in plant.listener.connections):
        await asyncio.sleep(0)


def unfinished():
    """Write a request whose body lacks its end."""
    return request(content=b"{", headers=[("content-length", "100")])


@on_loop
async def test_prediction_is_answered_and_metered(tmp_path):
    plant = Plant(tmp_path)

    answer = await plant.ask()

    assert answer.json()["predictions"] == [3.0]
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    [event] = plant.events()
    assert (event.status, event.rows, event.charged) == (200, 1, True)


@on_loop
async def test_event_is_on_disk_before_the_answer_leaves(tmp_path, monkeypatch):
    plant = Plant(tmp_path)
    recorded = []
    answer = Http1Connection.answer

    def spy(connection, *parts):
        recorded.append(len(plant.events()))
        answer(connection, *parts)

    monkeypatch.setattr(Http1Connection, "answer", spy)

    assert (await plant.ask()).status_code == 200
    assert recorded == [1]


@on_loop
async def test_refusals_are_metered_too(tmp_path):
    plant = Plant(tmp_path)

    answers = [
        await plant.ask(content=b"{"),
        await plant.ask("/api/v1/models/other/predict"),
        await plant.ask(headers={"authorization": "Bearer nonsense"}),
    ]

    assert [answer.status_code for answer in answers] == [400, 404, 401]
    assert [(event.status, event.charged) for event in plant.events()] == [
        (400, False),
        (404, False),
    ]


@on_loop
async def test_full_spool_stops_predictions_and_gives_units_back(tmp_path):
    plant = Plant(tmp_path, limits=one_at_a_time(DAY_OF_ONE), max_total_bytes=0)

    first, second = await plant.ask(), await plant.ask()

    assert [first.status_code, second.status_code] == [503, 503]
    assert first.json()["error"]["code"] == "OVERLOADED"
    assert int(first.headers["retry-after"]) >= 1
    # The only unit of the day was returned, so the second call reached the engine too.
    assert plant.engine.calls == 2
    assert plant.metrics.unrecorded == 2


@on_loop
async def test_events_of_one_turn_are_written_at_once(tmp_path, monkeypatch):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()
    writes = []
    append = plant.writer.append_encoded
    monkeypatch.setattr(
        plant.writer,
        "append_encoded",
        lambda frames: (writes.append(len(frames)), append(frames)),
    )
    asked = [asyncio.create_task(plant.ask()) for _ in range(8)]
    await turns(200)

    plant.engine.hold.set()
    answers = await asyncio.gather(*asked)

    assert [answer.status_code for answer in answers] == [200] * 8
    assert writes == [8]


@on_loop
async def test_wrong_method_is_told_the_right_one(tmp_path):
    answer = await Plant(tmp_path).ask(method="GET")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["code"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "path",
    [
        "/internal/leases",
        "//internal/leases",
        "/internal",
        "/%69nternal/leases",
        "/INTERNAL/x",
        "/metrics",
        "/metrics/",
    ],
)
@on_loop
async def test_private_paths_do_not_exist_outside(tmp_path, path):
    plant = Plant(tmp_path)

    answer = await plant.ask(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"
    assert plant.site.requests == []


DOTS = [
    f"POST {target} HTTP/1.1"
    for target in (
        "/x/../api/v1/models/m/predict",
        "/./api/v1/models/m/predict",
        "/x/%2e%2E/api/v1/models/m/predict",
        "/x%2F..%2Fapi/v1/models/m/predict",
        "http://other/x/../api/v1/models/m/predict",
        "/docs/..",
        "/x/../internal/leases",
    )
]


@pytest.mark.parametrize("line", DOTS)
@on_loop
async def test_dots_in_a_path_lead_nowhere(tmp_path, line):
    plant = Plant(tmp_path)
    sent = f"{line}\r\nhost: x\r\ncontent-length: 0\r\n\r\n"

    async with plant.connect(sent.encode()) as (reader, _):
        status, _, body = await read_answer(reader)

    assert (status, json.loads(body)["error"]["code"]) == (400, "INVALID_HEADER")
    assert plant.site.requests == []


@on_loop
async def test_absolute_target_says_whom_the_request_is_for(tmp_path):
    plant = Plant(tmp_path)
    sent = b"GET http://me:pw@named:81/docs/?q=1 HTTP/1.1\r\nhost: other\r\n\r\n"

    async with plant.connect(sent) as (reader, _):
        await read_answer(reader)

    [asked] = plant.site.requests
    assert asked.headers.get_list("host") == ["named:81"]
    assert asked.headers["x-forwarded-host"] == "named:81"
    assert asked.url.raw_path == b"/docs/?q=1"


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("TRACE", "/healthz", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("TRACE", "/docs/", "GET, POST"),
        ("CONNECT", "other:443", "GET, POST"),
        ("TRACE", "/api/v1/models/m/predict", "POST"),
        ("POST", "/v2/models/m", "GET, HEAD"),
        ("GET", "/v2/models/m/infer", "POST"),
        ("GET", "/v2/repository/index", "POST"),
    ],
)
@on_loop
async def test_refusal_of_a_method_names_the_right_ones(
    tmp_path, method, target, allowed
):
    plant = Plant(tmp_path)
    sent = f"{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n"

    async with plant.connect(sent.encode()) as (reader, _):
        status, headers, _ = await read_answer(reader)

    assert (status, headers["allow"]) == (405, allowed)
    assert plant.site.requests == []


@on_loop
async def test_health_is_a_word(tmp_path):
    plant = Plant(tmp_path)

    for path in ("/healthz", "/health"):
        answer = await plant.ask(path, method="GET", headers={"authorization": ""})
        assert (answer.status_code, answer.text) == (200, "ok")


@on_loop
async def test_ready_only_while_an_engine_has_the_default(tmp_path):
    plant = Plant(tmp_path)
    words = {}

    for state in ("unasked", "loading", "ready", "gone"):
        if state != "unasked":
            plant.engine.state = state
            await plant.engines.ask()
        answer = await plant.ask("/readyz", method="GET")
        words[state] = (answer.status_code, answer.text)

    assert words == {
        "unasked": (503, "not ready"),
        "loading": (503, "not ready"),
        "ready": (200, "ready"),
        "gone": (503, "not ready"),
    }


@on_loop
async def test_body_that_is_too_large_by_its_header_is_not_read(tmp_path):
    plant = Plant(tmp_path)
    sent = request(headers=[("content-length", "999999999")])

    async with plant.connect(sent) as (reader, _):
        status, _, _ = await read_answer(reader)

    assert status == 413


@on_loop
async def test_body_that_grows_too_large_is_not_read_to_its_end(tmp_path):
    plant = Plant(tmp_path)
    chunk = b"100000\r\n" + b" " * 1024 * 1024 + b"\r\n"
    sent = request(headers=[("transfer-encoding", "chunked")])

    async with plant.connect(sent, *[chunk] * 3) as (reader, _):
        status, _, _ = await read_answer(reader)

    assert status == 413
    assert plant.events()[0].code == "TOO_LARGE"


@on_loop
async def test_body_that_never_ends_times_out(tmp_path):
    plant = Plant(tmp_path)

    async with plant.connect(unfinished()) as (reader, _):
        await arrival(plant)
        plant.clock.advance(4.9)
        plant.listener.sweep()
        await turns()
        assert not plant.events()
        plant.clock.advance(0.2)
        plant.listener.sweep()
        status, headers, _ = await read_answer(reader)
        assert await reader.read() == b""

    assert (status, headers["connection"]) == (408, "close")
    assert plant.events()[0].code == "REQUEST_TIMEOUT"


@on_loop
async def test_body_that_trickles_in_has_no_more_time(tmp_path):
    plant = Plant(tmp_path)

    async with plant.connect(unfinished()) as (reader, writer):
        await arrival(plant)
        for _ in range(6):
            writer.write(b" ")
            await turns()
            plant.clock.advance(1)
            plant.listener.sweep()
        status, _, _ = await read_answer(reader)

    assert status == 408


@on_loop
async def test_client_that_leaves_in_its_body_frees_its_place(tmp_path):
    plant = Plant(tmp_path, limits=one_at_a_time())

    async with plant.connect(unfinished()) as (_, writer):
        await arrival(plant)
        writer.close()
        while plant.listener.connections:
            await asyncio.sleep(0)

    assert plant.metrics.abandoned == 1
    assert (await plant.ask()).status_code == 200


@on_loop
async def test_client_that_leaves_frees_its_place_and_its_units(tmp_path):
    plant = Plant(tmp_path, limits=one_at_a_time(DAY_OF_ONE))
    plant.engine.hold = asyncio.Event()

    async with plant.connect(request(content=json.dumps(GOOD).encode())) as (_, writer):
        while not plant.engine.calls:
            await asyncio.sleep(0)
        writer.close()
        while plant.listener.connections:
            await asyncio.sleep(0)
    plant.engine.hold.set()

    assert (await plant.ask()).status_code == 200
    assert [event.status for event in plant.events()] == [200]


@on_loop
async def test_a_client_that_leaves_while_a_canary_works_leaves_an_event(tmp_path):
    plant = Plant(tmp_path)
    plant.add_canary()
    plant.engine.hold = asyncio.Event()

    async with plant.connect(request(content=json.dumps(GOOD).encode())) as (_, writer):
        while not plant.engine.calls:
            await asyncio.sleep(0)
        writer.close()
        while plant.listener.connections:
            await asyncio.sleep(0)
    plant.engine.hold.set()
    await settled(lambda: len(plant.events()))

    [event] = plant.events()
    assert (event.status, event.code, event.charged) == (499, "CLIENT_LEFT", False)
    assert event.dealt.given_up_rows == 1


@on_loop
async def test_unforeseen_failure_keeps_its_text_to_itself(tmp_path):
    plant = Plant(tmp_path, limits=one_at_a_time())
    plant.engine.failure = RuntimeError("secret/path")

    answer = await plant.ask()

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "INTERNAL_ERROR"
    assert "secret" not in answer.text
    plant.engine.failure = None
    assert (await plant.ask()).status_code == 200


@pytest.mark.parametrize(
    "failure", [EngineErrorCode.CONNECTION_LOST, EngineErrorCode.LOAD_FAILED]
)
@on_loop
async def test_another_engine_answers_for_one_that_cannot(tmp_path, failure):
    plant = Plant(tmp_path, engines=("a", "b"))
    plant.made["a"].failure = EngineError(failure, "gone")

    answers = [await plant.ask() for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert plant.made["b"].calls == 4


@on_loop
async def test_model_that_fails_is_not_tried_elsewhere(tmp_path):
    plant = Plant(tmp_path, engines=("a", "b"))
    for engine in plant.made.values():
        engine.failure = EngineError(EngineErrorCode.MODEL_ERROR, "boom")

    answer = await plant.ask()

    assert answer.status_code == 500
    assert sum(engine.calls for engine in plant.made.values()) == 1


@on_loop
async def test_operators_see_metrics_and_what_readiness_waits_for(tmp_path):
    plant = Plant(tmp_path)
    await plant.ask()

    waiting = await plant.ask("/readyz", method="GET", app=plant.operator_app)
    # This asks the engines.
    metrics = await plant.ask("/metrics", method="GET", app=plant.operator_app)
    ready = await plant.ask("/readyz", method="GET", app=plant.operator_app)

    assert 'modelyard_requests_total{gateway="gateway",model="m",' in metrics.text
    assert waiting.json()["waiting_for"] == ["m v1 is ready on no engine"]
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert ready.json()["engines"]["cpu"]["versions"][0]["state"] == "ready"


@on_loop
async def test_strangers_who_ask_for_health_cost_no_look_at_every_model(tmp_path):
    plant = Plant(tmp_path)
    snapshot = plant.tables.as_snapshot()
    models = tuple(
        msgspec.structs.replace(snapshot.models[0], name=f"m{number}")
        for number in range(300)
    )
    plant.tables.replace(msgspec.structs.replace(snapshot, models=models))
    plant.engines.is_ready = Mock(wraps=plant.engines.is_ready)

    for asked in (1, 2):
        await plant.engines.ask()
        for path in ("/readyz", "/v2/health/ready") * 3:
            await plant.ask(path, method="GET", headers={"authorization": ""})

        assert plant.engines.is_ready.call_count == 300 * asked


@on_loop
async def test_a_spool_that_cannot_be_written_makes_a_gateway_unready(tmp_path):
    plant = Plant(tmp_path)
    await plant.engines.ask()
    syncing = asyncio.create_task(plant.recorder.keep_synced())

    async def becomes(status):
        async with asyncio.timeout(60):
            while (await plant.ask("/readyz", method="GET")).status_code != status:
                await asyncio.sleep(0.05)

    await becomes(200)
    # The gateway notices it without any call.
    aside = tmp_path.with_name("aside")
    tmp_path.rename(aside)
    await becomes(503)
    detail = await plant.ask("/readyz", method="GET", app=plant.operator_app)
    aside.rename(tmp_path)
    await becomes(200)
    syncing.cancel()

    assert detail.status_code == 503
    assert detail.json()["waiting_for"] == ["usage events cannot be written"]


@on_loop
async def test_one_models_absence_leaves_the_gateway_ready_for_all_others(tmp_path):
    plant = Plant(tmp_path)
    [model] = plant.tables.as_snapshot().models
    away = msgspec.structs.replace(model, name="away")
    plant.tables.replace(
        msgspec.structs.replace(plant.tables.as_snapshot(), models=(model, away))
    )

    await plant.engines.ask()
    detail = await plant.ask("/readyz", method="GET", app=plant.operator_app)
    public = await plant.ask("/readyz", method="GET")
    server = await plant.ask("/v2/health/ready", method="GET")
    plant.engine.state = "loading"
    await plant.engines.ask()
    none = await plant.ask("/readyz", method="GET", app=plant.operator_app)

    assert (detail.status_code, public.text, server.status_code) == (200, "ready", 200)
    assert detail.json()["waiting_for"] == ["away v1 is ready on no engine"]
    assert none.status_code == 503
    assert none.json()["waiting_for"] == [
        "away v1 is ready on no engine",
        "m v1 is ready on no engine",
    ]


@on_loop
async def test_a_model_on_its_way_to_its_first_answer_leaves_the_gateway_ready(
    tmp_path,
):
    plant = Plant(tmp_path)
    [model] = plant.tables.as_snapshot().models
    coming = msgspec.structs.replace(model, name="coming", variants=())
    plant.tables.replace(
        msgspec.structs.replace(plant.tables.as_snapshot(), models=(model, coming))
    )
    await plant.engines.ask()

    detail = await plant.ask("/readyz", method="GET", app=plant.operator_app)
    server = await plant.ask("/v2/health/ready", method="GET")

    assert (detail.status_code, server.status_code) == (200, 200)
    assert detail.json()["waiting_for"] == ["coming has no default that is served yet"]


@on_loop
async def test_before_the_first_snapshot_a_key_is_told_to_wait(tmp_path):
    plant = Plant(tmp_path)
    nothing = msgspec.structs.replace(
        plant.tables.as_snapshot(), sequence=0, keys=(), models=()
    )
    plant.tables.replace(nothing)

    keyed = await plant.ask()
    described = await plant.ask("/v2/models/m", method="GET")
    nonsense = await plant.ask(headers={"authorization": "Bearer x"})

    assert (keyed.status_code, described.status_code) == (503, 503)
    assert keyed.headers["retry-after"] == "5"
    assert nonsense.status_code == 401


@on_loop
async def test_another_method_is_told_the_limits_of_its_key(tmp_path):
    plant = Plant(tmp_path)

    keyed = await plant.ask(method="GET")
    unknown = await plant.ask(method="GET", headers={"authorization": "Bearer x"})

    assert (keyed.status_code, keyed.headers["allow"]) == (405, "POST")
    assert keyed.headers["x-ratelimit-limit"] == "1000"
    assert unknown.status_code == 405
    assert "x-ratelimit-limit" not in unknown.headers


@pytest.mark.parametrize("path", ["/", "/api/v1/jobs", "/api/v1/models/m/predict"])
@on_loop
async def test_trace_is_not_answered(tmp_path, path):
    plant = Plant(tmp_path)

    answer = await plant.ask(path, method="TRACE")

    assert (answer.status_code, plant.site.requests) == (405, [])


@on_loop
async def test_long_made_up_paths_are_not_remembered(tmp_path):
    plant = Plant(tmp_path)
    statuses = set()

    async with plant.connect() as (reader, writer):
        tracemalloc.start()
        for number in range(50):
            padded = f"{number}{'x' * 20_000}"
            path = f"/api/v1/models/{padded}/predict"
            writer.write(request(path, headers=[("accept", f"a/{padded}")]))
            statuses.add((await read_answer(reader))[0])
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert statuses == {404}
    assert held < 500_000
