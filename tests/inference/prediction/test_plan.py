"""Test the plan, driven by hand without an event loop or sockets."""

import json

import msgspec
import numpy as np
import pytest

from accounts.admission import key_format
from accounts.admission.limits import LeaseGrant, Limits, Quota, Rate
from inference.dialects import call_headers
from inference.dialects.dialect import Call
from inference.dialects.native.native import NATIVE
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    Attribution,
    Explained,
    Explanation,
    VersionKey,
)
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors.api_error import ApiError, ErrorCode
from inference.prediction.effects import (
    Answer,
    EngineCall,
    ExplainCall,
    NeedBody,
    NeedUnits,
)
from inference.prediction.plan import PredictionPlan
from inference.snapshot.contents import (
    AccessCustomer,
    AccessKey,
    CallableModel,
    CallableVersion,
    EndedKey,
    Snapshot,
)
from inference.snapshot.tables import Tables
from registry.routing import Variant
from tests.fakes import ManualClock

KEY = key_format.generate("live")
ENDED = key_format.generate("live")
SIGNATURE = Signature(
    layout=Layout.MATRIX,
    columns=(Column(name="mean radius", minimum=0), Column(name="area")),
    shape=(2,),
    task=Task.CLASSIFICATION,
    labels=("malignant", "benign"),
)
GOOD = {"instances": [{"mean radius": 1.5, "area": 2}]}
EXPLAINED = Explained(
    id=1,
    explanations=(
        Explanation(
            method="gradient",
            level="simple",
            base_value=0.4,
            target="benign",
            samples=20,
            features=(Attribution("area", 2.0, 0.3),),
            additivity_residual=0.0,
        ),
    ),
    compute_us=70,
    samples=20,
    svg="<svg/>",
)


def snapshot(
    *,
    limits=None,
    scopes=("predict", "explain"),
    models=(),
    canary_percent=0,
    **changes,
):
    """Make a snapshot: `cancer` (default 2, canary 3), `secret` (unserved).

    Who gets the canary is left to chance, so only some tests want one with a weight.
    """
    version = CallableVersion(
        version=2, signature=SIGNATURE, aliases=("champion",), engines=("cpu",)
    )
    fields = {
        "sequence": 1,
        "published_at": 0.0,
        "models": (
            CallableModel(
                name="cancer",
                versions=(
                    version,
                    CallableVersion(version=3, signature=SIGNATURE, engines=("two",)),
                    CallableVersion(version=1, signature=SIGNATURE),
                ),
                variants=(
                    Variant(
                        version=2, role="default", weight_percent=100 - canary_percent
                    ),
                    Variant(version=3, role="canary", weight_percent=canary_percent),
                ),
            ),
            CallableModel(name="secret", versions=(version,)),
        ),
        "keys": (
            AccessKey(
                key_id=KEY.key_id,
                digest=KEY.digest,
                customer_id=7,
                scopes=scopes,
                models=models,
            ),
        ),
        "customers": (
            AccessCustomer(
                customer_id=7,
                limits=limits
                or Limits(
                    plan="p", rates=(Rate("burst", 1000, 1),), max_predict_rows=3
                ),
            ),
        ),
        "site_default_model": "cancer",
    }
    return Snapshot(**(fields | changes))


class Driver:
    """A driver that answers the plan's effects and keeps them."""

    def __init__(self, published=None, *, clock=None):
        self.clock = clock or ManualClock(1_000_000.0)
        self.tables = Tables(published or snapshot())
        self.plan = PredictionPlan(
            self.tables, boot_id="b", clock=self.clock, timer=self.clock
        )
        self.scores = [[0.25, 0.75]]
        # If set, these replace the scores.
        self.outputs = None
        self.failure = None
        self.grants = []
        self.effects = []

    def call(self, body=GOOD, *, headers=(), key=KEY.token, **call):
        sent = {b"authorization": b"Bearer " + key.encode()} if key else {}
        call = {"operation": "predict", "model": "cancer", "dialect": NATIVE} | call
        given = sent | dict(headers)
        steps = self.plan.steps(Call(head=call_headers.read(given.items()), **call))
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            effect = next(steps)
            while True:
                self.effects.append(effect)
                try:
                    value = self.perform(effect)
                except (ApiError, EngineError) as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(value)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer

    def perform(self, effect):
        match effect:
            case NeedBody():
                return self.body
            case NeedUnits():
                return self.grants.pop(0)
            case EngineCall():
                if self.failure:
                    raise self.failure
                rows = len(effect.tensors[0].data)
                if self.outputs is not None:
                    return Prediction(self.outputs, 10, 50, rows)
                scores = np.array((self.scores * rows)[:rows], np.float32)
                return Prediction((Tensor("output", scores),), 10, 50, rows)
            case ExplainCall():
                return EXPLAINED
        raise AssertionError(effect)


def read(answer):
    return json.loads(answer.body)


def code(answer):
    return answer.status, read(answer)["error"]["code"]


def test_prediction_names_model_version_variant_and_request():
    answer = Driver().call(headers={b"x-request-id": b"mine-1"})

    assert answer.status == 200
    assert read(answer) == {
        "predictions": [{"label": "benign", "score": 0.75, "low_confidence": False}],
        "model": {
            "name": "cancer",
            "version": "2",
            "variant": "default",
            "alias": "champion",
        },
        "request_id": "mine-1",
    }
    headers = dict(answer.headers)
    assert headers[b"x-request-id"] == b"mine-1"
    assert headers[b"x-model-version"] == b"2"
    assert headers[b"X-RateLimit-Remaining"] == b"999"
    assert headers[b"server-timing"].startswith(b"queue;dur=0.01, model;dur=0.05")


def test_answer_has_one_event_that_charges_its_rows():
    answer = Driver().call({"instances": GOOD["instances"] * 3})

    event = answer.event
    assert (event.customer_id, event.key_id) == (7, KEY.key_id)
    assert (event.status, event.code, event.rows, event.charged) == (200, "", 3, True)
    assert (event.model, event.version, event.variant) == ("cancer", "2", "default")


def test_engines_are_told_whose_rows_they_get():
    driver = Driver()
    driver.call()

    calls = [one for one in driver.effects if isinstance(one, EngineCall)]
    assert [one.customer_id for one in calls] == [7]


def test_engines_are_told_the_id_that_the_caller_gets():
    driver = Driver()
    answer = driver.call()

    calls = [one for one in driver.effects if isinstance(one, EngineCall)]
    assert [one.request_id.encode() for one in calls] == [
        dict(answer.headers)[b"x-request-id"]
    ]


def test_a_full_share_is_told_from_a_full_engine():
    messages = []
    for of_customer in (False, True):
        error = EngineError(
            EngineErrorCode.OVERLOADED, "", retry_after_ms=1500, of_customer=of_customer
        )
        driver = Driver()
        driver.failure = error
        answer = driver.call()
        assert answer.status == 503
        assert dict(answer.headers)[b"retry-after"] == b"2"
        messages.append(json.loads(answer.body)["error"]["message"])

    assert messages == [
        "The queue of this model is full. Try again.",
        "Your share of this model's queue is full; the rest is for other "
        "customers. Wait for answers, or send less at once.",
    ]


def test_event_id_is_never_the_callers_own():
    answer = Driver().call(headers={b"x-request-id": b"mine"})

    assert answer.event.id == "b-1"
    assert answer.event.request_id == "mine"


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b"\xff", b'a"'])
def test_unreadable_request_ids_are_replaced(given):
    answer = Driver().call(headers={b"x-request-id": given})

    assert read(answer)["request_id"].startswith("req_b")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "missing"),
        ("nonsense", "malformed"),
        (KEY.token[:-1] + ("a" if KEY.token[-1] != "a" else "b"), "malformed"),
        (key_format.generate("live").token, None),
        # Only the holder of the whole key learns why it ended.
        (ENDED.token[:17] + key_format.generate("live").token[17:], "malformed"),
        (ENDED.token, "revoked"),
    ],
    ids=["no key", "nonsense", "mistyped", "unknown", "half of one", "revoked"],
)
def test_call_without_a_known_key_is_told_why_and_leaves_no_event(key, reason):
    ended = (EndedKey(ENDED.digest, "revoked"),)

    answer = Driver(snapshot(ended_keys=ended)).call(key=key)

    assert code(answer) == (401, "UNAUTHENTICATED")
    assert read(answer)["error"].get("reason") == reason
    assert dict(answer.headers)[b"www-authenticate"].startswith(b"Bearer")
    assert answer.event is None


def test_a_refusal_predicts_no_rows_and_keeps_what_was_said():
    driver = Driver()
    driver.failure = EngineError(EngineErrorCode.OVERLOADED, "full")

    answer = driver.call()

    assert answer.status == 503
    assert answer.event.rows == 0
    assert answer.event.message == read(answer)["error"]["message"]


def test_key_may_come_as_x_api_key():
    answer = Driver().call(key="", headers={b"x-api-key": KEY.token.encode()})

    assert answer.status == 200


def test_expired_key_is_refused():
    key = AccessKey(
        key_id=KEY.key_id,
        digest=KEY.digest,
        customer_id=7,
        scopes=("predict",),
        expires_at=1_000_000.0,
    )

    answer = Driver(snapshot(keys=(key,))).call()

    assert code(answer) == (401, "UNAUTHENTICATED")
    assert read(answer)["error"]["reason"] == "expired"


def test_missing_scope_is_forbidden():
    driver = Driver(snapshot(scopes=("predict",)))

    assert driver.call().status == 200
    assert code(driver.call(operation="explain")) == (403, "FORBIDDEN")
    assert code(driver.call(explain=True)) == (403, "FORBIDDEN")


def test_hidden_and_unknown_models_look_the_same():
    driver = Driver(snapshot(models=("cancer",)))

    hidden, unknown = driver.call(model="secret"), driver.call(model="nothing")

    assert code(hidden) == code(unknown) == (404, "NOT_FOUND")
    assert read(hidden)["error"]["message"] == read(unknown)["error"]["message"]
    assert hidden.event.status == 404
    assert not hidden.event.charged


def test_canary_answers_exactly_its_share():
    driver = Driver(snapshot(canary_percent=10))

    versions = [dict(driver.call().headers)[b"x-model-version"] for _ in range(100)]

    assert versions.count(b"3") == 10


def test_share_stays_exact_over_a_new_snapshot():
    driver = Driver(snapshot(canary_percent=10))

    versions = []
    for sequence in range(100):
        published = snapshot(canary_percent=10, sequence=sequence)
        driver.tables.replace(published)
        versions.append(dict(driver.call().headers)[b"x-model-version"])

    assert versions.count(b"3") == 10


def test_sticky_key_always_gets_the_same_variant():
    driver = Driver(snapshot(canary_percent=50))

    versions = {
        dict(driver.call(headers={b"x-sticky-key": b"u7"}).headers)[b"x-model-version"]
        for _ in range(50)
    }

    assert len(versions) == 1


@pytest.mark.parametrize(
    ("call", "version"),
    [
        ({"version": "3"}, "3"),
        ({"version": "champion"}, "2"),
        ({"headers": {b"x-model-version": b"1"}}, "1"),
        (
            {
                "headers": {
                    b"accept": b"application/vnd.modelyard.v1+json;model-version=3"
                }
            },
            "3",
        ),
        ({"version": "1", "headers": {b"x-model-version": b"3"}}, "1"),
    ],
)
def test_version_can_be_chosen(call, version):
    answer = Driver().call(**call)

    assert read(answer)["model"]["version"] == version


def test_version_outside_the_route_says_so():
    assert read(Driver().call(version="1"))["model"]["variant"] == "published"


def test_unknown_version_is_not_found():
    assert code(Driver().call(version="9")) == (404, "NOT_FOUND")


def test_model_without_a_served_default_is_unavailable():
    answer = Driver().call(model="secret")

    assert code(answer) == (503, "MODEL_UNAVAILABLE")
    assert int(dict(answer.headers)[b"retry-after"]) >= 1


def test_site_default_model_answers_calls_that_name_none():
    assert read(Driver().call(model=None))["model"]["name"] == "cancer"


def test_body_may_name_the_model():
    driver = Driver()

    assert read(driver.call(GOOD | {"model": "cancer"}, model=None))["predictions"]
    assert code(driver.call(GOOD | {"model": "x"}, model=None)) == (404, "NOT_FOUND")
    assert code(driver.call(GOOD | {"model": 3}, model=None)) == (404, "NOT_FOUND")
    assert code(driver.call(GOOD | {"model": "x"})) == (400, "INVALID_INPUT")


def test_bad_input_names_its_field_and_spends_nothing():
    limits = Limits(plan="p", rates=(), quotas=(Quota("day", "rows", 5),))
    driver = Driver(snapshot(limits=limits))

    answer = driver.call({"instances": [{"mean radius": "x", "area": 1}]})

    assert code(answer) == (400, "INVALID_INPUT")
    assert read(answer)["error"]["details"] == [
        {
            "index": 0,
            "field": "mean radius",
            "issue": "must be a number",
            "received": "string",
        }
    ]
    assert not answer.event.charged
    assert not any(isinstance(effect, NeedUnits) for effect in driver.effects)


def test_broken_rule_is_unprocessable():
    answer = Driver().call({"instances": [{"mean radius": -1, "area": 1}]})

    assert code(answer) == (422, "UNPROCESSABLE")


def test_too_many_rows_are_too_large():
    answer = Driver().call({"instances": GOOD["instances"] * 4})

    assert code(answer) == (413, "TOO_LARGE")
    assert read(answer)["error"]["maximum"] == 3


def test_rate_is_refused_with_its_name_and_a_wait():
    limits = Limits(plan="p", rates=(Rate("burst", 2, 60),))
    driver = Driver(snapshot(limits=limits), clock=ManualClock(1_000_000.5))

    answers = [driver.call() for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert code(answers[2]) == (429, "RATE_LIMIT_EXCEEDED")
    assert read(answers[2])["error"]["limit"] == "burst"
    assert dict(answers[2].headers)[b"retry-after"] == b"20"
    assert dict(answers[2].headers)[b"X-RateLimit-Remaining"] == b"0"
    assert answers[2].event.code == "RATE_LIMIT_EXCEEDED"


def test_quota_is_leased_in_rows_and_then_refused():
    limits = Limits(
        plan="p", rates=(), quotas=(Quota("day", "rows", 4),), max_predict_rows=9
    )
    driver = Driver(snapshot(limits=limits))
    # Others may hold units, so the plan asks the site, and remembers its "none".
    driver.grants = [LeaseGrant(units=3, remaining=1), LeaseGrant(0, remaining=1)]
    three = {"instances": GOOD["instances"] * 3}

    first, second, third = (driver.call(three) for _ in range(3))

    assert first.status == 200
    assert code(second) == (429, "QUOTA_EXCEEDED")
    assert code(third) == (429, "QUOTA_EXCEEDED")
    assert driver.grants == []


def test_failure_on_our_side_gives_the_units_back():
    limits = Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 1),))
    driver = Driver(snapshot(limits=limits))
    driver.grants = [LeaseGrant(units=1, remaining=0), LeaseGrant(0, remaining=0)]
    driver.failure = EngineError(EngineErrorCode.CONNECTION_LOST, "socket gone")
    failed = driver.call()
    driver.failure = None

    answered, refused = driver.call(), driver.call()

    assert code(failed) == (503, "MODEL_UNAVAILABLE")
    assert (failed.event.charged, answered.event.charged) == (False, True)
    assert answered.status == 200
    assert code(refused) == (429, "QUOTA_EXCEEDED")


def test_abandoned_call_gives_back_its_units_and_its_place():
    limits = Limits(
        plan="p", rates=(), quotas=(Quota("day", "requests", 1),), max_concurrency=1
    )
    driver = Driver(snapshot(limits=limits))
    head = call_headers.Head(token=KEY.token.encode())
    steps = driver.plan.steps(Call("predict", head, NATIVE, "cancer"))
    next(steps)
    steps.send(json.dumps(GOOD).encode())
    assert isinstance(steps.send(LeaseGrant(units=1, remaining=0)), EngineCall)
    assert code(driver.call()) == (429, "CONCURRENCY_EXCEEDED")

    steps.close()

    assert driver.call().status == 200


@pytest.mark.parametrize(
    ("engine_code", "expected"),
    [
        (EngineErrorCode.LOADING, (503, "MODEL_UNAVAILABLE")),
        (EngineErrorCode.NOT_LOADED, (503, "MODEL_UNAVAILABLE")),
        (EngineErrorCode.CONNECTION_LOST, (503, "MODEL_UNAVAILABLE")),
        (EngineErrorCode.DRAINING, (503, "MODEL_UNAVAILABLE")),
        (EngineErrorCode.OVERLOADED, (503, "OVERLOADED")),
        (EngineErrorCode.DEADLINE_EXCEEDED, (504, "INFERENCE_TIMEOUT")),
        (EngineErrorCode.MODEL_ERROR, (500, "MODEL_ERROR")),
    ],
)
def test_engine_failures_become_api_errors_without_their_text(engine_code, expected):
    driver = Driver()
    driver.failure = EngineError(engine_code, "secret/path", retry_after_ms=1500)

    answer = driver.call()

    assert code(answer) == expected
    assert b"secret" not in answer.body
    if expected[0] == 503:
        assert dict(answer.headers)[b"retry-after"] == b"2"


@pytest.mark.parametrize(
    "engine_code", [EngineErrorCode.BAD_REQUEST, EngineErrorCode.NOT_EXPLAINABLE]
)
def test_why_the_engine_refuses_a_request_reaches_its_caller(engine_code):
    driver = Driver()
    driver.failure = EngineError(engine_code, "the version has no background sample")

    answer = driver.call()

    assert code(answer) == (400, "INVALID_INPUT")
    assert b": the version has no background sample." in answer.body


def test_shortest_deadline_counts():
    driver = Driver()

    driver.call(
        GOOD | {"options": {"timeout_ms": 200}}, headers={b"x-deadline-ms": b"4000"}
    )
    driver.call(headers={b"x-deadline-ms": b"4000"})
    driver.call(headers={b"x-deadline-ms": b"3000000"})

    calls = [effect for effect in driver.effects if isinstance(effect, EngineCall)]
    assert [call.timeout_s for call in calls] == [0.2, 4.0, 30.0]


@pytest.mark.parametrize(
    "given", [b"0", b"-1", b"soon", b"1.5", b"9" * 30, "²".encode()]
)
def test_unreadable_deadline_is_an_invalid_header(given):
    answer = Driver().call(headers={b"x-deadline-ms": given})

    assert code(answer) == (400, "INVALID_HEADER")


def test_batch_answers_good_rows_and_reports_bad_ones():
    body = {
        "instances": [GOOD["instances"][0], {"area": 1}, [3, 4]],
        "options": {"return_errors": "individual", "batch_size": 2},
    }
    driver = Driver()

    answer = driver.call(body, operation="batch")

    decoded = read(answer)
    assert answer.status == 200
    assert [row is None for row in decoded["predictions"]] == [False, True, False]
    assert decoded["errors"] == [
        {
            "index": 1,
            "field": "mean radius",
            "issue": "is required",
            "code": "INVALID_INPUT",
        }
    ]
    assert answer.event.rows == 2
    assert driver.effects[-1].max_batch_rows == 2


def test_batch_of_bad_rows_only_never_reaches_the_engine():
    body = {"instances": [{}], "options": {"return_errors": "individual"}}
    driver = Driver()

    answer = driver.call(body, operation="batch")

    assert answer.status == 200
    assert read(answer)["predictions"] == [None]
    assert not any(isinstance(effect, EngineCall) for effect in driver.effects)


@pytest.mark.parametrize("operation", ["predict", "explain"])
def test_errors_one_by_one_are_for_batches(operation):
    body = GOOD | {"options": {"return_errors": "individual"}}

    answer = Driver().call(body, operation=operation)

    assert code(answer) == (400, "INVALID_INPUT")
    assert read(answer)["error"]["details"][0]["field"] == "options.return_errors"


def test_one_instance_gets_one_prediction():
    answer = Driver().call({"inputs": GOOD["instances"][0]})

    assert read(answer)["prediction"]["label"] == "benign"
    assert "predictions" not in read(answer)


def test_non_finite_scores_become_null_with_a_warning():
    driver = Driver()
    driver.scores = [[0.1, 0.9], [float("nan"), 0.5]]

    answer = driver.call({"instances": GOOD["instances"] * 2})

    assert read(answer)["predictions"][1]["score"] is None
    assert read(answer)["warnings"] == [{"index": 1, "code": "NON_FINITE_OUTPUT"}]


def test_nulls_that_a_model_writes_itself_are_no_warning():
    driver = Driver()
    labels = np.empty(1, dtype=object)
    driver.outputs = (Tensor("output", labels),)

    answer = driver.call()

    assert b"null" in answer.body
    assert "warnings" not in read(answer)


@pytest.mark.parametrize(
    ("call", "level"),
    [({"explain": True}, "simple"), ({"operation": "explain"}, "full")],
)
def test_explanation_comes_with_the_prediction(call, level):
    driver = Driver()

    answer = driver.call(**call)

    assert read(answer)["predictions"]
    assert read(answer)["explanations"][0]["features"][0]["feature"] == "area"
    assert driver.effects[-1].options.level == level
    assert answer.event.shap_samples == 20
    assert answer.event.compute_us == 120


def test_plot_is_given_to_those_who_accept_it():
    answer = Driver().call(operation="explain", headers={b"accept": b"image/svg+xml"})

    assert dict(answer.headers)[b"content-type"] == b"image/svg+xml"
    assert answer.body == b"<svg/>"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({b"accept": b"text/html"}, (406, "NOT_ACCEPTABLE")),
        ({b"accept": b"image/svg+xml"}, (406, "NOT_ACCEPTABLE")),
        ({b"content-type": b"text/csv"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ({b"content-encoding": b"gzip"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
    ],
)
def test_media_types_are_checked_before_the_body_is_read(headers, expected):
    driver = Driver()

    answer = driver.call(headers=headers)

    assert code(answer) == expected
    assert driver.effects == []
    assert answer.event.status == expected[0]


def test_problem_json_is_given_to_those_who_accept_it():
    answer = Driver().call(
        model="nothing", headers={b"accept": b"application/problem+json"}
    )

    assert dict(answer.headers)[b"content-type"] == b"application/problem+json"
    assert read(answer)["status"] == 404
    assert read(answer)["code"] == "NOT_FOUND"


def test_engine_gets_the_tensors_of_the_version():
    driver = Driver()

    driver.call(version="3")

    call = driver.effects[-1]
    assert call.key == VersionKey("cancer", 3)
    assert call.engines == ("two",)
    np.testing.assert_array_equal(
        call.tensors[0].data, np.array([[1.5, 2]], np.float32)
    )


def test_error_raised_while_reading_the_body_is_answered():
    class Interrupted(Driver):
        def perform(self, effect):
            raise ApiError(ErrorCode.REQUEST_TIMEOUT, "too slow")

    answer = Interrupted().call()

    assert code(answer) == (408, "REQUEST_TIMEOUT")
    assert answer.event.status == 408


def test_a_version_that_failed_to_load_gives_nobody_a_time_to_wait_for():
    driver = Driver()
    driver.failure = EngineError(EngineErrorCode.LOAD_FAILED, "secret/path")

    answer = driver.call()

    assert code(answer) == (503, "MODEL_UNAVAILABLE")
    assert "waiting does not help" in read(answer)["error"]["message"]
    assert b"retry-after" not in dict(answer.headers)
    assert "retry_after_s" not in read(answer)["error"]
    assert b"secret" not in answer.body


def quarantined(published):
    model, *others = published.models
    versions = tuple(
        msgspec.structs.replace(version, quarantined=True, engines=())
        for version in model.versions
    )
    model = msgspec.structs.replace(model, versions=versions, broken=("2",))
    return msgspec.structs.replace(published, models=(model, *others))


@pytest.mark.parametrize("version", [None, "2"])
def test_callers_of_a_quarantined_version_are_told_so_at_once(version):
    driver = Driver(quarantined(snapshot()))

    answer = driver.call(version=version)

    assert code(answer) == (503, "MODEL_UNAVAILABLE")
    assert "is quarantined: its process died twice" in read(answer)["error"]["message"]
    assert b"retry-after" not in dict(answer.headers)
    assert not any(isinstance(effect, EngineCall) for effect in driver.effects)
    assert not answer.event.charged


def test_a_default_that_was_quarantined_before_it_served_is_told_apart():
    published = snapshot()
    model = msgspec.structs.replace(
        published.models[0], variants=(), stuck="quarantined"
    )

    answer = Driver(msgspec.structs.replace(published, models=(model,))).call()

    assert code(answer) == (503, "MODEL_UNAVAILABLE")
    assert "is quarantined" in read(answer)["error"]["message"]


def test_a_call_that_ended_its_process_is_a_failure_of_the_model():
    driver = Driver()
    driver.failure = EngineError(EngineErrorCode.NOT_REPEATED, "its process ended")

    answer = driver.call()

    assert code(answer) == (500, "MODEL_ERROR")
    assert "its process ended" in read(answer)["error"]["message"]
    assert b"retry-after" not in dict(answer.headers)


@pytest.mark.parametrize("version", [None, "7", "seventh"])
def test_what_is_broken_is_told_apart_from_what_is_coming(version):
    published = snapshot()
    coming = msgspec.structs.replace(published.models[0], variants=())
    broken = msgspec.structs.replace(coming, broken=("7", "seventh"), stuck="broken")

    answers = [
        Driver(msgspec.structs.replace(published, models=(model,))).call(
            version=version
        )
        for model in (coming, broken)
    ]

    assert code(answers[1]) == (503, "MODEL_UNAVAILABLE")
    assert b"retry-after" not in dict(answers[1].headers)
    if version is None:
        assert dict(answers[0].headers)[b"retry-after"] == b"5"
    else:
        assert answers[0].status == 404
