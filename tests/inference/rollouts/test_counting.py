"""What calls count for, and the traps."""

import math

import pytest

from inference.rollouts import callers, counting
from inference.rollouts.counting import CALLS_FOR_A_THRESHOLD, CountedCall, Counter
from inference.rollouts.evidence import log_e
from registry.rules.rollout_plans import Plan

COUNTER = Counter(Plan())


def call(**given):
    facts = {
        "at": 1000.0,
        "key_id": "k1",
        "on_canary": True,
        "chance": 0.05,
        "size": "predict 1",
        "total_us": 1000,
    }
    return CountedCall(**facts | given)


def count(*calls):
    sums = COUNTER.start()
    for each in calls:
        COUNTER.add(sums, each)
    return sums


def errors_of(key_ids, *, minutes=1, **given):
    return [
        call(key_id=key, at=60.0 * minute, fault="MODEL_ERROR", **given)
        for minute in range(minutes)
        for key in key_ids
    ]


def test_errors_on_the_canary_are_evidence_against_it():
    sums = count(*errors_of("abcd", minutes=3))

    assert log_e(sums.errors) > math.log(1 / 0.004)


def test_errors_on_the_default_are_not():
    sums = count(*errors_of("abcd", minutes=3, on_canary=False))

    assert log_e(sums.errors) < 0


def test_one_error_counts_for_each_key_and_minute():
    once = count(*errors_of("a"))
    often = count(*errors_of("a") * 50)

    assert often.errors == once.errors
    assert often.canary.faults == 50


def test_another_code_of_the_same_key_does_not_count_again():
    # Else versions that fail equally often, each by its own code, both count in full.
    first, second = errors_of("a"), call(at=0.0, key_id="a", fault="INFERENCE_TIMEOUT")

    assert count(*first, second).errors == count(*first).errors


def test_a_clock_that_jumped_ahead_and_back_hides_no_errors():
    ahead = call(at=90_000.0, key_id="a", fault="MODEL_ERROR")

    sums = count(ahead, *errors_of("abcd", minutes=3))

    assert log_e(sums.errors) > math.log(1 / 0.004)


def test_an_error_on_the_default_uses_up_the_minute_as_well():
    # Else many errors of the default would count once, and the canary's few in full.
    default = call(at=0.0, on_canary=False, fault="MODEL_ERROR")
    canary = call(at=1.0, fault="MODEL_ERROR")

    assert count(default, canary).errors == count(default).errors


def test_what_a_caller_did_wrong_counts_only_for_the_dealing():
    sums = count(call(refused=True))

    assert sums.canary.calls == 0
    assert sums.errors == COUNTER.start().errors
    assert sums.dealing_waits != {}


def test_calls_before_the_canary_was_warm_do_not_count():
    sums = COUNTER.start()
    counting.begin_stage(sums, counts_from=2000.0)

    COUNTER.add(sums, call(at=1999.0, fault="MODEL_ERROR"))

    assert sums.canary.calls == 0


def test_the_chance_of_the_call_counts_and_not_the_weight():
    likely = count(call(chance=0.9, fault="MODEL_ERROR"))
    unlikely = count(call(chance=0.02, fault="MODEL_ERROR"))

    assert log_e(unlikely.errors) > log_e(likely.errors)


def learnt(*calls):
    """Return sums after the default's calls have fixed what is slow."""
    usual = [call(on_canary=False, total_us=1000)] * CALLS_FOR_A_THRESHOLD
    return count(*usual, *calls)


def test_slow_calls_of_the_canary_are_evidence_against_it():
    sums = learnt(*[call(total_us=9000)] * 10)

    assert log_e(sums.slow) > math.log(1 / 0.003)
    assert (sums.canary.slow, sums.canary.timed) == (10, 10)


def test_a_slow_tail_of_the_canary_is_evidence_against_it():
    # The default's: 1 ms, with 4 % that take 3 ms and 2 % that take 9 ms.
    usual = [1000] * 188 + [3000] * 8 + [9000] * 4
    calls = [call(on_canary=False, total_us=took) for took in usual]

    sums = count(*calls, *[call(total_us=20_000)] * 6)

    assert sums.thresholds_us["predict 1"][0] < 4000
    assert 9000 <= sums.thresholds_us["predict 1"][1] < 10_000
    assert log_e(sums.very_slow) > math.log(1 / 0.003)
    assert (sums.canary.slow, sums.canary.very_slow) == (6, 6)


def test_slow_calls_that_are_not_very_slow_count_only_as_slow():
    usual = [1000] * 188 + [3000] * 8 + [9000] * 4
    calls = [call(on_canary=False, total_us=took) for took in usual]

    sums = count(*calls, *[call(total_us=5000)] * 6)

    assert (sums.canary.slow, sums.canary.very_slow) == (6, 0)
    assert log_e(sums.very_slow) == 0


def test_cached_answers_say_nothing_of_speed():
    sums = learnt(*[call(total_us=9000, cached=True)] * 10)

    assert log_e(sums.slow) == 0
    assert sums.canary.latencies == {}


def test_nothing_is_slow_before_the_threshold_is_known():
    sums = count(*[call(total_us=9_000_000)] * 100)

    assert log_e(sums.slow) == 0


def test_large_inputs_have_a_threshold_of_their_own():
    sums = learnt(*[call(total_us=9000, size="predict 9")] * 10)

    assert log_e(sums.slow) == 0


def test_a_new_stage_learns_its_threshold_again_and_keeps_the_evidence():
    sums = learnt(*[call(total_us=9000)] * 3)
    before = list(sums.slow)

    counting.begin_stage(sums, counts_from=0.0)
    COUNTER.add(sums, call(total_us=9000))

    assert sums.slow == before
    assert sums.stage_calls == 1


@pytest.mark.parametrize(("every", "is_wrong"), [(4, False), (3, True), (5, True)])
def test_a_share_that_is_not_the_weight_shows(every, is_wrong):
    calls = [
        call(at=n / 10, chance=0.25, on_canary=n % every == 0) for n in range(4000)
    ]

    sums = count(*calls)

    assert (log_e(sums.dealing) > math.log(1000)) == is_wrong


@pytest.mark.parametrize("took_s", [30.0, 0.1])
def test_a_canary_that_ends_later_or_sooner_has_its_share_all_the_same(took_s):
    # Gateways report a call when it ends.
    ends = []
    for n in range(20_000):
        on_canary, began = n % 20 == 0, n / 100
        ended = began + (took_s if on_canary else 2.0)
        ends.append((ended, call(at=began, chance=0.05, on_canary=on_canary)))
    sums, most = COUNTER.start(), 0.0

    for _, each in sorted(ends, key=lambda it: it[0]):
        COUNTER.add(sums, each)
        most = max(most, log_e(sums.dealing))

    assert most < math.log(1000)


def test_streams_say_nothing_of_the_share():
    calls = [
        call(at=n / 10, chance=0.05, on_canary=True, is_stream=True)
        for n in range(2000)
    ]

    assert log_e(count(*calls).dealing) == 0


def test_old_errors_are_forgotten():
    sums = count(*errors_of([f"k{n}" for n in range(100)]), call(at=10_000.0))

    assert sums.counted == {}


def test_what_is_remembered_of_keys_is_bounded():
    sums = count(*errors_of([f"k{n}" for n in range(3000)]))

    assert len(sums.counted) == 2000
    assert len(sums.keys) == len(sums.failing_keys) == callers.LEAST_KEYS


def test_a_bucket_ends_at_most_a_tenth_after_each_of_its_values():
    for microseconds in (1, 7, 100, 999, 1_000_000):
        end = counting.end_of_us(counting.bucket_of(microseconds))
        assert microseconds <= end <= microseconds * 1.1


def test_only_the_first_error_of_a_sticky_caller_counts():
    once = count(*errors_of("abc", unit="u1"))
    often = count(*errors_of("abc", minutes=9, unit="u1"))
    others = count(*errors_of("abc", unit="u1"), *errors_of("def", unit="u2"))

    assert often.errors == once.errors
    assert others.errors == pytest.approx([2 * step for step in once.errors])
    assert often.canary.faults == 27


def test_sticky_callers_are_evidence_for_a_canary_only_by_their_share():
    failing = errors_of("abc", on_canary=False, unit="u1")
    fine = [call(unit=f"u{number % 20}") for number in range(100)]

    sums = count(*failing, *fine)

    assert sums.errors_safe == COUNTER.start().errors_safe
    # Twenty callers without an error, not a hundred calls.
    assert sums.error_share == count(*[call() for _ in range(20)]).error_share


def test_the_dealing_of_a_sticky_caller_counts_once():
    def late(calls):
        return [*calls, call(at=2000.0, chance=0.0)]

    once = count(*late([call(unit="u1")]))
    often = count(*late([call(unit="u1")] * 50))

    assert often.dealing == once.dealing
    assert any(once.dealing)


def test_a_slow_sticky_caller_counts_once():
    known = [
        call(on_canary=False, chance=0.0, unit=f"d{n}")
        for n in range(CALLS_FOR_A_THRESHOLD)
    ]
    once = count(*known, call(unit="u1", total_us=9000))
    often = count(*known, *[call(unit="u1", total_us=9000)] * 50)

    assert often.slow == once.slow
    assert often.slow_share == once.slow_share
    assert any(once.slow)
    assert often.canary.slow == 50


def test_units_are_remembered_up_to_a_bound_and_forgotten_with_the_stage():
    calls = [call(unit=f"u{n}") for n in range(counting.MOST_UNITS + 100)]
    sums = count(*calls)

    assert len(sums.units) == counting.MOST_UNITS
    full = list(sums.errors)
    COUNTER.add(sums, call(unit="one more", fault="MODEL_ERROR"))
    assert sums.errors == full

    counting.begin_stage(sums, counts_from=0.0)
    assert len(sums.units) == counting.MOST_UNITS
    # Another weight deals them anew.
    counting.begin_stage(sums, counts_from=0.0, weight_percent=25)
    assert sums.units == {}


def test_a_call_that_was_given_up_after_the_threshold_was_slow():
    sums = learnt(*[call(total_us=9000, gave_up=True)] * 10)

    assert log_e(sums.slow) > math.log(1 / 0.003)
    assert (sums.canary.slow, sums.canary.given_up) == (10, 10)
    # It is no answer, and no stage is complete by it.
    assert sums.canary.calls == sums.stage_calls == 0
    assert sums.canary.latencies == {}


@pytest.mark.parametrize("size", ["predict 1", "predict 9"])
def test_a_call_that_was_given_up_early_says_only_that_it_was_dealt(size):
    quick = call(total_us=500, gave_up=True, size=size)

    sums = learnt(*[quick] * 10)

    assert (sums.canary.timed, sums.canary.given_up) == (0, 10)
    assert log_e(sums.slow) == 0
    assert sums.slow_share == COUNTER.start().slow_share


def test_who_gives_up_waiting_for_the_default_because_the_canary_refused_tells_of_it():
    sums = count(call(gave_up=True, fault="INPUT_REFUSED"))

    assert sums.canary.codes == {"INPUT_REFUSED": 1}
