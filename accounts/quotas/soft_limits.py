"""Warn customers before a quota is used up: store each warning once, send it once.

Usage is recorded a little later than it is spent, so warnings never refuse a call;
`accounts.admission` does.
"""

import datetime
from collections.abc import Iterator
from typing import cast

from django.conf import settings
from django.db.models import Manager, Q, QuerySet

from accounts.admission.limit_words import PERIOD_ADJECTIVES
from accounts.admission.limits import Period
from accounts.admission.overrides import PERIODS
from accounts.admission.windows import window_of
from accounts.customers import mails, plans
from accounts.models import Customer, LimitEvent
from accounts.usage import reading, spans

THRESHOLDS_PERCENT = (80, 100)
# Customers without a call for this long have used nothing since the last look.
_RECENT = datetime.timedelta(minutes=15)


def look(*, now: datetime.datetime) -> list[LimitEvent]:
    """Store and return new warnings since the last look."""
    recent = spans.minutes(now - _RECENT, now + _RECENT)
    active = Customer.objects.filter(
        pk__in=recent.order_by().values("customer_id").distinct(), active=True
    ).select_related("plan")
    found = []
    for customer in active:
        for event in _crossed(customer, now=now):
            stored, is_new = LimitEvent.objects.get_or_create(
                customer=event.customer,
                name=event.name,
                unit=event.unit,
                window_start=event.window_start,
                threshold_percent=event.threshold_percent,
                defaults={"used": event.used, "limit": event.limit, "at": event.at},
            )
            if is_new or _reached_again(stored, event):
                found.append(stored)
    return found


def _reached_again(stored: LimitEvent, event: LimitEvent) -> bool:
    """Renew a warning whose limit has changed since, for example by an upgrade."""
    if stored.limit == event.limit:
        return False
    stored.used, stored.limit, stored.at = event.used, event.limit, event.at
    stored.notified_at = None
    stored.save(update_fields=["used", "limit", "at", "notified_at"])
    return True


def _crossed(customer: Customer, *, now: datetime.datetime) -> Iterator[LimitEvent]:
    for quota in plans.limits_of(customer).quotas:
        if not quota.limit:
            # A quota of 0 switches calls off; it is never used up.
            continue
        for at in _windows_since_last_look(quota.name, now):
            used, _ = reading.quota_used(
                customer.pk, quota=quota.name, unit=quota.unit, now=at
            )
            for threshold in THRESHOLDS_PERCENT:
                if used * 100 >= quota.limit * threshold:
                    yield LimitEvent(
                        customer=customer,
                        name=quota.name,
                        unit=quota.unit,
                        window_start=_window_start(quota.name, at),
                        threshold_percent=threshold,
                        used=used,
                        limit=quota.limit,
                        at=at,
                    )


def _windows_since_last_look(
    name: Period, now: datetime.datetime
) -> Iterator[datetime.datetime]:
    """Yield a moment of each window, as a window may fill in its last minute."""
    if _window_start(name, now - _RECENT) != _window_start(name, now):
        yield now - _RECENT
    yield now


def notify(*, now: datetime.datetime) -> int:
    """Mail new warnings to the contacts of customers; return how many mails were sent.

    An event is claimed before its mail leaves: no mail is better than one every minute.
    If two thresholds were crossed in one window, only the higher one is mailed.
    """
    sent = 0
    written: set[tuple[int, str, str, datetime.date]] = set()
    for event in waiting().select_related("customer__plan"):
        claimed = LimitEvent.objects.filter(pk=event.pk, notified_at=None).update(
            notified_at=now
        )
        about = (event.customer_id, event.name, event.unit, event.window_start)
        if not claimed or about in written or not event.customer.contact_email:
            continue
        written.add(about)
        sent += _send(event, now=now)
    return sent


def waiting() -> QuerySet[LimitEvent]:
    """Select warnings that were not mailed, the highest thresholds first."""
    return LimitEvent.objects.filter(notified_at=None).order_by("-threshold_percent")


def current(customer: Customer, *, now: datetime.datetime) -> list[LimitEvent]:
    """List the highest warning of each quota in its present window, for banners.

    Warnings that a larger plan has put right since are left out.
    """
    quotas: dict[tuple[str, str], int] = {
        (quota.name, quota.unit): quota.limit
        for quota in plans.limits_of(customer).quotas
    }
    highest: dict[tuple[str, str], LimitEvent] = {}
    for event in _of_windows(customer.limit_events, now=now):
        limit = quotas.get((event.name, event.unit))
        if limit is None or event.used * 100 < limit * event.threshold_percent:
            continue
        best = highest.get((event.name, event.unit))
        if best is None or event.threshold_percent > best.threshold_percent:
            highest[event.name, event.unit] = event
    return list(highest.values())


def _of_windows(
    events: Manager[LimitEvent], *, now: datetime.datetime
) -> QuerySet[LimitEvent]:
    day, month = (_window_start(name, now) for name in PERIODS)
    return events.filter(
        Q(name="day", window_start=day) | Q(name="month", window_start=month)
    )


def _window_start(name: Period, now: datetime.datetime) -> datetime.date:
    starts, _ = window_of(name, now.timestamp())
    return datetime.datetime.fromtimestamp(starts, datetime.UTC).date()


def _send(event: LimitEvent, *, now: datetime.datetime) -> int:
    period = cast(Period, event.name)
    quota = PERIOD_ADJECTIVES[period]
    over = event.window_start != _window_start(period, now)
    ends = "Calls beyond the quota are refused until it resets."
    if over:
        state = "was used up" if event.threshold_percent >= 100 else "ran low"
        ends = f"That was the one from {event.window_start}; it has been reset since."
    else:
        state = "is used up" if event.threshold_percent >= 100 else "is running low"
    unit = event.get_unit_display()
    # The event is stored and shown as well.
    return mails.send(
        event.customer.contact_email,
        subject=f"Your {quota} quota {state}",
        message=(
            f"{event.customer.name} has used {event.used:,} of {event.limit:,}"
            f" {unit} of the {quota} quota of the plan"
            f" {event.customer.plan.name}.\n\n"
            f"See {settings.MODELYARD_PUBLIC_URL}/portal/ for details. {ends}\n"
        ),
        customer_id=event.customer_id,
    )
