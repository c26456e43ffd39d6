"""Decide which rows of usage a span of time is read from: days, hours or minutes.

A span is cut into disjoint ranges. Each is as coarse as possible, and has the same sums
as its minutes:

- a whole UTC day that was rolled up is read as a day;
- in other days, whole hours that were rolled up are read as hours;
- the rest is read by minutes: hours that an end of the span cuts, and hours with usage
  that came after they were rolled up.

There are minutes only from `kept_from` on, a midnight. Before it nothing waits to be
rolled up, and an hour belongs to the span if its start does.
"""

import datetime
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

Grain = Literal["minute", "hour", "day"]
Range = tuple[datetime.datetime, datetime.datetime]

DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Ranges:
    """Disjoint ranges in order, each from its start on and before its end."""

    days: list[Range] = field(default_factory=list)
    hours: list[Range] = field(default_factory=list)
    minutes: list[Range] = field(default_factory=list)


def split(
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    *,
    grain: Grain,
    unrolled: Collection[datetime.datetime],
    kept_from: datetime.datetime,
) -> Ranges:
    """Cut a span into ranges, none of them read coarser than `grain`.

    `unrolled` are the starts of hours whose newest usage is in their minutes only.
    """
    ranges = Ranges()
    if grain == "minute":
        _append(ranges.minutes, max(starts_at, kept_from), ends_at)
        return ranges
    by_day: dict[datetime.datetime, list[datetime.datetime]] = {}
    for hour in unrolled:
        by_day.setdefault(day_of(hour), []).append(hour)
    day = day_of(starts_at)
    while day < ends_at:
        start, end = max(starts_at, day), min(ends_at, day + DAY)
        waiting = by_day.get(day, [])
        if grain == "day" and end - start == DAY and not waiting:
            _append(ranges.days, start, end)
        elif day < kept_from:
            _append(ranges.hours, start, end)
        else:
            _split_day(ranges, start, end, waiting)
        day += DAY
    return ranges


def _split_day(
    ranges: Ranges,
    start: datetime.datetime,
    end: datetime.datetime,
    unrolled: list[datetime.datetime],
) -> None:
    """Read hours before and after the unrolled ones as hours, the rest by minutes.

    Rolled-up hours between two unrolled ones are read by minutes, too. Minutes are
    right for every hour, and so a query has at most two ranges a day.
    """
    first, last = hour_of(start + HOUR - datetime.timedelta.resolution), hour_of(end)
    if first >= last:
        _append(ranges.minutes, start, end)
        return
    inside = [hour for hour in unrolled if first <= hour < last]
    wait_from = min(inside, default=last)
    wait_until = max(inside, default=last - HOUR) + HOUR
    _append(ranges.minutes, start, first)
    _append(ranges.hours, first, wait_from)
    _append(ranges.minutes, wait_from, wait_until)
    _append(ranges.hours, wait_until, last)
    _append(ranges.minutes, last, end)


def _append(
    ranges: list[Range], start: datetime.datetime, end: datetime.datetime
) -> None:
    if start >= end:
        return
    if ranges and ranges[-1][1] == start:
        start = ranges.pop()[0]
    ranges.append((start, end))


def hour_of(at: datetime.datetime) -> datetime.datetime:
    return at.astimezone(datetime.UTC).replace(minute=0, second=0, microsecond=0)


def day_of(at: datetime.datetime) -> datetime.datetime:
    return hour_of(at).replace(hour=0)


def utc(seconds: float) -> datetime.datetime:
    """Convert seconds since the epoch to a time."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
