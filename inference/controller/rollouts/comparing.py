"""Count what shadows answered: for their totals, and for rollouts of the same version.

This runs in the transaction that moves the offset of the spool, so that no crash counts
anything twice or loses it.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

from accounts.metering.comparison import ComparedCalls
from inference.controller.rollouts import feeding, stored_sums
from inference.models import Rollout, ShadowTotals
from inference.rollouts.counting import Sums

_SUMS = (
    "calls",
    "failed",
    "changed",
    "rows",
    "changed_rows",
    "distance",
    "default_us",
    "shadow_us",
)


def count(found: Iterable[ComparedCalls]) -> None:
    """Add compared calls to the totals of their versions, and to their rollouts."""
    by_versions = defaultdict(list)
    for each in found:
        by_versions[each.model, each.default, each.shadow].append(each)
    for (model, default, shadow), several in sorted(by_versions.items()):
        _add_to_totals(model, default, shadow, several)
    if by_versions:
        feeding.count_each(
            {model for model, _, _ in by_versions},
            lambda rollout: _count(rollout, by_versions.get(_versions_of(rollout))),
            what="Its shadow's answers",
        )


def _add_to_totals(
    model: str, default: int, shadow: int, several: list[ComparedCalls]
) -> None:
    first, last = min(it.at for it in several), max(it.at for it in several)
    row, _ = ShadowTotals.objects.select_for_update().get_or_create(
        model=model,
        default_version=default,
        shadow_version=shadow,
        defaults={"first_at": _time(first), "last_at": _time(last)},
    )
    row.first_at = min(row.first_at, _time(first))
    row.last_at = max(row.last_at, _time(last))
    for name in _SUMS:
        more = sum(getattr(it, name) for it in several)
        setattr(row, name, getattr(row, name) + more)
    row.save()


def _versions_of(rollout: Rollout) -> tuple[str, int, int]:
    return (
        rollout.registered_model.name,
        rollout.default_version.version,
        rollout.version.version,
    )


def _count(rollout: Rollout, several: list[ComparedCalls] | None) -> Sums | None:
    if several is None:
        return None
    began = rollout.started_at.timestamp()
    tests = stored_sums.answer_tests_of(stored_sums.plan_of(rollout))
    sums = stored_sums.read(rollout)
    for each in several:
        if each.at >= began:
            tests.add(sums.answers, each)
    return sums


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
