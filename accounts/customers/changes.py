"""Change customers and plans, and let gateways know."""

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts.models import Customer, Plan
from accounts.signals import access_changed


def save(changed: Customer | Plan) -> None:
    """Save a customer or plan; raise ValidationError for limits out of range."""
    changed.save()


@transaction.atomic
def note(customer: Customer, reason: str) -> None:
    """Note in a customer's history what no field shows.

    Its fields are read again, so that changes made meanwhile stay.
    """
    customer = Customer.objects.select_for_update().get(pk=customer.pk)
    customer._change_reason = reason  # type: ignore[attr-defined]  # read by simple_history
    customer.save(update_fields=["name"])


@transaction.atomic
def delete(deleted: Customer | Plan) -> None:
    """Delete a customer or plan; raise ProtectedError while other rows need it."""
    # Sent first, as a deleted row has no id any more.
    access_changed.send(sender=type(deleted), rows=[deleted])
    deleted.delete()


def set_retired(plan: Plan, *, retired: bool) -> None:
    """Stop offering a plan, or offer it again; its customers keep it."""
    plan.retired = retired
    plan.save(update_fields=["retired"])


@transaction.atomic
def archive(customer: Customer) -> int:
    """End a customer for good and keep its usage; return how many keys were revoked."""
    customer = Customer.objects.select_for_update().get(pk=customer.pk)
    if customer.archived_at is not None:
        raise ValidationError(f"{customer} is archived already.")
    now = timezone.now()
    revoked = 0
    for key in customer.api_keys.filter(revoked_at=None):
        key.revoked_at = now
        key.save(update_fields=["revoked_at"])
        revoked += 1
    customer.active = False
    customer.archived_at = now
    customer.save(update_fields=["active", "archived_at"])
    return revoked


@transaction.atomic
def reopen(customer: Customer) -> None:
    """Make an archived customer an active one; its keys stay revoked."""
    customer = Customer.objects.select_for_update().get(pk=customer.pk)
    if customer.archived_at is None:
        raise ValidationError(f"{customer} is not archived.")
    customer.active = True
    customer.archived_at = None
    customer.save(update_fields=["active", "archived_at"])
