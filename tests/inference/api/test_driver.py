"""The synchronous driver records usage before it answers, and releases everything."""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import django.db
import numpy as np
import pytest
import structlog
from django.utils import timezone

from accounts.metering import spool
from inference.api.driver import ApiDriver
from inference.controller import publishing
from inference.dialects import call_headers
from inference.dialects.dialect import Call
from inference.dialects.native.event_stream import EVENT_STREAM
from inference.dialects.native.native import NATIVE
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Prediction, Tensor
from inference.models import Engine, LoadedVersion, ServingRoute
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.factories_registry import RouteFactory

pytestmark = pytest.mark.django_db

BODY = json.dumps({"instances": [[1.0, 2.0]]}).encode()


class FakePredictingEngine:
    """An engine that answers each row with the same scores, or fails when told to."""

    def __init__(self, failure=None):
        self.failure = failure
        self.calls = 0
        # For streams: the error after the first chunk, and whether it was closed.
        self.fails_later = None
        self.closed = False

    def predict(self, call):
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        scores = np.full((len(call.tensors[0].data), 2), 0.5, dtype="float32")
        return Prediction((Tensor("output", scores),), 1, 1, 1)

    def stream(self, call):
        if self.failure is not None:
            raise self.failure
        try:
            yield "a"
            if self.fails_later is not None:
                raise self.fails_later
            yield "b"
        finally:
            self.closed = True

    def close(self):
        pass


class Plant:
    def __init__(self, home, engines):
        self.home = home
        self.driver = ApiDriver(home, make_client=lambda path: engines[path.name])

    def publish(self, **plan):
        route = RouteFactory()
        self.model = route.registered_model.name
        ServingRoute.objects.create(
            model=self.model, default_version=route.default_version.version
        )
        for name in "ab":
            LoadedVersion.objects.create(
                engine=Engine.objects.create(name=name, address=f"/{name}"),
                model=self.model,
                version=route.default_version.version,
                state=LoadedVersion.State.LOADING,
            )
        self.token = issue_key(
            CustomerFactory(
                plan=PlanFactory(
                    burst_requests=100_000, sustained_requests=100_000, **plan
                )
            )
        ).token
        publishing.mark_changed()
        publishing.publish(now=timezone.now())

    def call(self, body=BODY):
        call = Call(
            dialect=NATIVE,
            operation="predict",
            head=call_headers.Head(token=self.token.encode()),
            model=self.model,
        )
        return self.driver.answer(call, lambda limit: body)

    def stream(self):
        call = Call(
            dialect=EVENT_STREAM,
            operation="stream",
            head=call_headers.Head(token=self.token.encode()),
            model=self.model,
        )
        return self.driver.stream(call, lambda limit: BODY)

    def events(self):
        return [
            event
            for path in self.home.spool.glob("*.spool")
            for event, _ in spool.read_events(path)
        ]


@pytest.fixture
def engines():
    return {"a": FakePredictingEngine(), "b": FakePredictingEngine()}


@pytest.fixture
def plant(home, engines):
    plant = Plant(home, engines)
    yield plant
    plant.driver.close()


def code_of(answer):
    return json.loads(answer.body)["error"]["code"]


def test_every_answer_has_its_event_when_it_leaves(plant):
    plant.publish()

    answer = plant.call()

    assert answer.status == 200
    (event,) = plant.events()
    assert event.request_id == json.loads(answer.body)["request_id"]
    assert event.charged


def test_a_refusal_has_its_event_too_and_is_not_charged(plant):
    plant.publish()

    answer = plant.call(b"{")

    (event,) = plant.events()
    assert (answer.status, event.status, event.charged) == (400, 400, False)


def test_what_cannot_be_recorded_is_not_answered(plant):
    plant.publish()
    plant.home.spool.rmdir()

    answer = plant.call()

    assert (answer.status, code_of(answer)) == (503, "OVERLOADED")


def test_without_the_database_the_quota_cannot_be_checked(plant, monkeypatch):
    plant.publish(daily_quota=10)

    def outage(holder, request, **_):
        raise django.db.OperationalError("gone")

    monkeypatch.setattr("inference.api.driver.leases", SimpleNamespace(grant=outage))
    answer = plant.call()

    assert (answer.status, code_of(answer)) == (503, "OVERLOADED")
    assert int(dict(answer.headers)[b"retry-after"]) > 0


@pytest.mark.parametrize(
    "failure", [EngineErrorCode.CONNECTION_LOST, EngineErrorCode.LOAD_FAILED]
)
def test_another_engine_answers_what_the_first_cannot(plant, engines, failure):
    plant.publish()
    engines["a"].failure = EngineError(failure, "gone")

    assert plant.call().status == 200
    assert engines["b"].calls == 1


def test_an_input_that_breaks_the_model_is_not_tried_elsewhere(plant, engines):
    plant.publish()
    engines["a"].failure = EngineError(EngineErrorCode.MODEL_ERROR, "secret path")

    with structlog.testing.capture_logs() as logged:
        answer = plant.call()

    assert code_of(answer) == "MODEL_ERROR"
    assert b"secret" not in answer.body
    assert engines["b"].calls == 0
    [failed] = [one for one in logged if one["event"] == "model_failed"]
    assert failed["request_id"].encode() in answer.body
    assert failed["reason"] == "secret path"
    assert failed["version"].startswith("model-")


def test_an_unforeseen_failure_gives_back_what_the_call_held(plant, engines):
    plant.publish(max_concurrency=1)
    for engine in engines.values():
        engine.failure = RuntimeError("a bug")

    for _ in range(3):
        with pytest.raises(RuntimeError):
            plant.call()
    for engine in engines.values():
        engine.failure = None

    assert plant.call().status == 200


def test_a_new_snapshot_is_taken_up_by_the_next_call(plant):
    plant.publish()
    assert plant.call().status == 200

    ServingRoute.objects.all().delete()
    publishing.mark_changed()
    publishing.publish(now=timezone.now())

    assert code_of(plant.call()) == "MODEL_UNAVAILABLE"


def test_a_corrupt_snapshot_leaves_the_last_good_one_in_use(plant, home):
    plant.publish()
    assert plant.call().status == 200

    home.snapshot.write_bytes(b"MYSNAP01 nonsense")

    assert plant.call().status == 200


@pytest.mark.django_db(transaction=True)
def test_threads_spend_a_quota_exactly(plant):
    plant.publish(daily_quota=20, quota_unit="requests")

    def call(_):
        try:
            return plant.call().status
        finally:
            django.db.connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(call, range(40)))

    assert statuses.count(200) == 20
    assert statuses.count(429) == 20
    assert sum(event.charged for event in plant.events()) == 20


def test_a_stream_is_recorded_before_its_last_piece(plant, engines):
    plant.publish()

    streamed = plant.stream()
    first, second = next(streamed.pieces), next(streamed.pieces)
    assert plant.events() == []
    last = next(streamed.pieces)

    assert (b'"a"' in first, b'"b"' in second) == (True, True)
    assert last.startswith(b"event: end")
    assert [(event.status, event.charged) for event in plant.events()] == [(200, True)]
    assert list(streamed.pieces) == []


def test_another_engine_streams_what_the_first_cannot(plant, engines):
    plant.publish()
    engines["a"].failure = EngineError(EngineErrorCode.LOADING, "loading")

    assert b'"a"' in next(plant.stream().pieces)


def test_a_stream_that_fails_late_ends_with_an_error(plant, engines):
    plant.publish()
    for engine in engines.values():
        engine.fails_later = EngineError(EngineErrorCode.MODEL_ERROR, "secret")

    with structlog.testing.capture_logs() as logged:
        _, last = plant.stream().pieces

    assert last.startswith(b'event: error\ndata: {"error":{"code":"MODEL_ERROR"')
    assert b"secret" not in last
    [failed] = [one for one in logged if one["event"] == "model_failed"]
    assert failed["request_id"].encode() in last
    assert [(event.status, event.charged) for event in plant.events()] == [(500, False)]


def test_a_stream_whose_client_leaves_is_recorded_and_tidied_up(plant, engines):
    plant.publish()
    streamed = plant.stream()
    next(streamed.pieces)

    streamed.pieces.close()

    assert [(event.status, event.code) for event in plant.events()] == [
        (499, "CLIENT_LEFT")
    ]
    assert any(engine.closed for engine in engines.values())


def test_a_stream_that_cannot_begin_is_refused_with_a_status(plant, engines):
    plant.publish()
    for engine in engines.values():
        engine.failure = EngineError(EngineErrorCode.BAD_REQUEST, "does not stream")

    answer = plant.stream()

    assert answer.status == 400
    assert b"Call predict" in answer.body
