"""Count feedback in the sums of its version, and for the rollout of its call, once.

A row is marked as counted in the transaction that adds it, so no crash and no restart
counts it twice or loses it. A correction replaces the number in the sums; a rollout
keeps what was said first: its evidence must not depend on what comes later.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime

from django.db import transaction
from django.db.models import F

from inference.controller.rollouts import feeding, stored_sums
from inference.feedback import items
from inference.models import Feedback, FeedbackSum, Rollout
from inference.rollouts import feedback as weighing
from inference.rollouts.counting import Sums

# Keeps each transaction short.
_ROWS_PER_TRANSACTION = 1000


@transaction.atomic
def count(*, now: datetime) -> int:
    """Count some of what was said since; return how many rows."""
    # Rows that a request changes just now are counted next time.
    waiting = Feedback.objects.uncounted().select_for_update(skip_locked=True)
    rows = list(waiting.order_by("pk")[:_ROWS_PER_TRANSACTION])
    if not rows:
        return 0
    _add_to_sums(rows)
    _weigh(rows)
    for row in rows:
        row.counted, row.counted_at = row.said, now
    changed = ("counted", "counted_at", "is_unit")
    Feedback.objects.bulk_update(rows, changed, batch_size=200)
    return len(rows)


def _add_to_sums(rows: Iterable[Feedback]) -> None:
    """Add what is new and take off what it replaces, by version, day and measure."""
    changes: dict[tuple[str, str, date, str], list[float]] = {}
    for row in rows:
        day = row.called_at.date()
        for sign, numbers in ((-1, row.counted), (1, row.said)):
            for measure, number in numbers.items():
                place = (row.model, row.version, day, measure)
                change = changes.setdefault(place, [0, 0.0])
                change[0] += sign
                change[1] += sign * number
    for (model, version, day, measure), (number, total) in sorted(changes.items()):
        found, _ = FeedbackSum.objects.get_or_create(
            model=model, version=version, day=day, measure=measure
        )
        FeedbackSum.objects.filter(pk=found.pk).update(
            count=F("count") + number, total=F("total") + total
        )


def _weigh(rows: Iterable[Feedback]) -> None:
    """Let the rollouts of the calls count the scores as evidence."""
    units = defaultdict(list)
    for row in _units(rows):
        row.is_unit = True
        units[row.model].append(row)
    if units:
        feeding.count_each(
            units,
            lambda rollout: _count(rollout, units[rollout.registered_model.name]),
            what="Its feedback",
        )


def _units(rows: Iterable[Feedback]) -> list[Feedback]:
    """Choose the first score of each key and minute of calls to each model."""
    rows = [
        row
        for row in rows
        # Not a correction.
        if not row.counted and row.chances and items.score_of(row.said) is not None
    ]
    if not rows:
        return []
    counted = Feedback.objects.filter(
        is_unit=True,
        model__in={row.model for row in rows},
        key_id__in={row.key_id for row in rows},
        called_at__gte=_minute(min(row.called_at for row in rows)),
    )
    seen = {
        (model, key_id, _minute(at))
        for model, key_id, at in counted.values_list("model", "key_id", "called_at")
    }
    units = []
    for row in rows:
        unit = (row.model, row.key_id, _minute(row.called_at))
        if unit not in seen:
            seen.add(unit)
            units.append(row)
    return units


def _told(rollout: Rollout, units: Iterable[Feedback]) -> list[Feedback]:
    """Return the scores of calls that were dealt to one of its two versions."""
    version = str(rollout.version.version)
    versions = {True: version, False: str(rollout.default_version.version)}
    return [
        row
        for row in units
        if version in row.chances
        # Another version answered if one stood in, or if the default was another.
        and row.version == versions[row.to_canary]
        and row.called_at >= rollout.started_at
    ]


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def _count(rollout: Rollout, units: Iterable[Feedback]) -> Sums | None:
    told = _told(rollout, units)
    if not told:
        return None
    plan, sums = stored_sums.plan_of(rollout), stored_sums.read(rollout)
    for row in told:
        if row.called_at.timestamp() < sums.feedback.counts_from:
            continue
        score = items.score_of(row.said)
        assert score is not None
        weighing.add(
            sums.feedback,
            most_drop=plan.most_score_drop,
            key_id=row.key_id,
            chance=row.chances[str(rollout.version.version)],
            on_canary=row.to_canary,
            score=score,
        )
    return sums
