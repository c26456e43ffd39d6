"""The Open Inference Protocol over HTTP, by a whole gateway."""

import asyncio
import functools
import json

import msgspec
import numpy as np
import pytest

from accounts.admission.limits import Limits, Rate
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.snapshot.contents import Ending
from tests.inference.gateway.plant import KEY, Plant, published

INFER = "/v2/models/m/infer"
ONE = {"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [1.5]}
JSON = {"inputs": [ONE]}
NOBODY = {"authorization": "Bearer my_live_nobody"}


def on_loop(test):
    """Run a coroutine function as a test."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


def binary(values):
    """Write a request with one raw tensor; return body and headers."""
    raw = np.array(values, "<f4").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "input",
                    "shape": [len(values), 1],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(raw)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    return head + raw, {"inference-header-content-length": str(len(head))}


async def infer(plant, body=JSON, **given):
    return await plant.ask(INFER, json.dumps(body).encode(), **given)


@on_loop
async def test_infer_is_answered_and_metered(tmp_path):
    plant = Plant(tmp_path)

    answer = await infer(plant)

    assert answer.status_code == 200
    assert answer.json()["outputs"] == [
        {"name": "output", "datatype": "FP32", "shape": [1, 1], "data": [3.0]}
    ]
    assert "x-ratelimit-remaining" in answer.headers
    assert answer.headers["x-model-version"] == "1"
    [event] = plant.events()
    assert (event.operation, event.status, event.rows) == ("predict", 200, 1)


@on_loop
async def test_raw_tensors_go_both_ways(tmp_path):
    plant = Plant(tmp_path)
    body, headers = binary([1, 2, 3])

    answer = await plant.ask(INFER, body, headers=headers)

    size = int(answer.headers["inference-header-content-length"])
    described = msgspec.json.decode(answer.content[:size])["outputs"][0]
    assert described["parameters"] == {"binary_data_size": 12}
    assert np.frombuffer(answer.content[size:], "<f4").tolist() == [2, 4, 6]


@on_loop
async def test_version_may_be_in_the_path(tmp_path):
    plant = Plant(tmp_path)
    body = json.dumps(JSON).encode()

    found = await plant.ask("/v2/models/m/versions/1/infer", body)
    missing = await plant.ask("/v2/models/m/versions/2/infer", body)

    assert found.status_code == 200
    assert missing.status_code == 404
    assert list(missing.json()) == ["error"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (INFER, NOBODY, 401),
        ("/v2/models/other/infer", {}, 404),
        (INFER, {"content-encoding": "gzip"}, 415),
        (INFER, {"inference-header-content-length": "1000000"}, 400),
    ],
)
@on_loop
async def test_errors_are_of_the_protocol(tmp_path, path, headers, status):
    plant = Plant(tmp_path)

    answer = await plant.ask(path, json.dumps(JSON).encode(), headers=headers)

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert isinstance(answer.json()["error"], str)
    assert "x-request-id" in answer.headers


@on_loop
async def test_limits_say_when_to_come_back(tmp_path):
    plant = Plant(tmp_path, limits=Limits(plan="p", rates=(Rate("burst", 1, 60),)))

    await infer(plant)
    answer = await infer(plant)

    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answer.json()["error"].startswith("RATE_LIMIT_EXCEEDED: ")


@on_loop
async def test_overload_says_when_to_come_back(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.failure = EngineError(
        EngineErrorCode.OVERLOADED, "full", retry_after_ms=2500
    )

    answer = await infer(plant)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"


@on_loop
async def test_json_has_the_smaller_limit(tmp_path):
    plant = Plant(tmp_path)
    large = json.dumps(JSON).encode().ljust(2 * 1024 * 1024 + 1)

    answer = await plant.ask(INFER, large)

    assert answer.status_code == 413
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/health/live"])
@on_loop
async def test_the_server_is_no_secret(tmp_path, path):
    plant = Plant(tmp_path)

    answer = await plant.ask(path, method="GET", headers=NOBODY)

    assert answer.status_code == 200
    if path != "/v2/health/live":
        assert answer.json()["name"] == "modelyard"
        assert "binary_tensor_data" in answer.json()["extensions"]


@pytest.mark.parametrize(
    "path", ["/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/versions/1/ready"]
)
@on_loop
async def test_readiness_is_that_of_the_engine(tmp_path, path):
    plant = Plant(tmp_path)
    before = await plant.ask(path, method="GET")
    await plant.engines.ask()

    after = await plant.ask(path, method="GET")

    assert (before.status_code, before.json()["ready"]) == (503, False)
    assert (after.status_code, after.json()["ready"]) == (200, True)


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/versions/1"])
@on_loop
async def test_metadata_describes_inputs_and_outputs(tmp_path, path):
    plant = Plant(tmp_path)
    before = await plant.ask(path, method="GET")
    await plant.engines.ask()

    answer = await plant.ask(path, method="GET")

    # Outputs are known only once a model was loaded.
    assert before.json()["outputs"] == []
    assert answer.json() == {
        "name": "m",
        "versions": ["1"],
        "platform": "modelyard_engine",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 1]}],
    }


@on_loop
async def test_index_lists_what_the_key_may_call(tmp_path):
    plant = Plant(tmp_path)
    await plant.engines.ask()

    answer = await plant.ask("/v2/repository/index", b"{}")

    assert answer.json() == [
        {"name": "m", "version": "1", "state": "READY", "reason": ""}
    ]


@pytest.mark.parametrize(
    ("method", "path", "known", "status"),
    [
        ("GET", "/v2/models/m", False, 401),
        ("GET", "/v2/models/m/ready", False, 401),
        ("POST", "/v2/repository/index", False, 401),
        ("GET", "/v2/models/other", True, 404),
        ("GET", "/v2/models/other/ready", True, 404),
        ("GET", "/v2/models/m/versions/7", True, 404),
        ("GET", "/v2/models/m/nothing", True, 404),
        ("GET", "/v2/nothing", True, 404),
        ("GET", INFER, True, 405),
        ("DELETE", "/v2/models/m", True, 405),
        ("GET", "/v2/../internal/leases", True, 404),
    ],
)
@on_loop
async def test_what_is_not_there_is_said_in_the_protocol(
    tmp_path, method, path, known, status
):
    plant = Plant(tmp_path)

    token = KEY.token if known else "nobody"
    answer = await plant.ask(
        path, b"", method=method, headers={"authorization": f"Bearer {token}"}
    )

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert plant.site.requests == []


@on_loop
async def test_models_that_a_key_may_not_call_are_not_there(tmp_path):
    plant = Plant(tmp_path)
    snapshot = plant.tables.as_snapshot()
    key = published().keys[0]
    narrow = msgspec.structs.replace(key, models=("others",))
    plant.tables.replace(msgspec.structs.replace(snapshot, keys=(narrow,)))

    statuses = [
        (await plant.ask("/v2/models/m", method="GET")).status_code,
        (await plant.ask("/v2/models/m/ready", method="GET")).status_code,
        (await infer(plant)).status_code,
    ]
    index = await plant.ask("/v2/repository/index", b"")

    assert statuses == [404, 404, 404]
    assert index.json() == []


FACTS = [
    ("GET", "/v2/models/m"),
    ("GET", "/v2/models/m/ready"),
    ("POST", "/v2/repository/index"),
]


@pytest.mark.parametrize(("method", "path"), FACTS)
@on_loop
async def test_facts_are_asked_for_within_the_rates(tmp_path, method, path):
    plant = Plant(tmp_path, limits=Limits(plan="p", rates=(Rate("burst", 2, 60),)))
    await plant.engines.ask()

    first = await plant.ask(path, b"", method=method)
    left = first.headers["x-ratelimit-remaining"]
    second = await plant.ask(path, b"", method=method)
    third = await plant.ask(path, b"", method=method)

    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert (left, second.headers["x-ratelimit-remaining"]) == ("1", "0")
    assert third.headers["ratelimit"].startswith('"burst";r=0')
    assert int(third.headers["retry-after"]) > 0
    # Predictions count against the same rates.
    assert (await infer(plant)).status_code == 429
    plant.clock.advance(60)
    assert (await infer(plant)).status_code == 200


@pytest.mark.parametrize(("method", "path"), FACTS)
@on_loop
async def test_facts_need_a_scope_and_no_key_in_the_address(tmp_path, method, path):
    plant = Plant(tmp_path)
    in_query = await plant.ask(f"{path}?api_key={KEY.token}", b"", method=method)
    snapshot = plant.tables.as_snapshot()
    key = published().keys[0]
    narrow = msgspec.structs.replace(key, scopes=("usage",))
    plant.tables.replace(msgspec.structs.replace(snapshot, keys=(narrow,)))

    narrowed = await plant.ask(path, b"", method=method)

    assert in_query.status_code == 401
    assert "do not belong in URLs" in in_query.json()["error"]
    assert narrowed.status_code == 403
    assert "models:read" in narrowed.json()["error"]
    assert "ratelimit" in narrowed.headers


ENDING = Ending(999_960.0, 1_000_080.0, "Use n.")
TOLD = {
    "deprecation": "@999960",
    "sunset": "Mon, 12 Jan 1970 13:48:00 GMT",
    "link": '</docs/?model=m>; rel="deprecation"; type="text/html"',
}


def end(plant, *, of_model=None, of_version=None):
    whole = plant.tables.as_snapshot()
    [model] = whole.models
    [version] = model.versions
    version = msgspec.structs.replace(version, ending=of_version)
    model = msgspec.structs.replace(model, versions=(version,), ending=of_model)
    plant.tables.replace(msgspec.structs.replace(whole, sequence=2, models=(model,)))


@pytest.mark.parametrize(
    ("ends", "path", "told"),
    [
        ({"of_model": ENDING}, "/v2/models/m", TOLD),
        ({"of_model": ENDING}, "/v2/models/m/ready", TOLD),
        ({"of_version": ENDING}, "/v2/models/m/versions/1", TOLD),
        ({"of_version": ENDING}, "/v2/models/m/versions/1/ready", TOLD),
        ({"of_version": ENDING}, "/v2/models/m", {}),
        ({"of_model": ENDING}, "/v2", {}),
    ],
)
@on_loop
async def test_metadata_tells_the_end(tmp_path, ends, path, told):
    plant = Plant(tmp_path)
    end(plant, **ends)

    answer = await plant.ask(path, method="GET")

    assert {name: answer.headers[name] for name in TOLD if name in answer.headers} == (
        told
    )
