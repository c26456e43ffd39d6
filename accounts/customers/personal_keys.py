"""Give people of the staff keys of their own, to call the models that they may see.

All belong to one customer and are in test mode: checked like any other, and charged
nothing. A key's person is who made it, as nobody else has seen its token.
"""

import contextlib
import datetime
import secrets
from typing import Final

from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.admission.limits import Scope
from accounts.customers import api_keys
from accounts.models import ApiKey, Customer, Plan
from accounts.models.customers import as_read

MAY_SEE_MODELS: Final = "registry.view_modelversion"
SCOPES: tuple[Scope, ...] = ("predict", "explain", "models:read")
LIFETIME = datetime.timedelta(days=90)
PAGE_LIFETIME = datetime.timedelta(hours=1)
# Keys of one person for open pages; another one ends the oldest.
MOST_PAGES = 5
# Rows of one call, as many as a table that is tried out may have.
MOST_ROWS = 1000
# What one key may do; all share a customer, whose limits are so many times these.
_A_SECOND, _A_MINUTE = 20, 300
LIMITS = api_keys.OwnLimits(burst_requests=_A_SECOND, sustained_requests=_A_MINUTE)
_PEOPLE = 100
_NAME = "Staff"
_PAGE = "Try it ("


def may_hold(person: User | AnonymousUser | None) -> bool:
    """Return whether a person is of the staff and may see model versions."""
    if not isinstance(person, User):
        return False
    return person.is_active and person.is_staff and person.has_perm(MAY_SEE_MODELS)


def of(person: User) -> QuerySet[ApiKey]:
    """Select a person's keys, newest first, without those of pages."""
    return _all_of(person).exclude(name__startswith=_PAGE)


def current(person: User) -> ApiKey | None:
    """Return the key that a person has now."""
    return _active(of(person)).filter(replaced_by=None).first()


@transaction.atomic
def issue(person: User) -> api_keys.IssuedKey:
    """Make the person's key.

    Raise ValidationError if the person may have none, or has one already.
    """
    customer = _locked_customer(person)
    if current(person) is not None:
        raise ValidationError("You have a key already: rotate it, or revoke it.")
    name = f"Personal ({person.get_username()})"
    return _issue(customer, person, name=name, lifetime=LIFETIME)


@transaction.atomic
def issue_for_page(person: User) -> api_keys.IssuedKey:
    """Make a key for an hour, for a page that calls models from the browser.

    Raise ValidationError if the person may have none.
    """
    customer = _locked_customer(person)
    of_pages = _active(_all_of(person).filter(name__startswith=_PAGE))
    for oldest in of_pages[MOST_PAGES - 1 :]:
        api_keys.revoke(oldest)
    name = f"{_PAGE}{person.get_username()})"
    return _issue(customer, person, name=name, lifetime=PAGE_LIFETIME)


@transaction.atomic
def rotate(person: User) -> api_keys.IssuedKey:
    """Replace the person's key; the old one works for another day.

    Raise ValidationError if there is none.
    """
    _locked_customer(person)
    key = current(person)
    if key is None:
        raise ValidationError("You have no key that could be rotated.")
    return api_keys.rotate(key, created_by=person)


@transaction.atomic
def end_those_of(person: User) -> int:
    """Revoke all keys of a person, and return how many."""
    return sum(map(api_keys.revoke, _all_of(person).filter(revoked_at=None)))


def end_forbidden() -> int:
    """Revoke the keys of all who may not hold any, and return how many.

    Rights also change with groups, and accounts in bulk, of which nobody is told.
    """
    keys = _active(ApiKey.objects.filter(customer__for_staff=True))
    may: dict[int | None, bool] = {}
    ended = 0
    for key in keys.select_related("created_by"):
        # Asked once for each person: the answer takes two queries.
        if key.created_by_id not in may:
            may[key.created_by_id] = may_hold(key.created_by)
        if not may[key.created_by_id]:
            ended += api_keys.revoke(key)
    return ended


def _all_of(person: User) -> QuerySet[ApiKey]:
    own = ApiKey.objects.filter(customer__for_staff=True, created_by=person)
    return own.order_by("-created_at", "-pk")


def _active(keys: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
    return keys.filter(revoked_at=None).exclude(expires_at__lte=timezone.now())


def _issue(
    customer: Customer, person: User, *, name: str, lifetime: datetime.timedelta
) -> api_keys.IssuedKey:
    return api_keys.issue(
        customer,
        name=name[:100],
        scopes=SCOPES,
        limits=LIMITS,
        expires_at=timezone.now() + lifetime,
        mode="test",
        created_by=person,
    )


def _locked_customer(person: User) -> Customer:
    """Return the customer of all staff, locked, so that nobody makes two keys at once.

    Raise ValidationError if the person may hold no key, or the customer is inactive.
    """
    if not may_hold(person):
        raise ValidationError("Your account may not see model versions.")
    if not Customer.objects.filter(for_staff=True).exists():
        # Another request may make it at the same moment.
        with contextlib.suppress(IntegrityError), transaction.atomic():
            _make_customer()
    locked = Customer.objects.select_for_update(of=("self",))
    customer = locked.get(for_staff=True)
    if not customer.active:
        raise ValidationError(
            f"The customer “{customer}” is inactive: its keys do not work now."
        )
    return customer


def _make_customer() -> None:
    """Make the customer of all staff, under a name that no other has."""
    name = _NAME
    while (
        Plan.objects.filter(name=name).exists()
        or Customer.objects.filter(name_as_read=as_read(name)).exists()
    ):
        name = f"{_NAME} {secrets.token_hex(3)}"
    plan = Plan.objects.create(
        name=name,
        description="Of personal keys, whose calls are charged nothing.",
        max_predict_rows=MOST_ROWS,
        burst_requests=_A_SECOND * _PEOPLE,
        sustained_requests=_A_MINUTE * _PEOPLE,
        # Its keys are made in the admin.
        max_keys=0,
    )
    Customer.objects.create(name=name, plan=plan, for_staff=True)
