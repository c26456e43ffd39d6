"""Gather what a rollout's page shows: both versions side by side, and the evidence."""

import math
from dataclasses import dataclass

import msgspec

from inference.controller.rollouts import stored_sums
from inference.models import Rollout
from inference.rollouts import counting
from inference.rollouts.answers import AnswerSums
from inference.rollouts.counting import Side, Sums
from inference.rollouts.deciding import Evidence, evidence
from inference.rollouts.drifting import share_of
from inference.rollouts.evidence import quantile_ranks, rate_bounds
from inference.rollouts.feedback import Scores
from registry.models import Route

_QUANTILES = (0.5, 0.95, 0.99)
# It keeps a number and its unit on one line.
_NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class StageShown:
    number: int
    weight_percent: int
    is_done: bool
    is_current: bool
    needs: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A number and the bounds between which it is, at all times together."""

    value: str
    bounds: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """One row of the table: the default's number and the canary's."""

    title: str
    default: Measured
    canary: Measured


@dataclass(frozen=True, slots=True)
class RolloutReport:
    stages: list[StageShown]
    rows: list[Compared]
    guards: tuple[Evidence, ...]
    codes: list[tuple[str, int, int]]


def report_on(rollout: Rollout) -> RolloutReport | None:
    """Return what the page shows; None if other code has written plan or sums."""
    try:
        plan, sums = stored_sums.plan_of(rollout), stored_sums.read(rollout)
    except ValueError:
        return None
    is_over = rollout.state == Rollout.State.PROMOTED
    stages = [
        StageShown(
            number=number + 1,
            weight_percent=stage.weight_percent,
            is_done=is_over or number < rollout.stage,
            is_current=rollout.is_active and number == rollout.stage,
            needs=f"at least {stage.least_minutes:g} min and {stage.least_calls} calls",
        )
        for number, stage in enumerate(plan.stages)
    ]
    sides = (sums.default, sums.canary)
    calls = sum(side.calls for side in sides)
    shares = (_weight_of_default(rollout), rollout.weight_percent)
    rows = [
        Compared("Share set now", *(Measured(f"{share}{_NBSP}%") for share in shares)),
        Compared("Share seen, of both", *(_share(side.calls, calls) for side in sides)),
        Compared("Calls", *(Measured(f"{side.calls:,}") for side in sides)),
        Compared("Failed", *(_rate(side.faults, side.calls) for side in sides)),
        Compared("Given up", *(Measured(f"{side.given_up:,}") for side in sides)),
        Compared(
            "Slower than 95 % of the default's",
            *(_rate(side.slow, side.timed) for side in sides),
        ),
        Compared(
            "Slower than 99 % of the default's",
            *(_rate(side.very_slow, side.timed) for side in sides),
        ),
    ]
    more = sums.predictions.more_of_canary
    if more:
        parts = (sums.predictions.default, sums.predictions.canary)
        title = "Predictions that the canary makes more often"
        rows.append(Compared(title, *(_part(share_of(it, more)) for it in parts)))
    told = (sums.feedback.default, sums.feedback.canary)
    if any(scores.count for scores in told):
        rows.append(Compared("Mean score of feedback", *map(_score, told)))
    for quantile in _QUANTILES:
        title = f"p{quantile * 100:g} of the time"
        rows.append(Compared(title, *(_quantile(side, quantile) for side in sides)))
    rows += _of_answers(sums.answers)
    codes = sorted(sums.default.codes.keys() | sums.canary.codes.keys())
    return RolloutReport(
        stages=stages,
        rows=rows,
        guards=tuple(_or_nothing(it, sums) for it in evidence(plan, sums)),
        codes=[
            (code, sums.default.codes.get(code, 0), sums.canary.codes.get(code, 0))
            for code in codes
        ],
    )


def _of_answers(sums: AnswerSums) -> list[Compared]:
    """Return what the canary answered to copies of the default's calls."""
    if not sums.calls:
        return []
    default = Measured("–")
    changed = f"{sums.changed_rows:,} of {sums.rows:,}"
    share = _percent(sums.changed_rows / sums.rows)
    distance = f"{sums.distance / sums.rows:.3g}"
    times = (_ms(total / sums.calls) for total in (sums.default_us, sums.shadow_us))
    return [
        Compared(
            "Other answers to copies of calls",
            default,
            Measured(f"{changed} ({share})", f"{sums.failed:,} calls failed"),
        ),
        Compared("Mean distance of answers, 0 to 1", default, Measured(distance)),
        Compared("Time on the device, of copied calls", *map(Measured, times)),
    ]


def _or_nothing(shown: Evidence, sums: Sums) -> Evidence:
    """Say of a guard without data that it has none: its 0 % are no good sign."""
    compared = {
        "errors": sums.canary.calls,
        "speed": sums.canary.timed,
        "feedback": sums.feedback.canary.count,
        "answers": sums.answers.calls,
        "drift": sum(sums.predictions.canary) or sums.predictions.accepted,
    }
    if compared[shown.guard]:
        return shown
    return msgspec.structs.replace(shown, says=f"{shown.says}; nothing to compare yet")


def _weight_of_default(rollout: Rollout) -> int:
    """Return what the default has beside all canaries, or had beside this one."""
    routes = Route.objects.filter(registered_model=rollout.registered_model_id)
    route = routes.only("default_weight_percent").first() if rollout.is_active else None
    if route is None:
        return 100 - rollout.weight_percent
    return route.default_weight_percent


def _share(calls: int, of: int) -> Measured:
    return Measured("–" if not of else _percent(calls / of, digits=1))


def _part(share: tuple[int, int]) -> Measured:
    hits, calls = share
    return Measured(f"{hits:,} ({_percent(hits / calls)})" if calls else "–")


def _rate(hits: int, calls: int) -> Measured:
    if not calls:
        return Measured("–")
    low, high = rate_bounds(hits, calls)
    return Measured(
        f"{hits:,} ({_percent(hits / calls)})", f"{_percent(low)} to {_percent(high)}"
    )


def _score(scores: Scores) -> Measured:
    if not scores.count:
        return Measured("–")
    return Measured(f"{scores.mean:.3f}", f"of {scores.count:,}")


def _quantile(side: Side, quantile: float) -> Measured:
    calls = sum(side.latencies.values())
    if not calls:
        return Measured("–")
    rank = max(1, math.ceil(quantile * calls))
    value = _ms(counting.value_at_rank(side.latencies, rank))
    ranks = quantile_ranks(quantile, calls)
    if ranks is None:
        return Measured(value, "too few calls for bounds")
    low, high = (_ms(counting.value_at_rank(side.latencies, it)) for it in ranks)
    return Measured(value, f"{low} to {high}")


def _percent(share: float, *, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}{_NBSP}%"


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1000:.3g}{_NBSP}ms"
