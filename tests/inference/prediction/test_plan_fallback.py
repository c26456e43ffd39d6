"""Test the plan when a fallback answers, because the version in charge cannot."""

import msgspec
import numpy as np
import pytest

from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Prediction, Tensor
from inference.prediction.effects import EngineCall
from inference.snapshot.contents import Fallback, FixedAnswer
from tests.inference.prediction.test_plan import GOOD, Driver, code, read, snapshot

EVERY = ("OVERLOADED", "MODEL_UNAVAILABLE", "INFERENCE_TIMEOUT", "MODEL_ERROR")
UNKNOWN = {"label": "unknown", "score": None}


class FailingDriver(Driver):
    """A driver whose versions in `failing` (version → error code) fail."""

    def __init__(self, published, failing):
        super().__init__(published)
        self.failing = failing

    def perform(self, effect):
        if isinstance(effect, EngineCall) and effect.key.version in self.failing:
            self.clock.advance(effect.timeout_s * self.failing_after)
            raise EngineError(self.failing[effect.key.version], "no")
        return super().perform(effect)

    failing_after = 0.0


def falling_back(*, on=EVERY, signature=None, **fallback):
    published = snapshot()
    model, *others = published.models
    default = msgspec.structs.replace(model.variants[0], weight_percent=100)
    versions = model.versions
    if signature is not None:
        versions = tuple(
            msgspec.structs.replace(version, signature=signature)
            if version.version == 1
            else version
            for version in versions
        )
    model = msgspec.structs.replace(
        model,
        versions=versions,
        variants=(default,),
        fallback=Fallback(on, **fallback),
    )
    return msgspec.structs.replace(published, models=(model, *others))


def header(answer, name):
    return dict(answer.headers).get(name)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EngineErrorCode.OVERLOADED, "OVERLOADED"),
        (EngineErrorCode.CONNECTION_LOST, "MODEL_UNAVAILABLE"),
        (EngineErrorCode.DEADLINE_EXCEEDED, "INFERENCE_TIMEOUT"),
        (EngineErrorCode.MODEL_ERROR, "MODEL_ERROR"),
    ],
)
def test_another_version_answers_and_says_so(error, reason):
    driver = FailingDriver(falling_back(version=1), {2: error})

    answer = driver.call()

    assert answer.status == 200
    assert read(answer)["model"] == {
        "name": "cancer",
        "version": "1",
        "variant": "fallback",
        "fallback": True,
        "fallback_reason": reason,
    }
    assert read(answer)["predictions"][0]["label"] == "benign"
    assert header(answer, b"x-fallback") == b"version"
    assert header(answer, b"x-model-version") == b"1"


def test_another_version_answers_for_one_that_is_quarantined():
    published = falling_back(version=1)
    model, *others = published.models
    versions = tuple(
        msgspec.structs.replace(version, quarantined=version.version == 2)
        for version in model.versions
    )
    model = msgspec.structs.replace(model, versions=versions)

    answer = FailingDriver(
        msgspec.structs.replace(published, models=(model, *others)), {}
    ).call()

    assert answer.status == 200
    assert read(answer)["model"]["fallback_reason"] == "MODEL_UNAVAILABLE"


def test_the_event_tells_that_a_version_stood_in():
    driver = FailingDriver(falling_back(version=1), {2: EngineErrorCode.OVERLOADED})

    event = driver.call().event

    assert (event.version, event.variant, event.fallback) == (
        "1",
        "fallback",
        "version",
    )
    assert event.charged


def test_only_errors_that_were_chosen_are_stood_in_for():
    published = falling_back(version=1, on=("OVERLOADED",))
    driver = FailingDriver(published, {2: EngineErrorCode.MODEL_ERROR})

    assert code(driver.call()) == (500, "MODEL_ERROR")


def test_what_is_wrong_with_the_input_is_still_said():
    driver = FailingDriver(falling_back(answer=FixedAnswer(UNKNOWN)), {})

    assert driver.call({"instances": []}).status == 400


def test_a_version_asked_for_by_name_is_not_replaced():
    driver = FailingDriver(falling_back(version=1), {2: EngineErrorCode.OVERLOADED})

    assert code(driver.call(version="2")) == (503, "OVERLOADED")
    pinned = driver.call(headers={b"x-model-version": b"champion"})
    assert code(pinned) == (503, "OVERLOADED")


def test_the_first_reason_is_told_when_the_fallback_fails_too():
    failing = {2: EngineErrorCode.OVERLOADED, 1: EngineErrorCode.MODEL_ERROR}
    driver = FailingDriver(falling_back(version=1), failing)

    answer = driver.call()

    assert code(answer) == (503, "OVERLOADED")
    assert header(answer, b"x-model-version") == b"2"


def test_the_fallback_has_what_is_left_of_the_deadline():
    driver = FailingDriver(falling_back(version=1), {2: EngineErrorCode.OVERLOADED})
    driver.failing_after = 0.75

    driver.call(headers={b"x-deadline-ms": b"1000"})

    assert driver.effects[-1].timeout_s == pytest.approx(0.25)


def test_a_version_is_not_asked_after_the_deadline():
    driver = FailingDriver(
        falling_back(version=1), {2: EngineErrorCode.DEADLINE_EXCEEDED}
    )
    driver.failing_after = 1.0

    assert code(driver.call()) == (504, "INFERENCE_TIMEOUT")


def in_doubles(*names):
    columns = tuple(Column(name=name, dtype="float64") for name in names)
    return Signature(layout=Layout.MATRIX, columns=columns, shape=(2,), dtype="float64")


def test_rows_are_read_anew_for_a_fallback_of_another_dtype():
    driver = FailingDriver(
        falling_back(version=1, signature=in_doubles("mean radius", "area")),
        {2: EngineErrorCode.OVERLOADED},
    )

    assert driver.call().status == 200
    assert driver.effects[-1].tensors[0].data.dtype == "float64"


def test_a_fallback_with_columns_in_another_order_is_not_asked():
    driver = FailingDriver(
        falling_back(version=1, signature=in_doubles("area", "mean radius")),
        {2: EngineErrorCode.OVERLOADED},
    )

    assert code(driver.call({"instances": [[1.5, 2]]})) == (503, "OVERLOADED")


def test_a_fixed_answer_needs_no_engine_at_all():
    driver = FailingDriver(
        falling_back(answer=FixedAnswer(UNKNOWN)), {2: EngineErrorCode.CONNECTION_LOST}
    )

    answer = driver.call({"instances": GOOD["instances"] * 2})

    assert answer.status == 200
    assert read(answer)["predictions"] == [UNKNOWN, UNKNOWN]
    assert read(answer)["model"] == {
        "name": "cancer",
        "version": None,
        "variant": "fallback",
        "fallback": True,
        "fallback_reason": "MODEL_UNAVAILABLE",
    }
    assert header(answer, b"x-fallback") == b"fixed"
    assert header(answer, b"x-model-version") is None


def test_a_fixed_answer_also_comes_after_the_deadline_and_a_failed_fallback():
    failing = {
        2: EngineErrorCode.DEADLINE_EXCEEDED,
        1: EngineErrorCode.CONNECTION_LOST,
    }
    published = falling_back(version=1, answer=FixedAnswer(UNKNOWN))

    assert read(FailingDriver(published, failing).call())["predictions"] == [UNKNOWN]
    late = FailingDriver(published, failing)
    late.failing_after = 1.0
    assert read(late.call())["predictions"] == [UNKNOWN]


def test_a_fixed_answer_is_not_charged():
    driver = FailingDriver(
        falling_back(answer=FixedAnswer(UNKNOWN)), {2: EngineErrorCode.OVERLOADED}
    )

    event = driver.call().event

    assert (event.version, event.variant, event.fallback) == ("", "fallback", "fixed")
    assert not event.charged
    assert event.status == 200


def test_a_single_instance_gets_a_single_fixed_prediction():
    driver = FailingDriver(
        falling_back(answer=FixedAnswer(0)), {2: EngineErrorCode.OVERLOADED}
    )

    answer = driver.call({"inputs": GOOD["instances"][0]})

    assert read(answer)["prediction"] == 0


def test_bad_rows_of_a_batch_stay_null_among_fixed_answers():
    driver = FailingDriver(
        falling_back(answer=FixedAnswer(UNKNOWN)), {2: EngineErrorCode.OVERLOADED}
    )
    body = {
        "instances": [{"area": 1}, *GOOD["instances"]],
        "options": {"return_errors": "individual"},
    }

    answer = read(driver.call(body, operation="batch"))

    assert answer["predictions"] == [None, UNKNOWN]
    assert answer["errors"][0]["index"] == 0


def test_explanations_have_no_fallback():
    driver = FailingDriver(
        falling_back(version=1, answer=FixedAnswer(UNKNOWN)),
        {2: EngineErrorCode.OVERLOADED},
    )

    assert code(driver.call(operation="explain")) == (503, "OVERLOADED")


class UnreadableDriver(Driver):
    """A driver whose versions in `unreadable` answer what no dialect can encode."""

    def __init__(self, published, unreadable):
        super().__init__(published)
        self.unreadable = unreadable

    def perform(self, effect):
        if isinstance(effect, EngineCall) and effect.key.version in self.unreadable:
            output = Tensor("output", np.array([object()]))
            return Prediction((output,), 1, 100 * effect.key.version, 1)
        return super().perform(effect)


def test_an_output_that_cannot_be_encoded_is_stood_in_for():
    driver = UnreadableDriver(falling_back(version=1), {2})

    answer = driver.call()

    assert answer.status == 200
    assert header(answer, b"x-fallback") == b"version"
    assert header(answer, b"x-model-version") == b"1"
    assert (answer.event.version, answer.event.fallback) == ("1", "version")


def test_a_fallback_whose_output_cannot_be_encoded_gives_way_to_the_fixed_answer():
    published = falling_back(version=1, answer=FixedAnswer(UNKNOWN))
    driver = UnreadableDriver(published, {1, 2})

    answer = driver.call()

    assert answer.status == 200
    assert read(answer)["predictions"] == [UNKNOWN]
    assert header(answer, b"x-fallback") == b"fixed"
    assert (answer.event.version, answer.event.fallback) == ("", "fixed")
    assert not answer.event.charged


def test_without_a_fixed_answer_the_first_error_is_told():
    driver = UnreadableDriver(falling_back(version=1), {1, 2})

    answer = driver.call()

    assert code(answer) == (500, "MODEL_ERROR")
    assert header(answer, b"x-fallback") is None
    assert header(answer, b"x-model-version") == b"2"
    assert (answer.event.version, answer.event.fallback) == ("2", "")
    assert answer.event.compute_us == 200
