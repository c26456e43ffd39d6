import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.rollouts.evidence import (
    OddsTest,
    ShareTest,
    log_e,
    part_of_proof,
    quantile_ranks,
    rate_bounds,
)

chances = st.floats(min_value=0.01, max_value=0.99)
ratios = st.floats(min_value=0.05, max_value=20)
WORSE = OddsTest(1.2, (1.5, 2.0, 3.0, 5.0, 10.0, 20.0))
BETTER = OddsTest(2.0, (0.2, 0.5, 1.0, 1.6))


def expected_factor(test, chance, ratio):
    """Return the mean of e after one event, if the canary has `ratio` times more."""
    p = chance * ratio / (chance * ratio + 1 - chance)
    mean = 0.0
    for on_canary, probability in ((True, p), (False, 1 - p)):
        sums = test.start()
        test.add(sums, chance=chance, on_canary=on_canary)
        mean += probability * math.exp(log_e(sums))
    return mean


@given(chance=chances, ratio=st.floats(min_value=0.01, max_value=1.2))
def test_no_canary_within_the_tolerance_gathers_evidence_on_average(chance, ratio):
    assert expected_factor(WORSE, chance, ratio) <= 1 + 1e-9


@given(chance=chances, ratio=st.floats(min_value=2.0, max_value=50))
def test_no_canary_beyond_the_bound_looks_safe_on_average(chance, ratio):
    assert expected_factor(BETTER, chance, ratio) <= 1 + 1e-9


@given(chance=chances)
def test_a_canary_that_is_much_worse_gathers_evidence(chance):
    assert expected_factor(WORSE, chance, 10.0) > 1


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_call_without_a_choice_says_nothing(chance):
    sums = WORSE.start()

    WORSE.add(sums, chance=chance, on_canary=chance == 1.0)

    assert sums == WORSE.start()


def test_evidence_is_kept_in_logarithms_so_that_it_cannot_overflow():
    sums = WORSE.start()

    for _ in range(100_000):
        WORSE.add(sums, chance=0.05, on_canary=True)

    assert math.isfinite(log_e(sums))
    assert part_of_proof(sums, 0.004) > 1000


def test_sums_of_two_gateways_add_up_to_those_of_one():
    events = [(0.1, True), (0.3, False), (0.5, True), (0.2, False)]
    together, one, other = (WORSE.start() for _ in range(3))

    for number, (chance, on_canary) in enumerate(events):
        WORSE.add(together, chance=chance, on_canary=on_canary)
        WORSE.add((one, other)[number % 2], chance=chance, on_canary=on_canary)

    assert [a + b for a, b in zip(one, other, strict=True)] == pytest.approx(together)


@given(
    null=st.floats(min_value=0.01, max_value=0.99),
    mean=st.floats(min_value=0, max_value=1),
    greater=st.booleans(),
)
def test_a_share_within_the_null_hypothesis_gathers_no_evidence(null, mean, greater):
    test = ShareTest(null, greater=greater)
    mean = min(mean, null) if greater else max(mean, null)
    expected = 0.0
    for value, probability in ((1.0, mean), (0.0, 1 - mean)):
        sums = test.start()
        test.add(sums, value)
        expected += probability * math.exp(log_e(sums))

    assert expected <= 1 + 1e-9


def test_some_hundred_calls_without_an_error_show_that_fewer_than_1_percent_fail():
    test = ShareTest(0.01, greater=False)
    sums = test.start()
    calls = 0

    while part_of_proof(sums, 0.05) < 1:
        test.add(sums, 0.0)
        calls += 1

    # Even a test with a single look needs 299.
    assert 299 <= calls <= 500


def test_bounds_of_a_rate_hold_at_all_times_together():
    misses = 0
    for seed in range(100):
        chance, hits = random.Random(seed), 0
        for calls in range(1, 300):
            hits += chance.random() < 0.2
            if calls % 10:
                continue
            low, high = rate_bounds(hits, calls, alpha=0.05)
            if not low <= 0.2 <= high:
                misses += 1
                break

    assert misses <= 10


@pytest.mark.parametrize("hits", [0, 3, 10])
def test_bounds_of_a_rate_close_around_what_was_seen(hits):
    low, high = rate_bounds(hits * 1000, 10_000)

    assert low <= hits / 10 <= high
    assert high - low < 0.05


def test_nothing_seen_bounds_nothing():
    assert rate_bounds(0, 0) == (0.0, 1.0)
    assert quantile_ranks(0.5, 0) is None
    assert quantile_ranks(0.99, 20) is None


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_bounds_of_a_quantile_surround_its_rank(quantile):
    low, high = quantile_ranks(quantile, 5000)

    assert 1 <= low < quantile * 5000 < high <= 5000
    assert high - low < 400
