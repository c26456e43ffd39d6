"""Decide whether a canary changes too many answers, from what a shadow answered.

The canary is also the route's shadow then: it gets copies of the default's calls, so
both versions answered the same input.
"""

import math
from typing import Literal

import msgspec

from accounts.metering.comparison import ComparedCalls
from inference.rollouts import callers
from inference.rollouts.evidence import ShareTest, log_e, part_of_proof
from registry.rules.rollout_plans import Plan

# Chance that a canary that changes no more answers than the plan allows is ever rolled
# back for it.
ALPHA_CHANGED = 0.001
# Chance that a canary that changes more answers than is safe is ever called safe.
_ALPHA_SAFE = 0.05


class AnswerSums(msgspec.Struct):
    """What a rollout remembers of the answers that were compared."""

    calls: int = 0
    failed: int = 0
    rows: int = 0
    changed_rows: int = 0
    distance: float = 0.0
    default_us: int = 0
    shadow_us: int = 0
    # Units of the tests: minutes of keys.
    units: int = 0
    # Evidence that more answers change than allowed, and fewer than is safe.
    more: list[float] = []
    less: list[float] = []
    # The minute of the newest unit of each key.
    counted: dict[str, int] = {}
    # The first keys, and the first with a changed answer.
    keys: list[str] = []
    changed_keys: list[str] = []


class AnswerTests:
    """Count compared calls, as a plan asks.

    The unit is the first second of a key in each minute, and its value is the share of
    changed answers then. Calls of one caller are not independent: the same odd row sent
    a thousand times must not be a thousand proofs, and a caller with many calls weighs
    no more than one with few. So the null hypothesis is: averaged over callers and
    minutes, at most `most_changed_percent` of answers change. The test is a betting
    test of a bounded mean (Waudby-Smith and Ramdas 2024).
    """

    def __init__(self, plan: Plan) -> None:
        self._more = ShareTest(plan.most_changed_percent / 100, greater=True)
        self._less = ShareTest(plan.safe_changed_percent / 100, greater=False)

    def add(self, sums: AnswerSums, found: ComparedCalls) -> None:
        sums.calls += found.calls
        sums.failed += found.failed
        sums.rows += found.rows
        sums.changed_rows += found.changed_rows
        sums.distance += found.distance
        sums.default_us += found.default_us
        sums.shadow_us += found.shadow_us
        key_id = found.key_id
        callers.note(sums.keys, key_id)
        if len(sums.counted) >= callers.MOST_KEPT and key_id not in sums.counted:
            callers.forget_old(sums.counted, now=found.at)
        if not callers.is_first_of_its_minute(sums.counted, key_id=key_id, at=found.at):
            return
        sums.units += 1
        share = min(1.0, found.changed / found.calls)
        if len(sums.more) != len(self._more.start()):
            sums.more, sums.less = self._more.start(), self._less.start()
        self._more.add(sums.more, share)
        self._less.add(sums.less, share)
        if share:
            callers.note(sums.changed_keys, key_id)


def verdict(
    plan: Plan, sums: AnswerSums
) -> tuple[Literal["pause", "roll_back"], str] | None:
    """Return what a rollout has to do because of changed answers, and why, or None."""
    if not sums.more or log_e(sums.more) < math.log(1 / ALPHA_CHANGED):
        return None
    failed = f" ({sums.failed} calls failed)" if sums.failed else ""
    reason = (
        f"{sums.changed_rows} of {sums.rows} answers of the canary to copies of the "
        f"default's calls were others than the default's{failed}. Averaged over "
        f"callers and minutes that is more than {plan.most_changed_percent:g} %, with "
        f"a chance of error of at most {ALPHA_CHANGED:.1%}."
    )
    if not callers.are_many(sums.changed_keys, among=sums.keys):
        text = (
            f"{reason} But only {len(sums.changed_keys)} of the keys that called got "
            "other answers: it may be that caller's input. Look at its calls, then "
            "resume or roll back."
        )
        return "pause", text
    return "roll_back", reason


def parts_of_proof(sums: AnswerSums) -> tuple[float, float]:
    """Return how far the evidence is against the canary, and for it, from 0 to 1."""
    if not sums.more:
        return 0.0, 0.0
    against = part_of_proof(sums.more, ALPHA_CHANGED)
    for_it = part_of_proof(sums.less, _ALPHA_SAFE)
    return min(1.0, max(0.0, against)), min(1.0, max(0.0, for_it))
