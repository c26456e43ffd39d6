"""Let only the members of a customer see its pages."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.cache import never_cache

from accounts.customers import notices
from accounts.models import Customer
from accounts.quotas import display

SIGN_IN = "portal-sign-in"

_Rest = ParamSpec("_Rest")
_View = Callable[Concatenate[HttpRequest, Customer, _Rest], HttpResponse]


def customers_of(user: User) -> QuerySet[Customer]:
    """Select the customers that a person is a member of."""
    return Customer.objects.filter(members=user).select_related("plan")


def for_members(view: _View[_Rest]) -> Callable[..., HttpResponse]:
    """Pass the view the customer that the address names, if the person is a member.

    Everybody else gets 404. No cache keeps the page, as it may show a token.
    """

    @never_cache
    @login_required(login_url=SIGN_IN)
    @wraps(view)
    def guarded(request: HttpRequest, customer_id: int, **rest: Any) -> HttpResponse:
        own = customers_of(cast(User, request.user))
        customer = get_object_or_404(own, pk=customer_id)
        return view(request, customer, **rest)  # type: ignore[call-arg]

    return guarded


def show(
    request: HttpRequest,
    customer: Customer,
    template: str,
    *,
    section: str,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    """Render a page of the portal in the frame that all pages share."""
    now = timezone.now()
    frame = {
        "customer": customer,
        "customers": customers_of(cast(User, request.user)),
        "section": section,
        "banners": display.banners(customer, now=now),
        "notices": notices.current(customer, now=now),
    }
    return render(request, f"portal/{template}", frame | context, status=status)
