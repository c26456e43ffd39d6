"""Decide what a rollout does next, from its plan and its sums.

Guards are looked at in this order, so that what cannot be believed is never acted on:
the dealing of calls, errors, speed, answers, feedback, drift, then whether the stage
has what it needs.
"""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from inference.rollouts import answers, callers
from inference.rollouts.callers import LEAST_KEYS
from inference.rollouts.counting import Sums
from inference.rollouts.drifting import share_of
from inference.rollouts.evidence import log_e, part_of_proof
from registry.rules.rollout_plans import Plan

Action = Literal["stay", "advance", "promote", "ask", "pause", "roll_back"]

# Chance that a canary within the tolerances is ever rolled back, by guard. They share
# 1 % per rollout with `answers.ALPHA_CHANGED`.
ALPHA_ERRORS = 0.004
ALPHA_SLOW = 0.003
ALPHA_DRIFT = 0.001
ALPHA_FEEDBACK = 0.001
# Chance that the dealing of calls is ever called wrong although it is right.
ALPHA_DEALING = 0.001
# Chance that a canary that is worse than a bound is ever called better, for each bound.
ALPHA_SAFE = 0.05


class Move(msgspec.Struct, frozen=True):
    """What to do, the reason in words, and the guard that asked for it."""

    action: Action
    reason: str
    guard: str = ""


class Evidence(msgspec.Struct, frozen=True):
    """How far one guard is: each from 0 (nothing) to 1 (proof)."""

    guard: str
    # From "the canary is worse than the plan allows".
    against: float
    # From "the canary is better than the bound for a promotion"; None: it needs none.
    for_it: float | None
    # What is compared, in words.
    says: str
    # What proof against it leads to.
    leads_to: str = "Roll back"

    @property
    def against_percent(self) -> int:
        return int(self.against * 100)

    @property
    def for_percent(self) -> int | None:
        return None if self.for_it is None else int(self.for_it * 100)


def guard(plan: Plan, sums: Sums) -> Move | None:
    """Return the move that a guard asks for; None if none does."""
    if log_e(sums.dealing) >= math.log(1 / ALPHA_DEALING):
        return Move(
            "pause",
            "The share of calls that reached the canary is not the share that was set, "
            "so its numbers cannot be believed. Look for a gateway with an old "
            "snapshot, or for lost usage events.",
            "dealing",
        )
    if log_e(sums.errors) >= math.log(1 / ALPHA_ERRORS):
        return _for_errors(plan, sums)
    if log_e(_all_slow(sums)) >= math.log(1 / ALPHA_SLOW):
        return _for_slowness(plan, sums)
    changed = answers.verdict(plan, sums.answers)
    if changed is not None:
        return Move(*changed, "answers")
    if log_e(sums.feedback.drop) >= math.log(1 / ALPHA_FEEDBACK):
        return _for_feedback(plan, sums)
    return _for_drift(plan, sums)


def decide(plan: Plan, sums: Sums, *, stage: int, stage_s: float) -> Move:
    """Return the next move; `stage_s` is how long the stage has lasted, in seconds."""
    found = guard(plan, sums)
    if found is not None:
        return found
    lacking = _lacking(plan, sums, stage=stage, stage_s=stage_s)
    is_last = stage == len(plan.stages) - 1
    if not lacking and not is_last:
        following = plan.stages[stage + 1].weight_percent
        return Move("advance", f"Stage {stage + 1} is complete: on to {following} %.")
    if not lacking:
        reason = (
            "All stages are complete, and the canary is shown to be within the bounds."
        )
        if plan.last_step == "second_person":
            return Move("ask", f"{reason} A second person has to approve.")
        return Move("promote", reason)
    text = f"Stage {stage + 1} waits for {', '.join(lacking)}."
    if stage_s < plan.most_minutes * 60:
        return Move("stay", text)
    text = f"Nothing is decided after {plan.most_minutes:g} minutes. {text}"
    if plan.undecided == "roll_back":
        return Move("roll_back", text, "undecided")
    if plan.undecided == "advance" and not is_last:
        return Move("advance", text, "undecided")
    return Move("pause", text, "undecided")


def _for_errors(plan: Plan, sums: Sums) -> Move:
    codes = ", ".join(
        f"{count}× {code}"
        for code, count in sorted(sums.canary.codes.items(), key=lambda it: -it[1])
    )
    reason = (
        f"{sums.canary.faults} of {sums.canary.calls} calls to the canary failed "
        f"({codes}); of the default's calls {sums.default.faults} of "
        f"{sums.default.calls}. That is more than {plan.most_error_ratio:g} times as "
        f"often, with a chance of error of at most {ALPHA_ERRORS:.1%}."
    )
    if not callers.are_many(sums.failing_keys, among=sums.keys):
        return _of_few(reason, sums.failing_keys, had="errors", guard="errors")
    return Move("roll_back", reason, "errors")


def _all_slow(sums: Sums) -> list[float]:
    """Return slow and very slow calls as one test, so that they share its alpha.

    The mean of two e-processes is one, whatever they have in common.
    """
    return [*sums.slow, *sums.very_slow]


def _for_slowness(plan: Plan, sums: Sums) -> Move:
    default, canary = sums.default, sums.canary
    percent, of_default, of_canary = 95, default.slow, canary.slow
    if log_e(sums.very_slow) > log_e(sums.slow):
        percent, of_default, of_canary = 99, default.very_slow, canary.very_slow
    reason = (
        f"{of_canary} of {canary.timed} calls to the canary were slower than "
        f"{percent} % of the default's; of the default's own calls {of_default} of "
        f"{default.timed}. That is more than {plan.most_slow_ratio:g} times as often, "
        f"with a chance of error of at most {ALPHA_SLOW:.1%}."
    )
    if not callers.are_many(sums.slow_keys, among=sums.keys):
        return _of_few(reason, sums.slow_keys, had="slow calls", guard="slow")
    return Move("roll_back", reason, "slow")


def _of_few(reason: str, keys: Sequence[str], *, had: str, guard: str) -> Move:
    text = (
        f"{reason} But only {len(keys)} of the keys that called had {had}: it may be "
        "that caller. Look at its calls, then resume or roll back."
    )
    return Move("pause", text, guard)


def _for_drift(plan: Plan, sums: Sums) -> Move | None:
    seen = sums.predictions
    if plan.on_drift == "ignore" or seen.accepted:
        return None
    if log_e(seen.differ) < math.log(1 / ALPHA_DRIFT):
        return None
    more = seen.more_of_canary
    of_canary, canary = share_of(seen.canary, more)
    of_default, default = share_of(seen.default, more)
    reason = (
        f"{of_canary} of {canary} calls to the canary got predictions that only "
        f"{of_default} of {default} calls to the default got. So they differ in more "
        f"than {plan.most_drift_percent:g} % of calls, with a chance of error of at "
        f"most {ALPHA_DRIFT:.1%}."
    )
    if plan.on_drift == "pause":
        reason += " If the canary is right, resume: that accepts its predictions."
    return Move(plan.on_drift, reason, "drift")


def _drift_shown(plan: Plan, sums: Sums) -> Evidence:
    seen = sums.predictions
    says = (
        "predictions that differ from the default's in at most "
        f"{plan.most_drift_percent:g} % of calls"
    )
    leads_to = "Roll back" if plan.on_drift == "roll_back" else "Pause"
    if seen.accepted:
        return Evidence("drift", 0.0, None, f"{says}; a person accepted them", leads_to)
    return Evidence("drift", _part(seen.differ, ALPHA_DRIFT), None, says, leads_to)


def _for_feedback(plan: Plan, sums: Sums) -> Move:
    told = sums.feedback
    reason = (
        f"Callers score the canary's answers lower: {told.canary.mean:.2f} in the mean "
        f"of {told.canary.count}, the default's {told.default.mean:.2f} of "
        f"{told.default.count}. That is a drop of more than {plan.most_score_drop:g}, "
        f"with a chance of error of at most {ALPHA_FEEDBACK:.1%}."
    )
    if len(told.keys) < min(LEAST_KEYS, len(sums.callers) or LEAST_KEYS):
        text = (
            f"{reason} But that is of {len(told.keys)} of the keys that called: "
            "it may be that caller. Look at its calls, then resume or roll back."
        )
        return Move("pause", text, "feedback")
    return Move("roll_back", reason, "feedback")


def _lacking(plan: Plan, sums: Sums, *, stage: int, stage_s: float) -> list[str]:
    """Return what a stage still needs, in words."""
    needs = plan.stages[stage]
    lacking = []
    if stage_s < needs.least_minutes * 60:
        left = math.ceil(needs.least_minutes - stage_s / 60)
        lacking.append(f"{left} more minute{'s' if left > 1 else ''}")
    if sums.stage_calls < needs.least_calls:
        left = needs.least_calls - sums.stage_calls
        lacking.append(f"{left} more calls to the canary")
    if stage == len(plan.stages) - 1:
        for shown in evidence(plan, sums):
            if shown.for_it is not None and shown.for_it < 1:
                lacking.append(f"evidence on {shown.guard} ({shown.for_it:.0%})")
    return lacking


def evidence(plan: Plan, sums: Sums) -> tuple[Evidence, ...]:
    """Return how far the guards are, for people."""
    of_answers: tuple[Evidence, ...] = ()
    if plan.shadow_percent or sums.answers.calls:
        says = (
            f"other answers than the default's to at most "
            f"{plan.most_changed_percent:g} % of the same inputs"
        )
        against, for_it = answers.parts_of_proof(sums.answers)
        # A shadow that was set by hand may end before it has shown enough.
        is_needed = plan.shadow_percent > 0
        if is_needed:
            says += f"; for a promotion below {plan.safe_changed_percent:g} %"
        shown_for = for_it if is_needed else None
        of_answers = (Evidence("answers", against, shown_for, says),)
    shown: tuple[Evidence, ...] = (
        Evidence(
            "errors",
            _part(sums.errors, ALPHA_ERRORS),
            max(
                _part(sums.errors_safe, ALPHA_SAFE / 2),
                _part(sums.error_share, ALPHA_SAFE / 2),
            ),
            f"at most {plan.most_error_ratio:g} times the default's; for a promotion "
            f"below {plan.safe_error_ratio:g} times, or below "
            f"{plan.safe_error_percent:g} % of calls",
        ),
        Evidence(
            "speed",
            _part(_all_slow(sums), ALPHA_SLOW),
            _safe_speed(sums),
            f"slower than 95 % and 99 % of the default's calls at most "
            f"{plan.most_slow_ratio:g} times as often; for a promotion slower than "
            f"95 % below {plan.safe_slow_ratio:g} times, or in less than "
            f"{plan.safe_slow_percent:g} % of calls",
        ),
        Evidence(
            "feedback",
            _part(sums.feedback.drop, ALPHA_FEEDBACK),
            None,
            f"mean score at most {plan.most_score_drop:g} below the default's",
        ),
        *of_answers,
    )
    return shown if plan.on_drift == "ignore" else (*shown, _drift_shown(plan, sums))


def _safe_speed(sums: Sums) -> float | None:
    """Return how far the proof is that the canary is quick enough.

    None, so that a promotion needs none, if neither version had a call with a time of
    its own: streams end when their caller wants, and cached answers cost no time.
    """
    if not (sums.default.timed or sums.canary.timed):
        return None
    return max(
        _part(sums.slow_safe, ALPHA_SAFE / 2),
        _part(sums.slow_share, ALPHA_SAFE / 2),
    )


def _part(sums: Sequence[float], alpha: float) -> float:
    return min(1.0, max(0.0, part_of_proof(sums, alpha)))
