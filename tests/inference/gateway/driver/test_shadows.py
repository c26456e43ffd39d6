"""Copies of answered calls: which there are, and what becomes of them."""

import asyncio
import json
import time

import msgspec
import numpy as np
import pytest

from accounts.metering import spool
from accounts.metering.comparison import ComparedCalls
from inference.engine.signatures.signature import Column
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import VersionKey
from inference.engine.wire.tensors import Prediction, Tensor
from inference.gateway.metrics.calls import MetricsState
from inference.installation import example_files
from inference.snapshot.contents import CallableVersion, Shadow
from tests.inference.gateway.grpc.test_service import outputs, serving
from tests.inference.gateway.plant import (
    GOOD,
    PREDICT,
    SIGNATURE,
    FakeEngine,
    Plant,
    published,
)
from tests.waiting import until

SHADOW = VersionKey("m", 2)


class BothVersions(FakeEngine):
    """Double the input; as the shadow multiply by `factor`, fail, or stay silent."""

    connected = True

    def __init__(self, name="cpu"):
        super().__init__(name)
        self.factor = 2
        self.refuses = None
        self.silent = False
        self.copies = []

    def begin(self, call, waiter):
        is_copy = call.key == SHADOW
        if is_copy:
            self.copies.append(call)
            if self.silent:
                return
        loop = asyncio.get_running_loop()
        if is_copy and self.refuses is not None:
            loop.call_soon(waiter.fail, EngineError(self.refuses, "no"))
            return
        data = np.asarray(call.tensors[0].data) * (self.factor if is_copy else 2)
        answer = Prediction((Tensor("output", data),), 1, 2, len(data))
        loop.call_soon(waiter.resume, answer)


def plant_with(tmp_path, *, percent=100, keeps=False, signature=SIGNATURE, **given):
    plant = Plant(tmp_path, connect=BothVersions, **given)
    snapshot = published()
    model = snapshot.models[0]
    other = CallableVersion(version=2, signature=signature, engines=("cpu",))
    shadow = Shadow(2, percent, keeps_examples=keeps)
    model = msgspec.structs.replace(
        model, versions=(*model.versions, other), shadow=shadow
    )
    plant.tables.replace(msgspec.structs.replace(snapshot, models=(model,)))
    # This machine may be busy with other tests.
    plant.driver.shadows.late_s = 60.0
    return plant


def outcomes(plant):
    """Return how many copies had each outcome."""
    return {
        outcome: calls
        for (_, _, outcome), calls in plant.driver.shadows.counts.calls.items()
    }


async def settle(plant, copies):
    await until(lambda: sum(outcomes(plant).values()) == copies)


def compared(plant):
    plant.driver.shadows.flush()
    return [
        found
        for path in sorted(plant.folder.glob("*.spool"))
        for found, _ in spool.read(path)
        if isinstance(found, ComparedCalls)
    ]


def run(work):
    return asyncio.run(work)


def test_an_answered_call_is_copied_at_the_priority_of_jobs_and_compared(tmp_path):
    async def work():
        plant = plant_with(tmp_path)
        plant.engine.factor = 4
        answer = await plant.ask()
        await settle(plant, 1)
        return plant, answer

    plant, answer = run(work())

    # The caller's answer is the default's.
    assert answer.json()["predictions"] == [3.0]
    assert answer.headers["x-model-version"] == "1"
    [copy] = plant.engine.copies
    assert (copy.priority, copy.customer_id) == ("job", 0)
    assert copy.tensors[0].data.tolist() == [[1.5]]
    assert outcomes(plant) == {"changed": 1}
    [found] = compared(plant)
    assert (found.customer_id, found.model) == (7, "m")
    assert (found.default, found.shadow) == (1, 2)
    assert (found.calls, found.failed, found.changed) == (1, 0, 1.0)
    assert (found.rows, found.changed_rows, found.distance) == (1, 1, 0.5)


def test_a_copy_is_no_usage(tmp_path):
    async def work():
        plant = plant_with(tmp_path)
        await plant.ask()
        await settle(plant, 1)
        return plant

    plant = run(work())

    assert len(compared(plant)) == 1
    [event] = plant.events()
    assert (event.version, event.rows, event.charged) == ("1", 1, True)


def test_calls_of_one_key_are_added_up(tmp_path):
    async def work():
        plant = plant_with(tmp_path)
        for _ in range(3):
            await plant.ask()
        await settle(plant, 3)
        plant.engine.factor = 4
        await plant.ask()
        await settle(plant, 4)
        return plant

    [found] = compared(run(work()))

    assert (found.calls, found.changed, found.changed_rows) == (4, 1.0, 1)


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        # Named by the caller, and answered by the other version.
        ("/api/v1/models/m/versions/2/predict", GOOD, {}),
        ("/api/v1/models/m/embed", {"input": [{"x": 1.5}]}, {}),
        # Refused.
        (PREDICT, {"instances": [{"y": 1}]}, {}),
    ],
)
def test_only_predictions_of_the_default_are_copied(tmp_path, path, content, headers):
    async def work():
        plant = plant_with(tmp_path)
        await plant.ask(path, json.dumps(content).encode(), headers=headers)
        await asyncio.sleep(0.05)
        return plant

    plant = run(work())

    assert {call.priority for call in plant.engine.copies} <= {"interactive"}
    assert outcomes(plant) == {}


def test_only_the_share_of_the_route_is_copied(tmp_path):
    async def work():
        plant = plant_with(tmp_path, percent=50, limits=None)
        for _ in range(200):
            await plant.ask()
        await asyncio.sleep(0.1)
        return plant

    # The chance of fewer or more is below 1 in 10,000.
    assert 70 <= len(run(work()).engine.copies) <= 130


@pytest.mark.parametrize(
    ("code", "outcome", "failed"),
    [
        (EngineErrorCode.MODEL_ERROR, "failed", 1),
        (EngineErrorCode.BAD_REQUEST, "failed", 1),
        (EngineErrorCode.OVERLOADED, "unanswered", 0),
        (EngineErrorCode.DIED, "unanswered", 0),
    ],
)
def test_only_errors_of_the_version_itself_say_something(
    tmp_path, code, outcome, failed
):
    async def work():
        plant = plant_with(tmp_path)
        plant.engine.refuses = code
        answer = await plant.ask()
        assert answer.status_code == 200
        await settle(plant, 1)
        return plant

    plant = run(work())

    assert outcomes(plant) == {outcome: 1}
    found = compared(plant)
    assert [(it.failed, it.changed) for it in found] == [(1, 1.0)] * failed


def test_what_only_the_shadow_refuses_is_an_error_of_the_shadow(tmp_path):
    needs_more = msgspec.structs.replace(
        SIGNATURE, columns=(Column(name="x"), Column(name="z")), shape=(2,)
    )

    async def work():
        plant = plant_with(tmp_path, signature=needs_more)
        await plant.ask()
        await settle(plant, 1)
        return plant

    plant = run(work())

    assert outcomes(plant) == {"failed": 1}
    assert plant.engine.copies == []


@pytest.mark.parametrize(
    ("content", "answered"),
    [
        ([{"x": 1.5}, {"x": 2.5}], 2),
        # The default answers the first row only.
        ([{"x": 1.5}, {"x": "bad"}], 1),
    ],
)
def test_a_batch_with_errors_of_single_rows_is_no_error_of_the_shadow(
    tmp_path, content, answered
):
    needs_more = msgspec.structs.replace(
        SIGNATURE, columns=(Column(name="x"), Column(name="z")), shape=(2,)
    )
    body = {"instances": content, "options": {"return_errors": "individual"}}

    async def work():
        plant = plant_with(tmp_path, signature=needs_more)
        path = "/api/v1/models/m/predict/batch"
        answer = await plant.ask(path, json.dumps(body).encode())
        await settle(plant, 1)
        return plant, answer

    plant, answer = run(work())

    assert answer.status_code in (200, 207), answer.text
    [event] = plant.events()
    assert event.rows == answered
    assert outcomes(plant) == {"unread": 1}
    assert compared(plant) == []


def place_is_free(plant):
    """Return whether a shadow's places are all free."""
    shadows = plant.driver.shadows
    return (shadows._held, shadows._held_bytes) == (0, 0)


@pytest.mark.parametrize("breaks", ["_add", "_keep_example"])
def test_a_copy_that_cannot_be_finished_gives_its_place_back(
    tmp_path, monkeypatch, breaks
):
    def fails(*args, **named):
        raise ValueError("broken")

    async def work():
        plant = plant_with(tmp_path, keeps=True, examples=tmp_path / "examples")
        plant.engine.factor = 4
        monkeypatch.setattr(plant.driver.shadows, breaks, fails)
        for _ in range(6):
            assert (await plant.ask()).status_code == 200
        await settle(plant, 6)
        return plant

    plant = run(work())

    assert outcomes(plant) == {"unread": 6}
    assert place_is_free(plant)


def test_a_copy_that_cannot_be_sent_gives_its_place_back(tmp_path, monkeypatch):
    def fails(*args):
        raise ValueError("broken")

    async def work():
        plant = plant_with(tmp_path)
        monkeypatch.setattr(plant.engines, "begin_at_once", fails)
        for _ in range(6):
            assert (await plant.ask()).status_code == 200
        await settle(plant, 6)
        return plant

    plant = run(work())

    assert outcomes(plant) == {"unread": 6}
    assert place_is_free(plant)


def test_an_answer_leaves_though_its_copy_cannot_be_taken(tmp_path, monkeypatch):
    def fails(copy):
        raise ValueError("broken")

    async def work():
        plant = plant_with(tmp_path)
        monkeypatch.setattr(plant.driver.shadows, "offer", fails)
        return await asyncio.gather(*(plant.ask() for _ in range(4)))

    assert [answer.status_code for answer in run(work())] == [200] * 4


@pytest.mark.parametrize("reads_same", [True, False])
def test_calls_of_grpc_are_copied_and_are_no_examples(tmp_path, reads_same):
    folder = tmp_path / "examples"
    signature = SIGNATURE
    if not reads_same:
        column = Column(name="x", maximum=100.0)
        signature = msgspec.structs.replace(SIGNATURE, columns=(column,))

    async def work():
        plant = plant_with(tmp_path, keeps=True, examples=folder, signature=signature)
        assert plant.tables.models["m"].shadow.reads_same is reads_same
        plant.engine.factor = 4
        async with serving(plant) as client:
            # All events of one turn are written at once.
            answers = await asyncio.gather(*(client.infer() for _ in range(8)))
        await settle(plant, 8)
        return plant, answers

    plant, answers = run(work())

    assert [outputs(answer) for answer in answers] == [[[[3.0]]]] * 8
    assert outcomes(plant) == {"changed": 8}
    assert list(example_files.read(folder)) == []
    assert place_is_free(plant)


@pytest.mark.parametrize(("value", "kept"), [(b"\0\0\0@", 0), (b"AAAA", 1)])
def test_a_body_with_nul_is_no_example(tmp_path, value, kept):
    folder = tmp_path / "examples"
    tensor = {
        "name": "input",
        "datatype": "FP32",
        "shape": [1, 1],
        "parameters": {"binary_data_size": 4},
    }
    head = json.dumps({"inputs": [tensor]}).encode()

    async def work():
        plant = plant_with(tmp_path, keeps=True, examples=folder)
        plant.engine.factor = 4
        sizes = {"inference-header-content-length": str(len(head))}
        answer = await plant.ask("/v2/models/m/infer", head + value, headers=sizes)
        assert answer.status_code == 200, answer.text
        await settle(plant, 1)
        return plant

    assert outcomes(run(work())) == {"changed": 1}
    assert len(list(example_files.read(folder))) == kept


def test_the_number_of_copies_under_way_is_bounded(tmp_path):
    async def work():
        plant = plant_with(tmp_path)
        plant.engine.silent = True
        for _ in range(70):
            assert (await plant.ask()).status_code == 200
        await settle(plant, 6)
        return plant

    plant = run(work())

    assert len(plant.engine.copies) == 64
    assert outcomes(plant) == {"full": 6}


def test_copies_are_dropped_first_when_the_loop_is_late(tmp_path):
    async def work():
        plant = plant_with(tmp_path)
        shadows = plant.driver.shadows
        shadows.late_s = 0.01
        copies = []
        offer, shadows.offer = shadows.offer, copies.append
        await plant.ask()
        offer(copies[0])
        time.sleep(0.02)
        await settle(plant, 1)
        return plant

    plant = run(work())

    assert plant.engine.copies == []
    assert outcomes(plant) == {"busy": 1}


def test_a_gateway_reports_what_came_of_copies(tmp_path):
    async def work():
        plant = plant_with(tmp_path)
        await plant.ask()
        await settle(plant, 1)
        return plant

    state = run(work()).metrics.state()

    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=MetricsState)
    assert sent.shadows.calls == {("m", "2", "same"): 1}
    assert sent.shadows.rows == {("m", "2"): 1}


@pytest.mark.parametrize(("keeps", "kept"), [(True, 1), (False, 0)])
def test_examples_are_kept_only_if_the_route_allows_it(tmp_path, keeps, kept):
    folder = tmp_path / "examples"

    async def work():
        plant = plant_with(tmp_path, keeps=keeps, examples=folder)
        await plant.ask()
        await settle(plant, 1)
        plant.engine.factor = 4
        # One a second.
        await plant.ask()
        await plant.ask()
        await settle(plant, 3)

    run(work())

    found = [example for _, example in example_files.read(folder)]
    assert len(found) == kept
    for example in found:
        assert (example.customer_id, example.model) == (7, "m")
        assert json.loads(example.body) == GOOD
        assert json.loads(example.default_answer) == [3.0]
        assert json.loads(example.shadow_answer) == [6.0]


def test_without_a_shadow_nothing_is_copied(tmp_path):
    async def work():
        plant = plant_with(tmp_path, percent=0)
        plant.tables.replace(published())
        await plant.ask()
        await asyncio.sleep(0.05)
        return plant

    plant = run(work())

    assert plant.engine.copies == []
    assert compared(plant) == []
