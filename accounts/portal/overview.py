"""Show the portal's first pages: the person's customer, its quotas and usage."""

import datetime
from typing import cast

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.customers import own_keys, plans
from accounts.models import Customer
from accounts.portal import access, charts
from accounts.quotas import display
from accounts.usage import reading, refused_calls, spans
from accounts.usage.export import csv_response

PERIODS = (7, 30, 90)
_DEFAULT_PERIOD = 30
_SHOWN_REFUSALS = 5
# The most used models and keys; the CSV file has all.
_MOST_USED = 10


@never_cache
@login_required(login_url=access.SIGN_IN)
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Redirect to the person's first customer, or show that there is none."""
    first = access.customers_of(cast(User, request.user)).first()
    if first is None:
        return render(request, "portal/no_customer.html")
    return redirect("portal:overview", customer_id=first.pk)


@access.for_members
@require_safe
def overview(request: HttpRequest, customer: Customer) -> HttpResponse:
    """Show quotas, usage by day, model and key, and the newest refusals."""
    now = timezone.now()
    period = _period(request)
    days = _days(now, period)
    recent = spans.between(days[0], now, customer_id=customer.pk)
    by_day = reading.over_time(recent, "day")
    by_model, by_key = reading.most_used(recent, "model", "key_id")
    reading.name_keys(customer.pk, by_key[:_MOST_USED])
    limits = plans.limits_of(customer)
    return access.show(
        request,
        customer,
        "overview.html",
        section="overview",
        period=period,
        periods=PERIODS,
        limits=limits,
        quotas=display.bars(customer, now=now),
        busiest=display.busiest_minute(customer, limits, now=now),
        active_keys=own_keys.active(customer).count(),
        totals=reading.add_up(by_day),
        chart=charts.daily(by_day, days),
        models=by_model[:_MOST_USED],
        further_models=max(0, len(by_model) - _MOST_USED),
        keys=by_key[:_MOST_USED],
        further_keys=max(0, len(by_key) - _MOST_USED),
        has_keys=customer.api_keys.exists(),
        newest_refusals=refused_calls.of_customer(customer.pk)[:_SHOWN_REFUSALS],
    )


@access.for_members
@require_safe
def export(request: HttpRequest, customer: Customer) -> HttpResponse:
    """Download the usage of the chosen period, by day."""
    now = timezone.now()
    own = spans.between(_days(now, _period(request))[0], now, customer_id=customer.pk)
    # Middleware takes a streaming response as a response, although its type is not.
    return cast(HttpResponse, csv_response(own, name=f"usage-{customer.pk}"))


def _period(request: HttpRequest) -> int:
    asked = request.GET.get("days", "")
    return int(asked) if asked in map(str, PERIODS) else _DEFAULT_PERIOD


def _days(now: datetime.datetime, number: int) -> list[datetime.datetime]:
    """List the starts of the last UTC days, today last."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return [today - datetime.timedelta(days=ago) for ago in reversed(range(number))]
