"""Saving customers and plans so that gateways learn of it."""

from django.db import transaction

from accounts.models import Customer, Plan
from accounts.signals import access_changed


@transaction.atomic
def save(changed: Customer | Plan) -> None:
    """Save a customer or plan and announce it in the same transaction."""
    changed.save()
    access_changed.send(sender=type(changed))


@transaction.atomic
def delete(deleted: Customer | Plan) -> None:
    """Delete a customer or plan; raise ProtectedError while something hangs on it."""
    deleted.delete()
    access_changed.send(sender=type(deleted))


@transaction.atomic
def set_retired(plan: Plan, *, retired: bool) -> None:
    """Stop offering a plan, or offer it again; customers on it keep it either way."""
    plan.retired = retired
    plan.save(update_fields=["retired"])
