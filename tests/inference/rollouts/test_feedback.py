"""What callers' scores say of a canary, also simulated."""

import math
import random

import msgspec
import pytest

from inference.rollouts import counting, feedback
from inference.rollouts.counting import Counter
from inference.rollouts.deciding import ALPHA_FEEDBACK, decide, evidence, guard
from inference.rollouts.evidence import log_e
from inference.rollouts.feedback import FeedbackSums
from registry.routing import Deal, Variant
from registry.rules.rollout_plans import Plan

DROP = 0.05
PROOF = math.log(1 / ALPHA_FEEDBACK)


def add(sums, score, *, on_canary, chance=0.5, key_id="k", most_drop=DROP):
    feedback.add(
        sums,
        most_drop=most_drop,
        key_id=key_id,
        chance=chance,
        on_canary=on_canary,
        score=score,
    )


def simulate(
    *, drop, seed, scores, weight=25, base=0.9, drift=0.0, unsaid=0.0, spread=False
):
    """Return how many scores of the canary it takes until a rollback; None: never."""
    chance = random.Random(seed)
    deal = Deal(
        (
            Variant(version=1, role="default", weight_percent=100 - weight),
            Variant(version=2, role="canary", weight_percent=weight),
        ),
        shuffle=random.Random(f"{seed}").shuffle,
    )
    sums = FeedbackSums()
    for number in range(scores):
        variant, of_canary, _ = deal.next()
        on_canary = variant.role == "canary"
        mean = base + drift * math.sin(number / 400) - drop * on_canary
        score = float(chance.random() < mean)
        if spread:
            # Scores between 0 and 1 have less variance.
            score = 0.5 * mean + 0.5 * score
        if score == 1 and chance.random() < unsaid:
            continue
        add(sums, score, on_canary=on_canary, chance=of_canary)
        if log_e(sums.drop) >= PROOF:
            return sums.canary.count
    return None


@pytest.mark.parametrize(
    "world",
    [
        {"drop": 0.0},
        {"drop": 0.0, "weight": 5},
        # Callers are less content by night, with both versions.
        {"drop": 0.0, "base": 0.6, "drift": 0.35, "weight": 50},
        {"drop": 0.05},
        {"drop": 0.05, "weight": 50, "base": 0.6, "drift": 0.3},
        # Most of the content callers say nothing.
        {"drop": 0.0, "unsaid": 0.7, "weight": 50},
        {"drop": 0.05, "spread": True},
        {"drop": -0.2, "base": 0.7},
    ],
    ids=str,
)
def test_a_canary_within_the_bound_is_never_rolled_back(world):
    # The bound is 0.1 %: of 20 runs none but one in fifty suites of tests.
    found = [simulate(**world, seed=seed, scores=3000) for seed in range(20)]

    assert found == [None] * 20


@pytest.mark.parametrize(
    ("world", "most"),
    [
        ({"drop": 0.1, "scores": 12_000}, 2000),
        ({"drop": 0.2, "scores": 4000}, 250),
        ({"drop": 0.2, "scores": 8000, "weight": 5}, 250),
        ({"drop": 0.2, "scores": 4000, "base": 0.7, "drift": 0.1}, 400),
    ],
    ids=str,
)
def test_a_canary_beyond_the_bound_is_found(world, most):
    found = [simulate(**world, seed=seed) or 10**9 for seed in range(11)]

    assert sorted(found)[5] <= most


def test_the_expected_factor_of_a_step_is_one_at_the_bound():
    for chance in (0.01, 0.3, 0.97):
        for mean in (0.2, 0.9):
            expected = 0.0
            for on_canary in (True, False):
                of_side = chance if on_canary else 1 - chance
                good = mean - DROP * on_canary
                for score, likely in ((1.0, good), (0.0, 1 - good)):
                    sums = FeedbackSums()
                    # Something was said before.
                    sums.default.count, sums.default.total = 9, 7.0
                    add(sums, score, on_canary=on_canary, chance=chance)
                    expected += of_side * likely * math.exp(log_e(sums.drop))

            assert expected == pytest.approx(1.0)


def test_no_score_loses_everything():
    for chance in (0.001, 0.5, 0.999):
        for on_canary in (True, False):
            for score in (0.0, 1.0):
                sums = FeedbackSums()
                add(sums, score, on_canary=on_canary, chance=chance)

                assert min(sums.drop) >= math.log(0.1) - 1e-9


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_what_was_not_left_to_chance_is_shown_and_says_nothing(chance):
    sums = FeedbackSums()

    add(sums, 0.0, on_canary=chance == 1.0, chance=chance)

    assert log_e(sums.drop) == 0
    assert sums.canary.count + sums.default.count == 1


def bad(*, keys, callers=3):
    """Return sums with proof that the canary's scores are lower."""
    sums = Counter(Plan()).start()
    sums.keys = sums.callers = [f"k{number}" for number in range(callers)]
    for number in range(400):
        add(sums.feedback, 0.9, on_canary=False, key_id=f"k{number % keys}")
        add(sums.feedback, 0.2, on_canary=True, key_id=f"k{number % keys}")
    return sums


def test_it_is_rolled_back_with_the_numbers_in_words():
    move = guard(Plan(), bad(keys=3))

    assert (move.action, move.guard) == ("roll_back", "feedback")
    assert "0.20 in the mean of 400, the default's 0.90 of 400" in move.reason
    assert "a drop of more than 0.05" in move.reason


@pytest.mark.parametrize(
    ("keys", "callers", "action"),
    [(1, 3, "pause"), (2, 3, "pause"), (1, 1, "roll_back"), (2, 2, "roll_back")],
)
def test_one_caller_of_several_only_pauses_it(keys, callers, action):
    assert guard(Plan(), bad(keys=keys, callers=callers)).action == action


def test_one_caller_only_pauses_it_when_a_stage_has_just_begun():
    sums = bad(keys=1)
    counting.begin_stage(sums, counts_from=0.0)

    assert guard(Plan(), sums).action == "pause"


def test_the_plan_says_how_much_scores_may_fall():
    plan = Plan(most_score_drop=0.8)
    sums = Counter(plan).start()
    for _ in range(400):
        add(sums.feedback, 0.9, on_canary=False, most_drop=0.8)
        add(sums.feedback, 0.2, on_canary=True, most_drop=0.8)

    assert guard(plan, sums) is None


def test_who_resumes_it_has_looked_at_the_feedback():
    plan, sums = Plan(), bad(keys=1)

    counting.forget_evidence(Counter(plan), sums, guard="feedback")

    assert guard(plan, sums) is None
    assert sums.feedback == FeedbackSums()


def test_a_promotion_needs_no_feedback():
    plan = Plan()
    shown = {each.guard: each for each in evidence(plan, Counter(plan).start())}

    assert shown["feedback"].for_percent is None
    move = decide(plan, Counter(plan).start(), stage=3, stage_s=60.0)
    assert "feedback" not in move.reason


def test_sums_of_before_are_read():

    sums = msgspec.to_builtins(Counter(Plan()).start(), str_keys=True)
    del sums["feedback"]

    read = msgspec.convert(sums, counting.Sums, strict=False)

    assert read.feedback == FeedbackSums()
