"""Delete old minutes of usage; their hours and days stay.

A UTC day is closed when all of it is rolled up, and its minutes, hours and days were
compared and have the same sums. From then on nobody reads or writes its minutes. They
are deleted a day later, when every reader that had begun is done.
"""

import datetime
import time
from typing import Any

import structlog
from django.db import transaction
from django.db.models import QuerySet, Sum

from accounts.models import UnrolledHour, Usage, UsageDay, UsageHour, UsageKeeping
from accounts.models.usage import UsageSums
from accounts.usage import roll_ups
from accounts.usage.grains import DAY, HOUR, day_of
from accounts.usage.roll_ups import LEAST_KEPT, Kind, RollUpProgress

_ROWS_PER_DELETE = 2000

logger = structlog.get_logger(__name__)


def forget_minutes(
    *, now: datetime.datetime, keep: datetime.timedelta, budget_s: float = 5.0
) -> RollUpProgress:
    """Delete minutes older than `keep` for about `budget_s`; return the progress."""
    deadline = time.monotonic() + budget_s
    until = day_of(now - max(keep, LEAST_KEPT))
    while time.monotonic() < deadline and _close_a_day(until):
        pass
    closed = Usage.objects.filter(minute__lt=min(roll_ups.kept_from(), until) - DAY)
    deleted = 0
    while time.monotonic() < deadline:
        oldest = closed.order_by("minute").values_list("pk", flat=True)
        rows, _ = Usage.objects.filter(pk__in=list(oldest[:_ROWS_PER_DELETE])).delete()
        deleted += rows
        if not rows:
            return RollUpProgress(deleted)
    return RollUpProgress(deleted, caught_up=False)


def _close_a_day(until: datetime.datetime) -> bool:
    """Close the first open day before `until`; False if none can be closed."""
    kept_from = roll_ups.kept_from()
    if kept_from >= until:
        return False
    oldest = (
        Usage.objects.filter(minute__gte=kept_from, minute__lt=until)
        .order_by("minute")
        .values_list("minute", flat=True)
        .first()
    )
    # Days without calls are closed together with the day before them.
    end = until if oldest is None else day_of(oldest) + DAY
    if _waits_before(end):
        return False
    if oldest is not None and differing_hours(day_of(oldest)):
        _mark_differing(kept_from, end, day_of(oldest))
        return False
    return _move(kept_from, end)


@transaction.atomic
def _mark_differing(
    kept_from: datetime.datetime, end: datetime.datetime, day: datetime.datetime
) -> None:
    """Mark the hours of a day whose sums are wrong, so that they are rolled up again.

    While they were compared, another process may have closed the day. Usage that came
    since is then only in its hours, which must not be made anew from minutes.
    """
    if roll_ups.lock() != kept_from or _waits_before(end):
        return
    hours = differing_hours(day)
    if hours:
        logger.error(
            "usage_roll_up_differs", day=day.date().isoformat(), hours=len(hours)
        )
        roll_ups.mark(hours)


def _waits_before(end: datetime.datetime) -> bool:
    return UnrolledHour.objects.filter(hour__lt=end).exists()


@transaction.atomic
def _move(kept_from: datetime.datetime, end: datetime.datetime) -> bool:
    # The comparison still holds: any change since has left a mark.
    if roll_ups.lock() != kept_from or _waits_before(end):
        return False
    UsageKeeping.objects.filter(pk=1).update(minutes_from=end)
    return True


def differing_hours(day: datetime.datetime) -> set[tuple[int, datetime.datetime]]:
    """Compare the minutes, hours and days of a UTC day; return the hours that differ.

    That includes hours with usage that came meanwhile; those are marked already.
    """
    differing = set()
    for hour in (day + number * HOUR for number in range(24)):
        minutes = Usage.objects.filter(minute__gte=hour, minute__lt=hour + HOUR)
        hours = UsageHour.objects.filter(start=hour)
        differing |= {(customer_id, hour) for customer_id in _differ(minutes, hours)}
    hours = UsageHour.objects.filter(start__gte=day, start__lt=day + DAY)
    days = UsageDay.objects.filter(start=day)
    return differing | {(customer_id, day) for customer_id in _differ(hours, days)}


def _differ(fine: QuerySet[Any], coarse: QuerySet[Any]) -> set[int]:
    """Return the customers whose sums differ between the two."""
    one, other = _sums(fine).items(), _sums(coarse).items()
    return {kind[0] for kind, _ in one ^ other}


def _sums(rows: QuerySet[Any]) -> dict[Kind, tuple[int, ...]]:
    width = len(UsageSums.KIND)
    found = (
        rows.order_by()
        .values_list(*UsageSums.KIND)
        .annotate(**{f"sum_{name}": Sum(name) for name in UsageSums.SUMS})
    )
    return {row[:width]: row[width:] for row in found}
