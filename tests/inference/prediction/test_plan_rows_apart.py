"""Test `return_errors: individual` if the model itself fails on some rows."""

import pytest

from accounts.admission.limits import LeaseGrant, Limits, Quota
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.prediction.effects import ExplainCall
from inference.prediction.plan import MAX_CALLS_APART
from tests.inference.prediction.test_plan import Driver, code, read, snapshot

OPTIONS = {"return_errors": "individual"}


class PoisonedDriver(Driver):
    """A driver whose engine fails on calls with certain radii."""

    poison = frozenset()
    failure_code = EngineErrorCode.MODEL_ERROR
    calls = 0

    def perform(self, effect):
        if hasattr(effect, "tensors") and not self.failure:
            self.calls += 1
            radii = effect.tensors[0].data[:, 0].tolist()
            if not self.poison.isdisjoint(radii):
                raise EngineError(self.failure_code, "a secret of the model")
        return super().perform(effect)

    def batch(self, rows, **options):
        body = {"instances": rows, "options": OPTIONS | options}
        return self.call(body, operation="batch")


def rows(*radii):
    return [{"mean radius": radius, "area": 2} for radius in radii]


@pytest.fixture
def driver():
    return PoisonedDriver()


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (EngineErrorCode.MODEL_ERROR, ("MODEL_ERROR", "the model failed on this row")),
        (
            EngineErrorCode.BAD_REQUEST,
            ("INVALID_INPUT", "the model does not take this row"),
        ),
    ],
)
def test_only_the_rows_that_the_model_fails_on_have_no_answer(driver, failure, told):
    driver.poison, driver.failure_code = {2.0}, failure

    answer = driver.batch(rows(0, 1, 2, 3, 4))

    assert answer.status == 200
    found = read(answer)["predictions"]
    assert [prediction is None for prediction in found] == [
        index == 2 for index in range(5)
    ]
    (error,) = read(answer)["errors"]
    assert (error["index"], error["code"], error["issue"]) == (2, *told)
    assert answer.event.rows == 4
    assert answer.event.charged
    assert "secret" not in answer.body.decode()


def test_only_rows_with_an_answer_are_explained(driver):
    driver.poison = {2.0}
    body = {"instances": rows(0, 1, 2, 3, 4), "options": OPTIONS}

    answer = driver.call(body, operation="batch", explain=True)

    assert answer.status == 200
    (asked,) = [it for it in driver.effects if isinstance(it, ExplainCall)]
    assert asked.tensors[0].data[:, 0].tolist() == [0, 1, 3, 4]


def test_bad_rows_and_rows_that_fail_are_told_by_their_place(driver):
    driver.poison = {3.0}
    mixed = rows(0, 1, 2, 3)
    mixed[1] = {"mean radius": "x", "area": 2}

    answer = driver.batch(mixed)

    assert [error["index"] for error in read(answer)["errors"]] == [1, 3]
    assert [one is None for one in read(answer)["predictions"]] == [0, 1, 0, 1]
    assert answer.event.rows == 2


def test_a_model_that_fails_on_every_row_is_an_error(driver):
    driver.poison = {1.0}

    assert code(driver.batch(rows(1, 1, 1))) == (500, "MODEL_ERROR")
    assert code(driver.call({"instances": rows(1, 2)})) == (500, "MODEL_ERROR")


def test_the_search_is_bounded_in_calls_and_time(driver):
    driver.poison = {1.0}
    many = rows(*[index % 2 for index in range(90)])

    assert code(driver.batch(many)) == (500, "MODEL_ERROR")
    assert driver.calls == 1 + MAX_CALLS_APART


def test_one_bad_row_of_many_costs_few_calls(driver):
    driver.poison = {7.0}

    answer = driver.batch(rows(*range(90)))

    assert answer.status == 200
    assert driver.calls < 20


def test_rows_without_an_answer_cost_nothing_of_the_quota():
    limits = Limits(plan="p", rates=(), quotas=(Quota("day", "rows", 5),))
    driver = PoisonedDriver(snapshot(limits=limits))
    driver.grants = [LeaseGrant(units=5, remaining=0)]
    driver.poison = {1.0}

    first = driver.batch(rows(0, 1, 2))
    second = driver.batch(rows(0, 2, 3))

    assert (first.event.rows, second.event.rows) == (2, 3)
    assert (first.status, second.status) == (200, 200)
