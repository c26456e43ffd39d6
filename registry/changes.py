"""Saving a row of the registry so that history and gateways learn of it."""

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction

from registry.models import ModelVersion, RegisteredModel, Route
from registry.signals import registry_changed

Row = RegisteredModel | ModelVersion | Route
# Who changes it; None is the machine itself. Views never let anonymous ones here.
Person = AbstractBaseUser | AnonymousUser | None


def save(row: Row, *, by: Person, reason: str) -> None:
    """Save `row`, with the reason in its history where it keeps one."""
    row._history_user = by  # type: ignore[union-attr]  # read by simple_history
    row._change_reason = reason[:100]  # type: ignore[union-attr]  # read by simple_history
    with transaction.atomic():
        row.save()
        model = row if isinstance(row, RegisteredModel) else row.registered_model
        registry_changed.send(sender=type(row), models=[model.name])


def make_site_default(model: RegisteredModel, *, by: Person) -> None:
    """Let `model`, and no other, answer requests that name no model."""
    with transaction.atomic():
        for other in RegisteredModel.objects.filter(site_default=True).exclude(
            pk=model.pk
        ):
            other.site_default = False
            save(other, by=by, reason=f"{model.name} became the site's default")
        model.site_default = True
        save(model, by=by, reason="made the site's default")
