import pytest

from inference.rollouts import counting
from inference.rollouts.counting import CountedCall, Counter
from inference.rollouts.deciding import decide, evidence
from registry.rules.rollout_plans import Plan, Stage

PLAN = Plan(stages=(Stage(5, 10, 100), Stage(50, 10, 500)), most_minutes=60)


def summed(*, good=0, errors=0, keys=4, slow=0, plan=PLAN):
    """Return the sums of some calls to the canary, after enough to the default."""
    counter = Counter(plan)
    sums = counter.start()

    def add(number, **given):
        # Good calls had no choice, so that they say nothing of the dealing.
        facts = {"size": "predict 1", "total_us": 1000, "on_canary": True}
        facts |= {"chance": 1.0}
        key = f"k{number % keys}"
        counter.add(sums, CountedCall(at=number * 60.0, key_id=key, **facts | given))

    for number in range(counting.CALLS_FOR_A_THRESHOLD):
        add(number, on_canary=False, chance=0.0)
    for number in range(good):
        add(number)
    for number in range(slow):
        add(number, total_us=9000, chance=0.5)
    for number in range(errors):
        add(number, fault="MODEL_ERROR", chance=0.05)
    return sums


def move(sums, *, stage=0, minutes=15.0, plan=PLAN):
    return decide(plan, sums, stage=stage, stage_s=minutes * 60)


def test_a_complete_stage_leads_to_the_next():
    found = move(summed(good=100))

    assert found.action == "advance"
    assert found.reason == "Stage 1 is complete: on to 50 %."


@pytest.mark.parametrize(
    ("good", "minutes", "words"),
    [
        (99, 15, "waits for 1 more calls to the canary"),
        (100, 5, "waits for 5 more minutes"),
        (0, 5, "5 more minutes, 100 more calls"),
    ],
)
def test_a_stage_says_what_it_waits_for(good, minutes, words):
    found = move(summed(good=good), minutes=minutes)

    assert found.action == "stay"
    assert words in found.reason


def test_evidence_of_safety_promotes():
    assert move(summed(good=800), stage=1).action == "promote"


def test_a_model_that_only_streams_is_promoted_without_evidence_on_speed():
    counter = Counter(PLAN)
    sums = counter.start()
    for number in range(2000):
        call = CountedCall(
            at=number * 60.0,
            key_id=f"k{number % 4}",
            size="stream 1",
            total_us=1000 + number,
            on_canary=number % 2 == 0,
            chance=0.5,
            cached=True,
        )
        counter.add(sums, call)

    assert move(sums, stage=1).action == "promote"
    _, speed, *_ = evidence(PLAN, sums)
    assert speed.for_it is None


def test_slow_calls_of_one_key_among_several_only_pause():
    counter = Counter(PLAN)
    sums = summed(good=100)
    call = CountedCall(
        at=60_000.0,
        key_id="slow",
        size="predict 1",
        total_us=9000,
        on_canary=True,
        chance=0.5,
    )
    counter.add(sums, call)
    sums.slow = [12.0] * len(sums.slow)

    found = move(sums)

    assert (found.action, found.guard) == ("pause", "slow")
    assert "only 1 of the keys that called had slow calls" in found.reason
    counting.forget_evidence(counter, sums, guard="slow")
    assert move(sums).action == "advance"


def test_silence_never_promotes():
    # Enough calls for the stage, too few to show that fewer than 1 % fail.
    plan = Plan(stages=(Stage(50, 10, 50),), most_minutes=60)

    found = move(summed(good=60, plan=plan), plan=plan)

    assert found.action == "stay"
    assert "evidence on errors" in found.reason


def test_a_second_person_is_asked_if_the_plan_says_so():
    plan = Plan(stages=PLAN.stages, last_step="second_person")

    assert move(summed(good=800, plan=plan), stage=1, plan=plan).action == "ask"


def test_errors_roll_back_with_the_numbers_that_decided():
    found = move(summed(errors=8))

    assert (found.action, found.guard) == ("roll_back", "errors")
    assert "8 of 8 calls to the canary failed (8× MODEL_ERROR)" in found.reason
    assert "of the default's calls 0 of 200" in found.reason


def test_errors_of_one_key_among_several_only_pause():
    sums = summed(good=100)
    for number in range(8):
        Counter(PLAN).add(
            sums,
            CountedCall(
                at=60.0 * number,
                key_id="k0",
                on_canary=True,
                chance=0.05,
                size="predict 1",
                total_us=1000,
                fault="MODEL_ERROR",
            ),
        )

    found = move(sums)

    assert (found.action, found.guard) == ("pause", "errors")
    assert "only 1 of the keys that called" in found.reason


def test_errors_of_the_only_key_roll_back():
    assert move(summed(errors=8, keys=1)).action == "roll_back"


def test_slowness_rolls_back():
    found = move(summed(slow=20))

    assert (found.action, found.guard) == ("roll_back", "slow")
    assert "20 of 20 calls to the canary were slower" in found.reason


def test_a_slow_tail_rolls_back_and_says_so():
    sums = summed()
    sums.canary.timed, sums.canary.very_slow = 50, 9
    sums.very_slow = [12.0] * len(sums.very_slow)
    sums.slow_keys = ["k0", "k1", "k2"]

    found = move(sums)

    assert (found.action, found.guard) == ("roll_back", "slow")
    assert "9 of 50 calls to the canary were slower than 99 %" in found.reason


def test_slow_and_very_slow_calls_share_one_chance_of_error():
    sums = summed()
    # Proof enough for a test of its own, but not for one of two.
    sums.very_slow = [5.9] * len(sums.very_slow)

    assert move(sums).action == "stay"


def test_a_wrong_share_pauses_before_anything_else_is_believed():
    sums = summed(errors=8)
    sums.dealing = [100.0] * len(sums.dealing)

    assert (move(sums).action, move(sums).guard) == ("pause", "dealing")


@pytest.mark.parametrize("action", ["pause", "advance", "roll_back"])
def test_what_cannot_be_decided_ends_as_the_plan_says(action):
    plan = Plan(stages=PLAN.stages, most_minutes=60, undecided=action)

    found = move(summed(good=10, plan=plan), minutes=61, plan=plan)

    assert (found.action, found.guard) == (action, "undecided")
    assert "90 more calls to the canary" in found.reason


def test_the_last_stage_never_promotes_for_lack_of_a_decision():
    plan = Plan(stages=PLAN.stages, most_minutes=60, undecided="advance")

    found = move(summed(good=10, plan=plan), stage=1, minutes=61, plan=plan)

    assert found.action == "pause"


def test_evidence_is_shown_from_nothing_to_proof():
    errors, speed, _, drift = evidence(PLAN, summed(good=800))

    assert errors.against == 0
    assert errors.for_it == speed.for_it == 1
    # A promotion needs no evidence that predictions are alike.
    assert drift.for_it is drift.for_percent is None


def drifted(*, plan=PLAN, changed=60):
    """Return the sums of a canary that predicts 2 where the default predicts 1."""
    counter = Counter(plan)
    sums = counter.start()
    for second in range(200 + 5 * changed):
        on_canary = second >= 200 and second % 5 == 0
        counter.add(
            sums,
            CountedCall(
                at=float(second),
                key_id="k",
                on_canary=on_canary,
                chance=0.2 if second >= 200 else 0.0,
                size="predict 1",
                total_us=1000,
                predicted=2 if on_canary else 1,
            ),
        )
    return sums


def test_other_predictions_pause_with_the_numbers_that_decided():
    found = move(drifted())

    assert (found.action, found.guard) == ("pause", "drift")
    assert "60 of 60 calls to the canary got predictions that only 0 of 440" in (
        found.reason
    )
    assert "in more than 10 % of calls" in found.reason
    assert "resume: that accepts its predictions" in found.reason


def test_other_predictions_roll_back_if_the_plan_says_so():
    plan = Plan(stages=PLAN.stages, on_drift="roll_back")

    found = move(drifted(plan=plan), plan=plan)

    assert (found.action, found.guard) == ("roll_back", "drift")
    assert "resume" not in found.reason
    assert evidence(plan, drifted(plan=plan))[-1].leads_to == "Roll back"


def test_other_predictions_are_not_looked_at_if_the_plan_says_so():
    plan = Plan(stages=PLAN.stages, on_drift="ignore")
    sums = drifted(plan=plan)

    assert move(sums, plan=plan).action == "stay"
    assert sums.predictions.edges == []
    assert "drift" not in {shown.guard for shown in evidence(plan, sums)}


def test_who_resumes_accepts_other_predictions():
    sums = drifted()

    counting.forget_evidence(Counter(PLAN), sums, guard="drift")

    assert move(sums).action == "stay"
    assert evidence(PLAN, sums)[-1].says.endswith("a person accepted them")


def test_failed_calls_say_nothing_of_predictions():
    sums = drifted(changed=0)
    call = CountedCall(
        at=300.0,
        key_id="k",
        on_canary=True,
        chance=0.2,
        size="predict 1",
        total_us=1000,
        predicted=2,
        fault="INPUT_REFUSED",
    )

    Counter(PLAN).add(sums, call)

    assert sum(sums.predictions.canary) == 0
