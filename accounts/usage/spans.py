"""Select a span of usage in the fewest rows that cover it."""

import datetime
import functools
import operator
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Max, Min, Q, QuerySet

from accounts.models import Usage, UsageDay, UsageHour
from accounts.usage import grains, roll_ups
from accounts.usage.grains import Grain

_GRAINS: tuple[Grain, ...] = ("minute", "hour", "day")


@dataclass(frozen=True, slots=True)
class Span:
    """Usage in a span of time: rows of days, hours and minutes that do not overlap.

    A row's `at` is the start of its day, hour or minute; none is longer than `grain`.
    """

    parts: tuple[QuerySet[Any], ...]
    grain: Grain = "day"

    def filter(self, **conditions: Any) -> "Span":
        """Keep calls that match the conditions, on fields that all rows have."""
        parts = tuple(part.filter(**conditions) for part in self.parts)
        return Span(parts, self.grain)


def between(
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    *,
    customer_id: int | None = None,
    customer_ids: Collection[int] | None = None,
    grain: Grain = "day",
) -> Span:
    """Select usage of all, one or some customers between two times, in the fewest rows.

    The span includes `starts_at` and excludes `ends_at`. When minutes are gone, an hour
    belongs to the span if its start does.
    """
    if customer_id is not None:
        customer_ids = [customer_id]
    known = roll_ups.rolled_up(starts_at, ends_at, customer_ids=customer_ids)
    ranges = grains.split(
        starts_at,
        ends_at,
        grain=grain,
        unrolled=known.unrolled,
        kept_from=known.kept_from,
    )
    found: list[tuple[type[UsageDay | UsageHour | Usage], str, list[grains.Range]]] = [
        (UsageDay, "start", ranges.days),
        (UsageHour, "start", ranges.hours),
        (Usage, "minute", ranges.minutes),
    ]
    own = Q() if customer_ids is None else Q(customer_id__in=customer_ids)
    return Span(
        tuple(
            model._default_manager.filter(own, _within(field, cut)).annotate(
                at=F(field)
            )
            for model, field, cut in found
            if cut
        ),
        grain,
    )


def _within(field: str, ranges: Iterable[grains.Range]) -> Q:
    return functools.reduce(
        operator.or_,
        (Q(**{f"{field}__gte": start, f"{field}__lt": end}) for start, end in ranges),
    )


def minutes(
    starts_at: datetime.datetime, ends_at: datetime.datetime
) -> QuerySet[Usage]:
    """Select usage minute by minute, as far as minutes are kept."""
    return Usage.objects.filter(minute__gte=starts_at, minute__lt=ends_at)


def of_minutes(rows: QuerySet[Usage]) -> Span:
    """Make a span of some rows of minutes."""
    return Span((rows.annotate(at=F("minute")),), "minute")


def days(span: Span) -> list[datetime.datetime]:
    """Return each UTC day from the first one with selected usage to the last."""
    found: list[datetime.datetime] = []
    for part in span.parts:
        ends = part.order_by().aggregate(first=Min("at"), last=Max("at"))
        found += filter(None, ends.values())
    if not found:
        return []
    first, last = grains.day_of(min(found)), grains.day_of(max(found))
    return [first + number * grains.DAY for number in range((last - first).days + 1)]
