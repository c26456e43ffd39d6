"""Test which calls the plan answers from its cache."""

import json

import msgspec
import numpy as np
import pytest

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Prediction, Tensor
from inference.prediction.effects import EngineCall
from inference.snapshot.contents import CachePolicy, Fallback, FixedAnswer
from tests.inference.prediction.test_plan import GOOD, KEY, Driver, snapshot

REORDERED = {"instances": [{"area": 2, "mean radius": 1.5}]}


def cached(scope="customer", *, changes=None, versions=None, **policy):
    published = snapshot()
    model, *others = published.models
    model = msgspec.structs.replace(
        model,
        cache=CachePolicy(ttl_s=60, scope=scope),
        variants=(msgspec.structs.replace(model.variants[0], weight_percent=100),),
        **(changes or {}),
    )
    if versions:
        model = msgspec.structs.replace(
            model,
            versions=tuple(
                msgspec.structs.replace(version, **versions)
                for version in model.versions
            ),
        )
    return msgspec.structs.replace(published, models=(model, *others), **policy)


def ask(driver, body=GOOD, **given):
    return driver.call(body, **given)


def engine_calls(driver):
    return sum(isinstance(effect, EngineCall) for effect in driver.effects)


def mark(answer):
    return dict(answer.headers).get(b"x-cache")


def test_the_same_rows_are_not_computed_again():
    driver = Driver(cached())

    first, second = ask(driver), ask(driver, REORDERED)

    assert (mark(first), mark(second)) == (b"miss", b"hit")
    assert engine_calls(driver) == 1
    answers = [json.loads(answer.body) for answer in (first, second)]
    assert answers[0]["predictions"] == answers[1]["predictions"]
    assert answers[0]["request_id"] != answers[1]["request_id"]


def test_a_hit_is_charged_and_took_no_computing():
    driver = Driver(cached())
    ask(driver)

    event = ask(driver).event

    assert event.cached
    assert event.charged
    assert event.compute_us == 0
    assert event.rows == 1


def test_options_shape_the_answer_of_a_hit():
    driver = Driver(cached())
    ask(driver)

    answer = ask(driver, GOOD | {"options": {"top_k": 2}})

    assert mark(answer) == b"hit"
    assert len(json.loads(answer.body)["predictions"][0]["scores"]) == 2


def test_a_route_without_a_cache_says_nothing_of_one():
    driver = Driver()

    assert mark(ask(driver)) is None
    assert mark(ask(driver)) is None
    assert engine_calls(driver) == 2


@pytest.mark.parametrize(
    ("header", "calls", "then"),
    [(b"no-cache", 2, b"hit"), (b"no-store", 2, b"miss"), (b"max-age=0", 2, b"hit")],
)
def test_callers_may_ask_for_a_fresh_answer(header, calls, then):
    driver = Driver(cached())
    if then == b"hit":
        ask(driver)

    fresh = ask(driver, headers={b"cache-control": header})

    assert mark(fresh) == b"miss"
    assert mark(ask(driver)) == then
    assert engine_calls(driver) == calls


def test_time_ends_what_is_kept():
    driver = Driver(cached())
    ask(driver)

    driver.clock.advance(61)

    assert mark(ask(driver)) == b"miss"


def test_other_customers_do_not_see_who_asked_before():
    driver = Driver(cached())
    ask(driver)
    entry = driver.tables.find_key(KEY.digest)

    entry.key = msgspec.structs.replace(entry.key, customer_id=8)

    assert mark(ask(driver)) == b"miss"


def test_a_cache_for_everyone_is_shared():
    driver = Driver(cached("everyone"))
    ask(driver)
    entry = driver.tables.find_key(KEY.digest)

    entry.key = msgspec.structs.replace(entry.key, customer_id=8)

    assert mark(ask(driver)) == b"hit"


def test_another_version_or_artifact_does_not_get_the_old_answer():
    driver = Driver(cached())
    ask(driver)

    assert mark(ask(driver, version="3")) == b"miss"
    driver.tables.replace(cached(versions={"artifact": "other"}, sequence=2))
    assert mark(ask(driver)) == b"miss"


def test_models_that_roll_dice_are_never_cached():
    driver = Driver(cached(versions={"deterministic": False}))
    ask(driver)

    assert mark(ask(driver)) is None
    assert engine_calls(driver) == 2


def test_failures_are_not_kept():
    driver = Driver(cached())
    driver.failure = EngineError(EngineErrorCode.MODEL_ERROR, "no")
    assert ask(driver).status == 500
    driver.failure = None

    assert mark(ask(driver)) == b"miss"


def test_explanations_are_computed_each_time():
    driver = Driver(cached())
    ask(driver, explain=True)

    assert mark(ask(driver, explain=True)) is None


def test_fallback_answers_are_not_kept():
    fallback = Fallback(("MODEL_ERROR",), answer=FixedAnswer({"label": "?"}))
    driver = Driver(cached(changes={"fallback": fallback}))
    driver.failure = EngineError(EngineErrorCode.MODEL_ERROR, "no")
    assert ask(driver).status == 200
    driver.failure = None

    answer = ask(driver)

    assert mark(answer) == b"miss"
    assert json.loads(answer.body)["predictions"][0]["label"] != "?"


def test_an_output_that_cannot_be_encoded_is_not_kept():
    class Unreadable(Driver):
        broken = True

        def perform(self, effect):
            if isinstance(effect, EngineCall) and self.broken:
                output = Tensor("output", np.array([object()]))
                return Prediction((output,), 1, 2, 1)
            return super().perform(effect)

    driver = Unreadable(cached())

    assert ask(driver).status == 500
    driver.broken = False
    again = ask(driver)

    assert (again.status, mark(again)) == (200, b"miss")
    assert mark(ask(driver)) == b"hit"
