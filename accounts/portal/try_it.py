"""Call the API from the browser, with a test key that is made for it."""

import datetime
from typing import cast

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_http_methods

from accounts.customers import api_keys, own_keys, shown_once
from accounts.models import ApiKey, Customer
from accounts.portal import access

LIFETIME = datetime.timedelta(hours=1)
_SCOPES = ("predict", "explain", "models:read")


@access.for_members
@require_http_methods(["GET", "HEAD", "POST"])
def try_it(request: HttpRequest, customer: Customer) -> HttpResponse:
    """Show the page, or make a test key for it that is valid for an hour."""
    problems = []
    if request.method == "POST":
        try:
            issued = make_key(customer, by=cast(User, request.user))
        except ValidationError as error:
            problems = error.messages
        else:
            assert issued.key.expires_at is not None
            secret = {
                "token": issued.token,
                "expires_at": issued.key.expires_at.isoformat(),
            }
            return shown_once.lead_to(request, request.path, secret)
    secret = shown_once.take(request) or {"token": "", "expires_at": ""}
    return access.show(
        request,
        customer,
        "try_it.html",
        section="try",
        status=422 if problems else 200,
        token=secret["token"],
        expires_at=parse_datetime(secret["expires_at"]),
        may_make=own_keys.may_make(customer) or _mine(customer, request.user).exists(),
        problems=problems,
    )


@transaction.atomic
def make_key(customer: Customer, *, by: User) -> api_keys.IssuedKey:
    """Issue a test key for an hour, and revoke the person's last one."""
    for last in _mine(customer, by):
        api_keys.revoke(last)
    return own_keys.issue(
        customer,
        name=_name(by),
        scopes=_SCOPES,
        expires_at=timezone.now() + LIFETIME,
        mode="test",
        created_by=by,
    )


def _mine(customer: Customer, person: object) -> QuerySet[ApiKey]:
    """Select the active keys that a person has made here."""
    assert isinstance(person, User)
    return own_keys.active(customer).filter(
        created_by=person, mode=ApiKey.Mode.TEST, name=_name(person)
    )


def _name(person: User) -> str:
    return f"Try it ({person.get_username()})"[:100]
