"""Test what a call tells of a canary: its chance, its fault, and who answered."""

import json

import msgspec
import numpy as np
import pytest

from accounts.admission.limits import LeaseGrant, Limits, Quota
from inference.codecs.files.uploaded import UploadedFile
from inference.codecs.images import refuse_images
from inference.codecs.rows.reader import DecodedRows
from inference.dialects import call_headers
from inference.dialects.dialect import Call
from inference.engine.signatures.signature import Column, Image, Layout, Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors.api_error import Problem
from inference.prediction.effects import (
    CallAbandoned,
    EngineCall,
    ExplainCall,
    NeedBody,
    NextChunk,
    NoChunk,
    OpenStream,
    ReadImages,
    ReadUpload,
    SendHead,
    SendPiece,
)
from inference.prediction.first_prediction import code_of
from inference.snapshot.contents import Fallback, FixedAnswer, Sticky
from tests.inference.prediction.test_plan import (
    GOOD,
    KEY,
    NATIVE,
    SIGNATURE,
    Driver,
    read,
    snapshot,
)

DEFAULT, CANARY = "2", "3"
PNG = b"\x89PNG"
WIDER = msgspec.structs.replace(
    SIGNATURE, columns=(*SIGNATURE.columns, Column(name="depth")), shape=(3,)
)
# Takes fewer rows: its area has a maximum.
NARROWER = msgspec.structs.replace(
    SIGNATURE,
    columns=(SIGNATURE.columns[0], Column(name="area", maximum=5)),
)
REFUSED = (True, "INPUT_REFUSED", DEFAULT)


def rolling_out(*, canary=SIGNATURE, default=SIGNATURE, weight=99, **changes):
    """Publish version 2 as the default, and version 3 as the canary."""
    published = snapshot(**changes)
    model, *others = published.models
    signatures = {2: default, 3: canary}
    default_variant, canary_variant = model.variants
    model = msgspec.structs.replace(
        model,
        versions=tuple(
            msgspec.structs.replace(each, signature=signatures[each.version])
            for each in model.versions
            if each.version in signatures
        ),
        variants=(
            msgspec.structs.replace(default_variant, weight_percent=100 - weight),
            msgspec.structs.replace(canary_variant, weight_percent=weight),
        ),
    )
    return msgspec.structs.replace(published, models=(model, *others))


class CanaryDriver(Driver):
    """A driver whose versions in `failing` (version → error code) fail."""

    def __init__(self, published, **failing):
        super().__init__(published)
        self.failing = {int(name[1:]): error for name, error in failing.items()}

    def perform(self, effect):
        match effect:
            case EngineCall() | ExplainCall() | OpenStream():
                if effect.key.version in self.failing:
                    raise EngineError(self.failing[effect.key.version], "no")
                if isinstance(effect, OpenStream):
                    return "stream"
            case NextChunk():
                return NoChunk.ENDED
            case SendHead() | SendPiece():
                return None
        return super().perform(effect)

    def on_canary(self, *body, **call):
        """Call until the canary was dealt the call; return the answer and its facts."""
        for _ in range(100):
            answer = self.call(*body, **call)
            dealt = answer.event.dealt
            if dealt.to_canary:
                return answer, (dealt.to_canary, dealt.fault, answer.event.version)
        raise AssertionError("no call of a block reached the canary")


def test_calls_of_a_route_with_a_canary_carry_the_chance_that_they_had():
    driver = Driver(rolling_out(weight=30))

    dealt = [driver.call().event.dealt for _ in range(100)]

    assert {each.canary for each in dealt} == {3}
    assert sum(each.to_canary for each in dealt) == 30
    # Of the turns left in the block, so many are the canary's.
    given = 0
    for turn, each in enumerate(dealt):
        assert each.chance == pytest.approx((30 - given) / (100 - turn))
        given += each.to_canary
    assert {each.fault for each in dealt} == {""}


def test_calls_of_the_default_carry_a_chance_of_each_canary():
    published = rolling_out(weight=30)
    model, *others = published.models
    third = msgspec.structs.replace(model.versions[0], version=4, aliases=())
    weights = {2: 60, 3: 30, 4: 10}
    variants = (
        *model.variants,
        msgspec.structs.replace(model.variants[1], version=4),
    )
    model = msgspec.structs.replace(
        model,
        versions=(*model.versions, third),
        variants=tuple(
            msgspec.structs.replace(each, weight_percent=weights[each.version])
            for each in variants
        ),
    )
    driver = Driver(msgspec.structs.replace(published, models=(model, *others)))

    left = dict(weights)
    for _ in range(100):
        event = driver.call().event
        dealt = event.dealt
        chances = {n: left[n] / (left[n] + left[2] or 1) for n in (3, 4)}
        if dealt.to_canary:
            assert str(dealt.canary) == event.version
            assert dealt.chance == chances[dealt.canary]
            assert dealt.others == ()
        else:
            assert (dealt.canary, dealt.chance) == (3, chances[3])
            assert dealt.others == ((4, chances[4]),)
        left[dealt.canary if dealt.to_canary else 2] -= 1
    assert set(left.values()) == {0}


def sticking(by, *, salt="secret"):
    published = rolling_out(weight=30)
    model, *others = published.models
    model = msgspec.structs.replace(model, sticky=Sticky(by, salt))
    return Driver(msgspec.structs.replace(published, models=(model, *others)))


def how_dealt(answer):
    """Return it without the prediction, which is compared once a second."""
    return msgspec.structs.replace(answer.event.dealt, predicted=-1)


def test_a_key_keeps_its_version_and_every_call_says_what_it_was_dealt():
    seen = set()
    for salt in map(str, range(40)):
        driver = sticking("key", salt=salt)
        dealt = {how_dealt(driver.call()) for _ in range(5)}
        assert len(dealt) == 1
        seen |= {(each.to_canary, each.chance, each.canary) for each in dealt}

    assert seen == {(True, 0.3, 3), (False, 0.3, 3)}


def test_callers_by_the_header_are_evidence_and_calls_without_it_are_dealt():
    driver = sticking("header")

    named = {
        how_dealt(driver.call(headers={b"x-sticky-key": b"grace"})) for _ in range(5)
    }
    dealt = [driver.call().event.dealt for _ in range(100)]

    (caller,) = named
    assert (caller.chance, len(caller.unit)) == (0.3, 12)
    assert "grace" not in caller.unit
    assert sum(each.to_canary for each in dealt) == 30
    assert {each.unit for each in dealt} == {""}


def test_a_sticky_call_is_no_evidence_unless_the_route_says_so():
    driver = Driver(rolling_out(weight=30))

    assert driver.call(headers={b"x-sticky-key": b"grace"}).event.dealt is None


def test_calls_of_a_route_with_a_canary_carry_a_code_of_their_first_prediction():
    answer = CanaryDriver(rolling_out()).call()

    assert answer.event.dealt.predicted == code_of(
        Prediction((Tensor("scores", np.array([[0.25, 0.75]])),), 0, 0, 1)
    )


def test_one_prediction_is_compared_for_each_key_and_second():
    driver = CanaryDriver(rolling_out())

    first = [driver.call().event.dealt.predicted for _ in range(3)]
    driver.clock.advance(1)
    then = [driver.call().event.dealt.predicted for _ in range(2)]

    assert [code >= 0 for code in first] == [True, False, False]
    assert [code >= 0 for code in then] == [True, False]


def test_a_call_that_failed_carries_no_prediction():
    driver = CanaryDriver(rolling_out(), v3=EngineErrorCode.MODEL_ERROR)

    answer, _ = driver.on_canary()

    assert answer.event.dealt.predicted < 0


def test_without_a_canary_nothing_is_dealt():
    published = snapshot()
    model, *others = published.models
    default = msgspec.structs.replace(model.variants[0], weight_percent=100)
    alone = msgspec.structs.replace(model, variants=(default,))
    driver = Driver(msgspec.structs.replace(published, models=(alone, *others)))

    assert driver.call().event.dealt is None


@pytest.mark.parametrize(
    "call",
    [
        {"version": "3"},
        {"headers": {b"x-model-version": b"3"}},
        {"headers": {b"x-sticky-key": b"user-1"}},
    ],
)
def test_calls_that_chance_did_not_deal_carry_nothing(call):
    assert Driver(rolling_out()).call(**call).event.dealt is None


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (EngineErrorCode.MODEL_ERROR, "MODEL_ERROR"),
        (EngineErrorCode.DEADLINE_EXCEEDED, "INFERENCE_TIMEOUT"),
        (EngineErrorCode.CONNECTION_LOST, "MODEL_UNAVAILABLE"),
        (EngineErrorCode.QUARANTINED, "MODEL_UNAVAILABLE"),
        (EngineErrorCode.OVERLOADED, "OVERLOADED"),
    ],
)
@pytest.mark.parametrize("operation", ["predict", "batch", "explain", "stream"])
def test_errors_of_the_version_in_charge_are_its_faults(operation, error, fault):
    driver = CanaryDriver(rolling_out(), v3=error)

    answer, facts = driver.on_canary(operation=operation)

    assert answer.status >= 500 or fault == "OVERLOADED"
    assert facts == (True, fault, CANARY)


@pytest.mark.parametrize("operation", ["predict", "batch", "explain", "stream"])
def test_the_default_answers_a_row_that_only_the_canary_refuses(operation):
    driver = CanaryDriver(rolling_out(canary=WIDER))

    answer, facts = driver.on_canary(operation=operation)

    assert (answer.status, facts) == (200, REFUSED)


def test_what_both_refuse_is_the_fault_of_the_caller():
    driver = CanaryDriver(rolling_out(canary=WIDER))

    answer, facts = driver.on_canary({"instances": [{"nothing": 1}]})

    assert (answer.status, facts) == (400, (True, "", CANARY))


def test_a_row_that_only_the_canary_takes_is_nobodys_fault():
    driver = CanaryDriver(rolling_out(default=WIDER))

    answer, facts = driver.on_canary()

    assert (answer.status, facts) == (200, (True, "", CANARY))


def batch(*areas):
    return {
        "instances": [{"mean radius": 1, "area": area} for area in areas],
        "options": {"return_errors": "individual"},
    }


def test_a_single_row_of_a_batch_that_only_the_canary_refuses_is_answered():
    driver = CanaryDriver(rolling_out(canary=NARROWER))

    answer, facts = driver.on_canary(batch(1, 9, None), operation="batch")

    assert facts == REFUSED
    found = read(answer)
    assert [each is None for each in found["predictions"]] == [False, False, True]
    assert [each["index"] for each in found["errors"]] == [2]


def test_rows_of_a_batch_that_both_refuse_stay_the_callers_errors():
    driver = CanaryDriver(rolling_out(canary=NARROWER))

    answer, facts = driver.on_canary(batch(1, None), operation="batch")

    assert facts == (True, "", CANARY)
    assert [each["index"] for each in read(answer)["errors"]] == [1]


@pytest.mark.parametrize("operation", ["predict", "batch", "explain", "stream"])
@pytest.mark.parametrize("refusal", ["BAD_REQUEST", "NOT_EXPLAINABLE"])
def test_the_default_answers_what_only_the_canarys_engine_refuses(operation, refusal):
    driver = CanaryDriver(rolling_out(), v3=EngineErrorCode[refusal])

    answer, facts = driver.on_canary(operation=operation)

    assert (answer.status, facts) == (200, REFUSED)


@pytest.mark.parametrize("operation", ["predict", "batch", "explain", "stream"])
def test_what_both_engines_refuse_is_the_fault_of_the_caller(operation):
    refusal = EngineErrorCode.BAD_REQUEST
    driver = CanaryDriver(rolling_out(), v2=refusal, v3=refusal)

    answer, facts = driver.on_canary(operation=operation)

    assert (answer.status, facts) == (400, (True, "", CANARY))


class RowRefusingDriver(CanaryDriver):
    """A driver whose versions refuse single areas in their engine."""

    refused_by = {2: {8.0}, 3: {8.0, 9.0}}  # It never changes.

    def perform(self, effect):
        if isinstance(effect, EngineCall):
            areas = set(effect.tensors[0].data[:, 1].tolist())
            if areas & self.refused_by[effect.key.version]:
                raise EngineError(EngineErrorCode.BAD_REQUEST, "no such area")
        return super().perform(effect)


@pytest.mark.parametrize(
    ("areas", "bad", "fault"), [((1, 9), [], "INPUT_REFUSED"), ((1, 8, 9), [1], "")]
)
def test_single_rows_that_only_the_canarys_engine_refuses_are_answered(
    areas, bad, fault
):
    driver = RowRefusingDriver(rolling_out())

    answer, facts = driver.on_canary(batch(*areas), operation="batch")

    assert facts == (True, fault, DEFAULT)
    assert [each["index"] for each in read(answer).get("errors", [])] == bad


PICTURES = Signature(
    layout=Layout.TENSOR, shape=(2, 2), image=Image(mode="L", height=2, width=2)
)
LARGER = msgspec.structs.replace(
    PICTURES, shape=(4, 4), image=Image(mode="L", height=4, width=4)
)


class FileDriver(CanaryDriver):
    """A driver that reads uploaded files, and pictures with enough pixels for 2 × 2."""

    def perform(self, effect):
        match effect:
            case ReadImages():
                if effect.images.shape != PICTURES.shape:
                    raise refuse_images([Problem("too small", index=0)])
                pixels = np.zeros((1, *PICTURES.shape), np.float32)
                return DecodedRows((Tensor("input", pixels),), [0], [])
            case ReadUpload():
                return UploadedFile(b"mean radius,area\n1,2\n", "text/csv")
        return super().perform(effect)


def test_the_default_answers_a_picture_that_only_the_canary_refuses():
    driver = FileDriver(rolling_out(canary=LARGER, default=PICTURES))

    answer, facts = driver.on_canary(PNG, headers={b"content-type": b"image/png"})

    assert (answer.status, facts) == (200, REFUSED)


@pytest.mark.parametrize("operation", ["predict", "batch"])
def test_the_default_answers_an_uploaded_file_that_only_the_canary_refuses(operation):
    driver = FileDriver(rolling_out(canary=WIDER))
    body = {"input_uri": f"upload://upl_{'0' * 32}"}

    answer, facts = driver.on_canary(body, operation=operation)

    assert (answer.status, facts) == (200, REFUSED)


def test_quota_refusals_after_dealing_are_nobodys_fault():
    limits = Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 1),))
    driver = CanaryDriver(rolling_out(limits=limits))
    driver.grants = [LeaseGrant(units=0, remaining=0)]

    answer, facts = driver.on_canary()

    assert (answer.status, facts) == (429, (True, "", CANARY))


FAILS = EngineErrorCode.MODEL_ERROR


def falling_back(**fallback):
    published = rolling_out()
    model, *others = published.models
    fallback = Fallback(("MODEL_ERROR",), **fallback)
    model = msgspec.structs.replace(model, fallback=fallback)
    return msgspec.structs.replace(published, models=(model, *others))


@pytest.mark.parametrize("operation", ["predict", "stream"])
@pytest.mark.parametrize(
    ("fallback", "version"),
    [({"version": 2}, DEFAULT), ({"answer": FixedAnswer("unknown")}, "")],
)
def test_an_answer_by_a_fallback_is_a_fault_of_the_version_in_charge(
    operation, fallback, version
):
    driver = CanaryDriver(falling_back(**fallback), v3=FAILS)

    answer, facts = driver.on_canary(operation=operation)

    assert (answer.status, facts) == (200, (True, "MODEL_ERROR", version))


@pytest.mark.parametrize("operation", ["predict", "stream"])
def test_a_fallback_that_fails_leaves_the_fault_of_the_version_in_charge(operation):
    driver = CanaryDriver(falling_back(version=2), v2=FAILS, v3=FAILS)

    answer, facts = driver.on_canary(operation=operation)

    assert (answer.status, facts) == (500, (True, "MODEL_ERROR", CANARY))


class LateDriver(CanaryDriver):
    """A driver whose effects of one kind take a minute."""

    def __init__(self, published, late):
        super().__init__(published)
        self._late = late

    def perform(self, effect):
        value = super().perform(effect)
        if isinstance(effect, self._late):
            self.clock.advance(60)
        return value


def test_a_deadline_that_passed_before_an_engine_was_asked_is_nobodys_fault():
    driver = LateDriver(rolling_out(), NeedBody)

    answer, facts = driver.on_canary()

    assert (answer.status, facts) == (504, (True, "", CANARY))


def test_a_deadline_that_passed_while_the_canary_predicted_is_its_fault():
    driver = LateDriver(rolling_out(), EngineCall)

    answer, facts = driver.on_canary(operation="explain")

    assert (answer.status, facts) == (504, (True, "INFERENCE_TIMEOUT", CANARY))


def test_a_quota_that_cannot_be_checked_is_nobodys_fault():
    limits = Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 1000),))
    driver = CanaryDriver(rolling_out(limits=limits))
    driver.grants = [LeaseGrant(units=0, remaining=1000)] * 100_000

    answer, facts = driver.on_canary()

    assert (answer.event.code, facts) == ("OVERLOADED", (True, "", CANARY))


class UnexplainableDriver(CanaryDriver):
    """A driver whose versions predict, and cannot be explained."""

    def perform(self, effect):
        if isinstance(effect, ExplainCall):
            raise EngineError(EngineErrorCode.NOT_EXPLAINABLE, "no explainer")
        return super().perform(effect)


@pytest.mark.parametrize("canary", [SIGNATURE, WIDER], ids=["engine", "decoder"])
def test_an_explanation_that_both_refuse_is_nobodys_fault(canary):
    driver = UnexplainableDriver(rolling_out(canary=canary))

    answer, facts = driver.on_canary(operation="explain")

    assert (answer.status, facts[:2]) == (400, (True, ""))


def test_an_output_that_cannot_be_encoded_is_the_fault_of_its_version():
    driver = CanaryDriver(rolling_out())
    driver.outputs = (Tensor("output", np.array([1j])),)

    answer, facts = driver.on_canary()

    assert (answer.status, facts) == (500, (True, "MODEL_ERROR", CANARY))
    assert not answer.event.charged


def give_up(driver, at, *, canary=True, operation="predict"):
    """Call until the canary was dealt a call, and leave it at an effect."""
    for _ in range(100):
        steps = driver.plan.steps(make_call(operation))
        effect = next(steps)
        while not isinstance(effect, at):
            effect = steps.send(driver.perform(effect))
        driver.clock.advance(7)
        try:
            steps.throw(CallAbandoned())
        except StopIteration as stop:
            event = stop.value.event
        if event is None or event.dealt.to_canary == canary:
            return event
    raise AssertionError("no call of a block reached the canary")


def make_call(operation):
    sent = {b"authorization": b"Bearer " + KEY.token.encode()}
    head = call_headers.read(sent.items())
    return Call(operation=operation, model="cancer", dialect=NATIVE, head=head)


def test_a_call_that_its_caller_gave_up_tells_how_long_it_had_waited():
    driver = CanaryDriver(rolling_out())
    driver.body = json.dumps(GOOD).encode()

    event = give_up(driver, EngineCall)

    assert (event.status, event.code, event.charged) == (499, "CLIENT_LEFT", False)
    assert (event.total_us, event.rows) == (7_000_000, 0)
    assert (event.dealt.fault, event.dealt.given_up_rows) == ("", 1)


def test_a_stream_that_its_caller_gave_up_before_its_head_tells_it_too():
    driver = CanaryDriver(rolling_out())
    driver.body = json.dumps(GOOD).encode()

    event = give_up(driver, NextChunk, operation="stream")

    assert (event.status, event.code, event.charged) == (499, "CLIENT_LEFT", False)
    assert (event.total_us, event.dealt.given_up_rows) == (7_000_000, 1)
    assert driver.plan.streams.shares.used == 0


def test_who_leaves_before_an_engine_was_asked_tells_nothing():
    assert give_up(CanaryDriver(rolling_out()), NeedBody) is None


def test_who_gives_up_a_call_that_nobody_dealt_leaves_no_event():
    published = snapshot()
    model, *others = published.models
    default = msgspec.structs.replace(model.variants[0], weight_percent=100)
    alone = msgspec.structs.replace(model, variants=(default,))
    driver = Driver(msgspec.structs.replace(published, models=(alone, *others)))
    driver.body = json.dumps(GOOD).encode()

    assert give_up(driver, EngineCall) is None
