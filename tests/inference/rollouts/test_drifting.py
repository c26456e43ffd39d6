import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.rollouts import drifting
from inference.rollouts.drifting import DriftTest, Predictions, share_of
from inference.rollouts.evidence import log_e

TEST = DriftTest(0.1)


def learnt(*shares):
    """Return what is remembered once codes 0, 1, 2 … have shares of the default's."""
    seen = Predictions()
    for code, share in enumerate(shares):
        for _ in range(round(share * drifting.PREDICTIONS_FOR_BINS)):
            add(seen, code=code, on_canary=False, chance=0.5)
    return seen


def add(seen, **given):
    facts = {"code": 0, "chance": 0.2, "on_canary": True}
    TEST.add(seen, **facts | given)


def predict(seen, codes, *, on_canary=True, chance=0.2):
    for code in codes:
        add(seen, code=code, on_canary=on_canary, chance=chance)


def test_the_defaults_first_predictions_fix_the_bins():
    seen = learnt(0.5, 0.3, 0.2)

    assert seen.edges == [0, 1, 2, 3]
    assert seen.default == [0, 100, 60, 40, 0]
    assert seen.first == {}


def test_the_canary_fixes_no_bins():
    seen = Predictions()

    predict(seen, [1] * 500)

    assert seen.edges == []


def test_many_numbers_are_divided_into_tenths():
    seen = Predictions()

    predict(seen, range(1000, 1200), on_canary=False)

    assert seen.default == [20] * 10


def test_a_label_that_the_default_never_gave_is_a_bin_of_its_own():
    seen = learnt(0.5, 0, 0.5)

    predict(seen, [1] * 30)

    assert share_of(seen.default, seen.more_of_canary) == (0, 200)
    assert share_of(seen.canary, seen.more_of_canary) == (30, 30)


def test_other_predictions_are_evidence():
    seen = learnt(0.9, 0.1)

    predict(seen, [1] * 60)

    assert log_e(seen.differ) > math.log(1000)


def test_the_same_predictions_are_none():
    seen = learnt(0.5, 0.5)

    predict(seen, [0, 1] * 500)

    assert log_e(seen.differ) < 0


def test_a_shift_of_both_moves_nothing():
    seen = learnt(0.9, 0.1)

    for number in range(2000):
        add(seen, code=1, on_canary=number % 5 == 0)

    assert log_e(seen.differ) < math.log(10)


def test_nothing_is_bet_before_the_canary_has_shown_some():
    seen = learnt(0.9, 0.1)

    predict(seen, [1] * 20)

    assert log_e(seen.differ) == 0


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_call_without_a_choice_counts_for_nothing(chance):
    seen = learnt(0.9, 0.1)

    predict(seen, [1] * 100, chance=chance)

    assert sum(seen.canary) == 0


def test_accepted_predictions_are_not_looked_at_again():
    seen = learnt(0.9, 0.1)
    seen.accepted = True

    predict(seen, [1] * 100)

    assert sum(seen.canary) == 0


shares = st.floats(min_value=0.0, max_value=1.0)


@given(
    chance=st.floats(min_value=0.01, max_value=0.99),
    usual=shares,
    differ=st.floats(min_value=-1, max_value=0.1),
    before=st.lists(st.sampled_from([0, 1]), min_size=20, max_size=60),
)
def test_no_canary_within_the_tolerance_gathers_evidence_on_average(
    chance, usual, differ, before
):
    # The chance of code 1, of the default and of the canary: two codes, so that their
    # difference is the total variation; whatever the default's was when it was learnt.
    other = min(1.0, max(0.0, usual + differ, usual - 0.1))
    expected = 0.0
    for on_canary, of_side, one in ((True, chance, other), (False, 1 - chance, usual)):
        for code, of_code in ((1, one), (0, 1 - one)):
            seen = learnt(0.6, 0.4)
            predict(seen, before)
            start = log_e(seen.differ)
            add(seen, code=code, chance=chance, on_canary=on_canary)
            expected += of_side * of_code * math.exp(log_e(seen.differ) - start)

    assert expected <= 1 + 1e-9


def test_a_share_is_between_0_and_1():
    with pytest.raises(ValueError, match="between 0 and 1"):
        DriftTest(0.0)
