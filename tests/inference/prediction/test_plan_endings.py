"""Test what callers of a model or version with an announced end are told."""

import msgspec
import pytest

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.prediction.effects import EngineCall, OpenStream, SendHead, SendPiece
from inference.snapshot.contents import CallableModel, Ending, Fallback, FixedAnswer
from tests.inference.prediction.test_plan import Driver, code, read, snapshot

# The clock of the driver says 1,000,000 s; both times are whole minutes.
BEFORE = Ending(999_960.0, 1_000_080.0, "Use version 3.")
OVER = Ending(999_960.0, 999_960.0, "Use version 3.")
TOLD = {
    "deprecation": "@999960",
    "sunset": "Mon, 12 Jan 1970 13:48:00 GMT",
    "link": '</docs/?model=cancer>; rel="deprecation"; type="text/html"',
}


def published(*, of_model=None, of_default=None):
    """Announce the end of `cancer`, of its version 2, or of both."""
    whole = snapshot()
    model, *others = whole.models
    default, *rest = model.versions
    default = msgspec.structs.replace(default, ending=of_default)
    model = msgspec.structs.replace(model, versions=(default, *rest), ending=of_model)
    return msgspec.structs.replace(whole, models=(model, *others))


def told(answer):
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return {name: headers[name] for name in TOLD if name in headers}


class FailingDriver(Driver):
    """A driver whose versions fail, and whose client reads streams."""

    def perform(self, effect):
        match effect:
            case EngineCall() | OpenStream():
                raise EngineError(EngineErrorCode.MODEL_ERROR, "no")
            case SendHead() | SendPiece():
                return None
        return super().perform(effect)


@pytest.mark.parametrize("version", ["2", "champion"])
def test_who_names_a_version_is_told_its_end(version):
    driver = Driver(published(of_default=BEFORE))

    answer = driver.call(version=version)

    assert answer.status == 200
    assert told(answer) == TOLD


def test_who_calls_the_route_is_not_told_the_end_of_a_version():
    driver = Driver(published(of_default=OVER))

    answers = [driver.call() for _ in range(20)]
    answers.append(driver.call(version="3"))

    assert {answer.status for answer in answers} == {200}
    assert [told(answer) for answer in answers] == [{}] * 21


@pytest.mark.parametrize("call", [{}, {"version": "2"}, {"version": "3"}])
def test_the_end_of_a_model_is_told_to_all(call):
    answer = Driver(published(of_model=BEFORE)).call(**call)

    assert answer.status == 200
    assert told(answer) == TOLD


@pytest.mark.parametrize(
    ("ends", "call"),
    [({"of_model": OVER}, {}), ({"of_default": OVER}, {"version": "2"})],
)
def test_after_the_end_calls_are_told_what_to_use_instead(ends, call):
    answer = Driver(published(**ends)).call(**call)

    assert code(answer) == (410, "GONE")
    error = read(answer)["error"]
    assert error["message"] == "It ended at 1970-01-12 13:46 UTC. Use version 3."
    assert error["use_instead"] == "Use version 3."
    assert error["ended_at"] == "1970-01-12T13:46:00+00:00"
    assert told(answer)["deprecation"] == "@999960"
    assert not answer.event.charged


@pytest.mark.parametrize("operation", ["predict", "stream"])
def test_a_fixed_answer_tells_the_end_of_its_model(operation):
    whole = published(of_model=BEFORE)
    model, *others = whole.models
    fallback = Fallback(("MODEL_ERROR",), answer=FixedAnswer("unknown"))
    model = msgspec.structs.replace(model, fallback=fallback)
    driver = FailingDriver(msgspec.structs.replace(whole, models=(model, *others)))

    answer = driver.call(operation=operation)

    assert answer.event.fallback == "fixed"
    if operation == "stream":
        [answer] = [it for it in driver.effects if isinstance(it, SendHead)]
    assert told(answer) == TOLD


def test_who_meets_no_version_is_told_the_end_of_the_model():
    whole = published(of_model=BEFORE)
    model, *others = whole.models
    model = msgspec.structs.replace(model, variants=())
    driver = Driver(msgspec.structs.replace(whole, models=(model, *others)))

    answer = driver.call()

    assert answer.status == 503
    assert told(answer) == TOLD


def test_the_end_comes_at_its_second_without_a_new_snapshot():
    driver = Driver(published(of_model=BEFORE))
    driver.clock.advance(79.5)
    assert driver.call().status == 200

    driver.clock.advance(0.5)

    assert code(driver.call()) == (410, "GONE")


def test_who_names_a_version_is_told_the_earlier_of_two_ends():
    later = msgspec.structs.replace(BEFORE, ends_at=2_000_000.0)

    for ends in ({"of_model": later, "of_default": BEFORE},):
        answer = Driver(published(**ends)).call(version="2")
        assert told(answer) == TOLD
    answer = Driver(published(of_model=OVER, of_default=BEFORE)).call(version="2")
    assert code(answer) == (410, "GONE")


def test_models_that_were_written_without_ends_can_be_read():
    packed = msgspec.msgpack.encode({"name": "old", "versions": [], "variants": []})

    assert msgspec.msgpack.decode(packed, type=CallableModel).ending is None
