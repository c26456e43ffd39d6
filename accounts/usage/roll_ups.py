"""Add up minutes of usage to hours and days.

While minutes are kept, they are the truth. A transaction that changes minutes leaves a
mark for their hour, an `UnrolledHour`. To roll the hour up makes its rows anew from all
its minutes and removes the mark, both or neither. So it may run twice, be killed at any
moment, and meet usage that comes a day late. A day is made anew when its last mark
goes. Readers take marked hours from the minutes (`grains.py`), so hours and days have
the same sums as minutes at any time; if rolling up is late, reading is only slower.

Old minutes are deleted after hours and days were compared with them. Usage that comes
even later is added to its hour and day directly.

Locks are taken in this order: the row of `UsageKeeping`, then the marks of hours. Only
the holder of the first changes hours and days. A transaction that adds minutes holds
the marks of their hours; it needs the first only if the minutes might be deleted.
"""

import datetime
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Min, QuerySet, Value
from django.db.models.functions import Greatest
from django.utils import timezone

from accounts.models import UnrolledHour, Usage, UsageDay, UsageHour, UsageKeeping
from accounts.models.usage import RolledUsage, UsageSums
from accounts.usage.grains import DAY, HOUR, day_of, hour_of

# Monthly quotas are settled by the minutes of the month.
LEAST_KEPT = datetime.timedelta(days=35)
# The worker runs ten rounds in this time.
LATE_AFTER = datetime.timedelta(minutes=5)
# The minutes of younger usage are surely kept, so nobody asks; the day between allows
# for clocks that disagree.
_SURELY_KEPT = LEAST_KEPT - DAY
_EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_HOURS_PER_ROUND = 1000
_ROWS_PER_INSERT = 500

Kind = tuple[Any, ...]

logger = structlog.get_logger(__name__)
Rolled = TypeVar("Rolled", bound=RolledUsage)


@dataclass(frozen=True, slots=True)
class RollUpProgress:
    """How much one round did, and whether nothing is left to do."""

    done: int = 0
    caught_up: bool = True


# Marks


def mark(hours: Iterable[tuple[int, datetime.datetime]]) -> None:
    """Mark hours of customers and hold them until the transaction ends.

    Call it before reading or writing their minutes.
    """
    UnrolledHour.objects.bulk_create(
        [
            UnrolledHour(customer_id=customer_id, hour=hour)
            for customer_id, hour in sorted(set(hours))
        ],
        batch_size=_ROWS_PER_INSERT,
        update_conflicts=True,
        unique_fields=["hour", "customer"],
        # Nothing changes, but an update locks the row; to ignore the conflict does not.
        update_fields=["hour"],
    )


@dataclass(frozen=True, slots=True)
class RolledUp:
    """Which part of a span must be read from minutes."""

    # Hours whose newest usage is only in their minutes.
    unrolled: frozenset[datetime.datetime]
    kept_from: datetime.datetime


def rolled_up(
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    *,
    customer_ids: Collection[int] | None = None,
) -> RolledUp:
    """Read the marks of a span, and since when minutes are kept, in one query."""
    marks = UnrolledHour.objects.filter(hour__gte=hour_of(starts_at), hour__lt=ends_at)
    if customer_ids is not None:
        marks = marks.filter(customer_id__in=customer_ids)
    # A union of both, told apart by their second column.
    hours = marks.order_by().values_list("hour", Value(0)).distinct()
    keeping = UsageKeeping.objects.filter(pk=1).order_by()
    found = list(hours.union(keeping.values_list("minutes_from", Value(1)), all=True))
    kept = [at for at, is_keeping in found if is_keeping]
    return RolledUp(
        unrolled=frozenset(at for at, is_keeping in found if not is_keeping),
        kept_from=_believed(kept[0]) if kept else _EVER,
    )


def lag(*, now: datetime.datetime) -> datetime.timedelta:
    """Return how long the oldest hour that could be rolled up has waited."""
    ready_at = Greatest(
        "since", ExpressionWrapper(F("hour") + HOUR, output_field=DateTimeField())
    )
    oldest = _ended(now).aggregate(at=Min(ready_at))["at"]
    return datetime.timedelta() if oldest is None else now - min(oldest, now)


def _ended(now: datetime.datetime) -> QuerySet[UnrolledHour]:
    """Select marked hours that have ended; others would change with every call."""
    return UnrolledHour.objects.filter(hour__lte=now - HOUR)


# Rolling up


def roll_up(*, now: datetime.datetime, budget_s: float = 5.0) -> RollUpProgress:
    """Roll up hours that have ended, oldest first, for about `budget_s`."""
    deadline = time.monotonic() + budget_s
    waiting = list(
        _ended(now)
        .order_by("hour", "customer_id")
        .values_list("customer_id", "hour")[:_HOURS_PER_ROUND]
    )
    for done, (customer_id, hour) in enumerate(waiting):
        if time.monotonic() > deadline:
            behind = lag(now=now)
            if behind > LATE_AFTER:
                seconds = round(behind.total_seconds())
                logger.warning("usage_roll_up_is_behind", seconds=seconds)
            return RollUpProgress(done, caught_up=False)
        _roll_hour(customer_id, hour)
    return RollUpProgress(len(waiting), caught_up=len(waiting) < _HOURS_PER_ROUND)


@transaction.atomic
def _roll_hour(customer_id: int, hour: datetime.datetime) -> None:
    kept_from = lock()
    day = day_of(hour)
    marks = UnrolledHour.objects.filter(
        customer_id=customer_id, hour__gte=day, hour__lt=day + DAY
    )
    deleted, _ = marks.filter(hour=hour).delete()
    if not deleted or hour < kept_from:
        # Another process did it; or its minutes are gone, and only the hour has all.
        return
    minutes = Usage.objects.filter(
        customer_id=customer_id, minute__gte=hour, minute__lt=hour + HOUR
    )
    _make_anew(UsageHour, customer_id, hour, minutes)
    if not marks.exists():
        hours = UsageHour.objects.filter(
            customer_id=customer_id, start__gte=day, start__lt=day + DAY
        )
        _make_anew(UsageDay, customer_id, day, hours)


def _make_anew(
    model: type[Rolled],
    customer_id: int,
    start: datetime.datetime,
    parts: QuerySet[Any],
) -> None:
    made = _Rows(model)
    for part in parts.iterator():
        made.add(start, part)
    model._default_manager.filter(customer_id=customer_id, start=start).delete()
    made.save()


class _Rows(Generic[Rolled]):
    """Rows of a table, added up by start and kind; `known` rows exist already."""

    def __init__(self, model: type[Rolled], known: Iterable[Rolled] = ()) -> None:
        self._model = model
        self._known = {(row.start, *_kind(row)): row for row in known}
        self._changed: dict[Kind, Rolled] = {}

    def add(self, start: datetime.datetime, part: UsageSums) -> None:
        kind = _kind(part)
        row = self._changed.get((start, *kind)) or self._known.get((start, *kind))
        if row is None:
            names = dict(zip(UsageSums.KIND, kind, strict=True))
            row = self._model(start=start, **names)
        row.add(part)
        self._changed[start, *kind] = row

    def save(self) -> None:
        self._model._default_manager.bulk_create(
            self._changed.values(),
            batch_size=_ROWS_PER_INSERT,
            update_conflicts=True,
            unique_fields=["start", *UsageSums.KIND],
            update_fields=[*UsageSums.SUMS, "latency_buckets", "slowest_us"],
        )


def _kind(row: UsageSums) -> Kind:
    return tuple(getattr(row, name) for name in UsageSums.KIND)


@transaction.atomic
def mark_again(
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    *,
    customer_id: int | None = None,
) -> int:
    """Mark all hours with usage in a span whose minutes are kept; return how many."""
    starts_at = max(starts_at, lock())
    hours: set[tuple[int, datetime.datetime]] = set()
    for model, at in ((Usage, "minute"), (UsageHour, "start"), (UsageDay, "start")):
        rows = model._default_manager.filter(
            **{f"{at}__gte": starts_at, f"{at}__lt": ends_at}
        )
        if customer_id is not None:
            rows = rows.filter(customer_id=customer_id)
        found = rows.order_by().values_list("customer_id", at).distinct()
        hours |= {(customer, hour_of(each)) for customer, each in found}
    mark(hours)
    return len(hours)


# Keeping minutes, and adding usage after they are gone


def kept_from() -> datetime.datetime:
    """Return the midnight since which minutes are kept."""
    row = UsageKeeping.objects.filter(pk=1).first()
    return _EVER if row is None else _believed(row.minutes_from)


def lock() -> datetime.datetime:
    """Lock hours, days and what `kept_from` returns; return that."""
    row, _ = UsageKeeping.objects.select_for_update().get_or_create(
        pk=1, defaults={"minutes_from": _EVER}
    )
    return _believed(row.minutes_from)


def _believed(minutes_from: datetime.datetime) -> datetime.datetime:
    """Correct a time from a clock that was ahead: younger minutes are kept."""
    return min(minutes_from, day_of(timezone.now() - LEAST_KEPT))


def lock_if_old(
    oldest: datetime.datetime, *, now: datetime.datetime
) -> datetime.datetime:
    """Return since when minutes are kept; lock it only if `oldest` is near it."""
    return _EVER if oldest > now - _SURELY_KEPT else lock()


def add_late(minutes: Iterable[Usage]) -> None:
    """Add usage whose minutes are gone; the caller holds the lock."""
    late = list(minutes)
    if late:
        _add_to(UsageHour, [(hour_of(each.minute), each) for each in late])
        _add_to(UsageDay, [(day_of(each.minute), each) for each in late])


def _add_to(model: type[Rolled], late: list[tuple[datetime.datetime, Usage]]) -> None:
    known = model._default_manager.filter(
        customer_id__in={each.customer_id for _, each in late},
        start__in={start for start, _ in late},
    )
    rows = _Rows(model, known)
    for start, each in late:
        rows.add(start, each)
    rows.save()
