"""Let customers make and rotate keys themselves, within their plan."""

import datetime
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.admission.limit_words import counted
from accounts.customers import api_keys
from accounts.models import ApiKey, Customer

_INACTIVE = "This customer is inactive: its keys cannot be changed now."


def of(customer: Customer) -> QuerySet[ApiKey]:
    """Select a customer's keys, newest first."""
    return ApiKey.objects.filter(customer=customer).order_by("-created_at", "-pk")


def active(customer: Customer) -> QuerySet[ApiKey]:
    """Select the keys that work, or would if the customer were active."""
    own = of(customer).filter(revoked_at=None)
    return own.exclude(expires_at__lte=timezone.now())


def may_make(customer: Customer) -> bool:
    """Return whether the customer is active and its plan allows another key."""
    return customer.active and active(customer).count() < customer.max_keys


@transaction.atomic
def issue(customer: Customer, **key: Any) -> api_keys.IssuedKey:
    """Issue a key; raise ValidationError if the plan allows no more."""
    # The row is locked, so that two requests at once cannot both make the last key.
    customer = Customer.objects.select_for_update(of=("self",)).get(pk=customer.pk)
    if not customer.active:
        raise ValidationError(_INACTIVE)
    if active(customer).count() >= customer.max_keys:
        raise ValidationError(
            f"Your plan allows {counted(customer.max_keys, 'active keys')}."
            " Revoke one first."
        )
    return api_keys.issue(customer, **key)


@transaction.atomic
def rotate(
    customer: Customer, key: ApiKey, *, overlap: datetime.timedelta, by: User
) -> api_keys.IssuedKey:
    """Rotate a key; raise ValidationError while too many old ones are still valid."""
    customer = Customer.objects.select_for_update(of=("self",)).get(pk=customer.pk)
    if not customer.active:
        raise ValidationError(_INACTIVE)
    # The old key counts until it ends, so there may be one key above the limit.
    if active(customer).count() > customer.max_keys:
        raise ValidationError(
            "Too many keys are still valid after earlier rotations. Revoke one first."
        )
    return api_keys.rotate(key, overlap=overlap, created_by=by)
