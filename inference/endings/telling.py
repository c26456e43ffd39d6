"""Find the customers who called what is announced to end, and tell them."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Sum

from accounts.customers import notices
from accounts.models import Customer
from accounts.usage import spans
from registry.models import Deprecation

DAYS = 30


@dataclass(frozen=True, slots=True)
class CallingCustomer:
    """A customer and the calls of the last 30 days that met the model or version."""

    customer: Customer
    calls: int


def callers(deprecation: Deprecation, *, now: datetime) -> list[CallingCustomer]:
    """List the customers who called in the last 30 days, those who call most first.

    For a version these are all calls that it answered: usage does not tell those who
    named it from those who met it by the route.
    """
    span = spans.between(now - timedelta(days=DAYS), now).filter(
        model=deprecation.registered_model.name
    )
    if deprecation.version is not None:
        span = span.filter(version=str(deprecation.version.version))
    calls: Counter[int] = Counter()
    for part in span.parts:
        rows = part.order_by().values_list("customer_id").annotate(Sum("requests"))
        for customer_id, requests in rows:
            calls[customer_id] += requests
    customers = Customer.objects.in_bulk(calls)
    return [
        CallingCustomer(customers[pk], count)
        for pk, count in calls.most_common()
        if pk in customers
    ]


def tell(deprecation: Deprecation, *, now: datetime) -> int:
    """Tell the customers who called lately; return how many they are."""
    told = callers(deprecation, now=now)
    version = deprecation.version
    what = f"model {deprecation.registered_model.name}"
    if version is not None:
        what = f"version {version.version} of the {what}"
    ends_at = f"{deprecation.ends_at:%Y-%m-%d %H:%M} UTC"
    named = "" if version is None else " that name this version"
    notices.put_up(
        [it.customer.pk for it in told],
        about=_about(deprecation.pk),
        subject=f"The {what[:250]} ends on {deprecation.ends_at:%Y-%m-%d}",
        text=f"The {what} ends at {ends_at}. From then on, calls{named} get the error "
        f"410. {deprecation.use_instead} See {settings.MODELYARD_PUBLIC_URL}/docs/",
        until=deprecation.ends_at,
    )
    return len(told)


def take_back(deprecation_id: int) -> None:
    """Tell nobody any more; mail that was sent stays sent."""
    notices.take_down(_about(deprecation_id))


def _about(deprecation_id: int) -> str:
    return f"deprecation {deprecation_id}"
