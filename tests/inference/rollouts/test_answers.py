"""Whether a canary changes too many answers."""

import random
import statistics

import msgspec
import pytest

from accounts.metering.comparison import ComparedCalls
from inference.rollouts import answers
from inference.rollouts.answers import AnswerSums, AnswerTests
from registry.rules.rollout_plans import Plan
from tests.torture import examples

PLAN = Plan(most_changed_percent=5, safe_changed_percent=10)
RUNS = examples(100)


def compared(**given):
    fields = {
        "at": 60.0,
        "customer_id": 1,
        "key_id": "a",
        "model": "m",
        "default": 1,
        "shadow": 2,
        "calls": 1,
        "failed": 0,
        "changed": 0.0,
        "rows": 1,
        "changed_rows": 0,
        "distance": 0.0,
        "default_us": 100,
        "shadow_us": 200,
    }
    return ComparedCalls(**(fields | given))


def counted(*found, plan=PLAN):
    tests, sums = AnswerTests(plan), AnswerSums()
    for each in found:
        tests.add(sums, each)
    return sums


def simulated(share, *, minutes, seed, keys=20, calls=5):
    """Return the minute in which it was rolled back, or None.

    Each key makes `calls` calls a minute, and `share` of all answers are changed.
    """
    source = random.Random(seed)
    tests, sums = AnswerTests(PLAN), AnswerSums()
    for minute in range(minutes):
        for key in range(keys):
            changed = sum(source.random() < share for _ in range(calls))
            at = 60.0 * minute + key
            tests.add(
                sums,
                compared(at=at, key_id=f"key {key}", calls=calls, changed=changed),
            )
        if answers.verdict(PLAN, sums) is not None:
            return minute
    return None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
def test_a_canary_that_changes_no_more_than_allowed_is_left_alone(share):
    rolled_back = [
        simulated(share, minutes=100, seed=seed) is not None for seed in range(RUNS)
    ]

    # At exactly the tolerance the bound is 0.1 %.
    assert sum(rolled_back) <= 1 + RUNS // 500


@pytest.mark.parametrize(("share", "most_minutes"), [(0.1, 40), (0.3, 3), (1.0, 1)])
def test_a_canary_that_changes_more_is_rolled_back(share, most_minutes):
    found = [simulated(share, minutes=200, seed=seed) for seed in range(RUNS // 5)]

    assert None not in found
    assert statistics.median(found) <= most_minutes


def test_calls_of_one_key_within_a_minute_are_one_proof():
    sums = counted(
        *(compared(at=60.0 + second, changed=1.0) for second in range(59)),
    )

    assert (sums.calls, sums.units) == (59, 1)
    assert answers.verdict(PLAN, sums) is None


def test_a_clock_that_was_set_back_counts_no_minute_twice():
    sums = counted(compared(at=300.0), compared(at=120.0), compared(at=301.0))

    assert sums.units == 1


def test_one_caller_alone_pauses_and_many_roll_back():
    odd = [compared(at=60.0 * minute, changed=1.0) for minute in range(20)]
    others = [compared(key_id=f"key {number}") for number in range(2)]

    action, reason = answers.verdict(PLAN, counted(*others, *odd))
    assert action == "pause"
    assert "only 1 of the keys" in reason

    everybody = [
        compared(key_id=f"key {number}", changed=1.0, changed_rows=1)
        for number in range(10)
    ]
    action, reason = answers.verdict(PLAN, counted(*everybody))
    assert action == "roll_back"
    assert reason == (
        "10 of 10 answers of the canary to copies of the default's calls were others "
        "than the default's. Averaged over callers and minutes that is more than 5 %, "
        "with a chance of error of at most 0.1%."
    )


def test_the_only_caller_is_enough_if_there_are_no_others():
    odd = [compared(at=60.0 * minute, changed=1.0) for minute in range(20)]

    assert answers.verdict(PLAN, counted(*odd))[0] == "roll_back"


def test_evidence_for_the_canary_grows_with_equal_answers():
    equal = [compared(at=60.0 * minute) for minute in range(100)]

    against, for_it = answers.parts_of_proof(counted(*equal))

    assert (against, for_it) == (0.0, 1.0)
    assert answers.parts_of_proof(AnswerSums()) == (0.0, 0.0)


def test_many_keys_stay_bounded_and_old_minutes_are_forgotten():
    tests, sums = AnswerTests(PLAN), AnswerSums()
    for number in range(2_500):
        tests.add(sums, compared(key_id=f"key {number}"))
    assert (len(sums.counted), sums.units) == (2_000, 2_000)

    tests.add(sums, compared(key_id="later", at=60.0 * 30))

    assert sums.units == 2_001
    assert [*sums.counted] == ["later"]


def test_sums_of_tests_of_other_code_begin_again():
    sums = counted(compared(changed=1.0))
    sums.more = [0.0]

    AnswerTests(PLAN).add(sums, compared(at=120.0))

    assert len(sums.more) == len(sums.less) > 1
    assert msgspec.convert(msgspec.to_builtins(sums), AnswerSums) == sums
