"""Describe for the admin and the portal how much of each limit a customer has used."""

import datetime
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypedDict

from django.db.models import Max, Sum
from django.utils.timesince import timeuntil

from accounts.admission.limits import Limits, Period
from accounts.admission.windows import window_of
from accounts.customers import plans
from accounts.models import Customer, QuotaUnit
from accounts.quotas import soft_limits
from accounts.usage import reading, spans

# From here on a bar warns people.
_WARN_PERCENT = 80
_TITLES: dict[Period, str] = {"day": "Today", "month": "This month"}


class QuotaBar(TypedDict):
    title: str
    unit: str
    used: int
    limit: int
    percent: int
    level: str
    resets_at: datetime.datetime | None
    # `resets_at` in plain words.
    resets: str


def quota_bar(
    *,
    title: str,
    unit: str,
    used: int,
    limit: int,
    resets_at: datetime.datetime | None = None,
) -> QuotaBar:
    # A full bar means that nothing is left, so percentages are rounded down.
    percent = 100 if used >= limit else 100 * used // limit
    level = "full" if percent >= 100 else "warn" if percent >= _WARN_PERCENT else "good"
    return QuotaBar(
        title=title,
        unit=unit,
        used=used,
        limit=limit,
        percent=percent,
        level=level,
        resets_at=resets_at,
        resets="",
    )


@dataclass(frozen=True, slots=True)
class Banner:
    """A warning that a quota came near its limit, or reached it."""

    is_spent: bool
    of: str
    limit: int
    unit: str
    percent: int
    reached_at: datetime.datetime
    resets: str

    @property
    def level(self) -> str:
        return "full" if self.is_spent else "warn"


def bars(customer: Customer, *, now: datetime.datetime) -> list[QuotaBar]:
    """Describe every quota of the customer; select its plan together with it."""
    quotas = plans.limits_of(customer).quotas
    periods = {quota.name for quota in quotas}
    used = used_by([customer.pk], periods, now=now).get(customer.pk, {})
    shown = []
    for quota in quotas:
        bar = quota_bar(
            title=_TITLES[quota.name],
            unit=str(QuotaUnit(quota.unit).label),
            used=used.get((quota.name, quota.unit), 0),
            limit=quota.limit,
            resets_at=_window(quota.name, now)[1],
        )
        bar["resets"] = _reset(quota.name, now)
        shown.append(bar)
    return shown


def used_by(
    customer_ids: Collection[int],
    periods: Collection[Period],
    *,
    now: datetime.datetime,
) -> dict[int, dict[tuple[str, str], int]]:
    """Return what customers have used today or this month, by period and unit."""
    if not periods:
        return {}
    starts = {period: _window(period, now)[0] for period in periods}
    ends_at = max(_window(period, now)[1] for period in periods)
    first = min(starts.values())
    span = spans.between(first, ends_at, customer_ids=customer_ids)
    sums: dict[tuple[int, Period], Counter[str]] = defaultdict(Counter)
    for row in reading.charged_by_period(
        span, sorted(set(starts.values())), "customer_id"
    ):
        spent = {field: row[field] for field in reading.CHARGED}
        for period, starts_at in starts.items():
            if starts_at <= row["start"]:
                sums[row["customer_id"], period].update(spent)
    used: dict[int, dict[tuple[str, str], int]] = defaultdict(dict)
    for (customer_id, period), of_period in sums.items():
        for unit, units in reading.quota_units(of_period).items():
            used[customer_id][period, unit] = units
    return used


def busiest_minute(
    customer: Customer, limits: Limits, *, now: datetime.datetime
) -> QuotaBar | None:
    """Compare today's busiest minute with the rate per minute."""
    rate = next((rate for rate in limits.rates if rate.window_s == 60), None)
    if rate is None:
        return None
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = (
        spans.minutes(today, now)
        .filter(customer_id=customer.pk)
        # Calls that the rate refused are above it.
        .exclude(status=429)
        .order_by()
        .values("minute")
        .annotate(calls=Sum("requests"))
    )
    most = minutes.aggregate(most=Max("calls"))["most"] or 0
    return quota_bar(
        title="Busiest minute today", unit="requests", used=most, limit=rate.quota
    )


def banners(customer: Customer, *, now: datetime.datetime) -> list[Banner]:
    """Put the customer's warnings into words, used-up quotas first."""
    found = [
        Banner(
            is_spent=event.threshold_percent >= 100,
            of="today’s" if event.name == "day" else "this month’s",
            limit=event.limit,
            unit=event.get_unit_display(),
            percent=event.threshold_percent,
            reached_at=event.at,
            resets=_reset("day" if event.name == "day" else "month", now),
        )
        for event in soft_limits.current(customer, now=now)
    ]
    return sorted(found, key=lambda banner: not banner.is_spent)


def _reset(period: Period, now: datetime.datetime) -> str:
    """Write in plain words when a quota resets."""
    _, resets_at = _window(period, now)
    if period == "day":
        return f"at midnight UTC, in {timeuntil(resets_at, now, depth=1)}"
    # `timeuntil` would round to weeks.
    days = (resets_at - now).days
    left = f"{days} days" if days > 1 else timeuntil(resets_at, now, depth=1)
    return f"on 1 {resets_at:%B}, 00:00 UTC, in {left}"


def _window(
    period: Period, now: datetime.datetime
) -> tuple[datetime.datetime, datetime.datetime]:
    """Return when the current day or month began, and when it ends."""
    starts, ends = window_of(period, now.timestamp())
    return (
        datetime.datetime.fromtimestamp(starts, datetime.UTC),
        datetime.datetime.fromtimestamp(ends, datetime.UTC),
    )
