"""Define the plan of a rollout: its stages, its bounds, and what else may happen."""

import itertools
from typing import Any, Literal

import msgspec

MOST_STAGES = 20


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a rollout: a weight, and what it takes to go on."""

    weight_percent: int
    least_minutes: float = 10.0
    # Calls that the canary answered in this stage.
    least_calls: int = 100


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a canary becomes the default."""

    stages: tuple[Stage, ...] = (
        Stage(1, 5, 20),
        Stage(5, 10, 100),
        Stage(25, 10, 300),
        Stage(50, 15, 500),
    )
    # The canary may fail, and be slow, so many times as often as the default.
    most_error_ratio: float = 1.2
    most_slow_ratio: float = 1.2
    # Promotion needs evidence that the canary fails less often than this: either so
    # many times as often as the default, or in so many of its calls.
    safe_error_ratio: float = 2.0
    safe_error_percent: float = 1.0
    # Likewise of calls slower than 95 % of the default's.
    safe_slow_ratio: float = 2.0
    safe_slow_percent: float = 10.0
    # Share of the default's calls that the canary gets copies of, as the shadow of its
    # route. It may answer so many percent of them otherwise.
    shadow_percent: int = 0
    most_changed_percent: float = 5.0
    safe_changed_percent: float = 10.0
    # The canary's predictions may be distributed otherwise in so many percent of calls.
    most_drift_percent: float = 10.0
    # A better version may rightly predict otherwise, so a person looks at it.
    on_drift: Literal["pause", "roll_back", "ignore"] = "pause"
    # The mean score that callers give may be so much lower than the default's.
    most_score_drop: float = 0.05
    # When a stage has lasted so long without all that it needs.
    most_minutes: float = 24 * 60.0
    undecided: Literal["pause", "advance", "roll_back"] = "pause"
    # Who may make the canary the default: the rollout itself, or a second person.
    last_step: Literal["automatic", "second_person"] = "automatic"


def parse(value: Any) -> Plan:
    """Read a plan from JSON; raise ValueError with sentences for people."""
    try:
        plan = msgspec.convert(value, Plan)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}.") from error
    if problems := check(plan):
        raise ValueError(" ".join(problems))
    return plan


def check(plan: Plan) -> list[str]:
    """Return what is wrong with a plan, as sentences."""
    problems = []
    weights = [stage.weight_percent for stage in plan.stages]
    if not weights:
        problems.append("A plan has at least one stage.")
    if len(weights) > MOST_STAGES:
        problems.append(f"A plan has at most {MOST_STAGES} stages.")
    if any(not 1 <= weight <= 99 for weight in weights):
        problems.append(
            "The weight of a stage is 1 to 99 percent. After the last stage the canary "
            "becomes the default and gets 100."
        )
    if any(after <= before for before, after in itertools.pairwise(weights)):
        problems.append("Each stage needs a greater weight than the one before.")
    if any(stage.least_minutes < 0 or stage.least_calls < 1 for stage in plan.stages):
        problems.append("Each stage needs at least one call, and no negative time.")
    if any(stage.least_minutes >= plan.most_minutes for stage in plan.stages):
        problems.append("A stage cannot need more minutes than `most_minutes`.")
    for name in ("most_error_ratio", "most_slow_ratio"):
        if not 1 <= getattr(plan, name) <= 10:
            problems.append(f"`{name}` is a number from 1 to 10.")
    for name, most in (
        ("safe_error_ratio", plan.most_error_ratio),
        ("safe_slow_ratio", plan.most_slow_ratio),
    ):
        if not most < getattr(plan, name) <= 100:
            problems.append(
                f"`{name}` is greater than `{name.replace('safe', 'most')}`, up to 100."
            )
    if not 0 <= plan.shadow_percent <= 100:
        problems.append("`shadow_percent` is a whole number from 0 to 100.")
    if not 0.1 <= plan.most_changed_percent < plan.safe_changed_percent:
        problems.append(
            "`most_changed_percent` is at least 0.1, and less than "
            "`safe_changed_percent`."
        )
    for name in ("safe_error_percent", "safe_slow_percent", "safe_changed_percent"):
        if not 0.01 <= getattr(plan, name) <= 99:
            problems.append(f"`{name}` is a number from 0.01 to 99.")
    if not 1 <= plan.most_drift_percent <= 90:
        problems.append("`most_drift_percent` is a number from 1 to 90.")
    if not 0 <= plan.most_score_drop <= 0.9:
        problems.append("`most_score_drop` is a number from 0 to 0.9.")
    return problems
