"""Save rows of the registry so that history and gateways learn of the change."""

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.core.exceptions import PermissionDenied
from django.db import transaction

from registry.models import Deprecation, ModelVersion, RegisteredModel, Route
from registry.signals import registry_changed

Row = RegisteredModel | ModelVersion | Route | Deprecation
# The person who makes a change; None is the machine itself. Views refuse anonymous
# users.
Person = AbstractBaseUser | AnonymousUser | None


def save(row: Row, *, by: Person, reason: str) -> None:
    """Save `row`; its history, if it has one, keeps the person and the reason.

    Raises PermissionDenied if `by` may not change whether a model is trusted or has a
    network.
    """
    row._history_user = by  # type: ignore[union-attr]  # read by simple_history
    row._change_reason = reason  # type: ignore[union-attr]  # read by simple_history
    with transaction.atomic():
        if isinstance(row, RegisteredModel):
            _require_trust(row, by)
        row.save()
        model = row if isinstance(row, RegisteredModel) else row.registered_model
        registry_changed.send(sender=type(row), models=[model.name], by=by)


def delete(row: Deprecation, *, by: Person) -> None:
    """Delete `row`; its history keeps the person."""
    row._history_user = by  # type: ignore[attr-defined]  # read by simple_history
    with transaction.atomic():
        name = row.registered_model.name
        row.delete()
        registry_changed.send(sender=type(row), models=[name])


def _require_trust(model: RegisteredModel, by: Person) -> None:
    """Require a permission to change what a model's code may do.

    A trusted model runs its author's code, and with a network that may talk to anybody.
    """
    before = RegisteredModel.objects.filter(pk=model.pk)
    allowed = before.values_list("trusted", "network").first() or (False, False)
    if (model.trusted, model.network) == allowed:
        return
    may = isinstance(by, PermissionsMixin) and by.has_perm(
        "registry.trust_registeredmodel"
    )
    if not may:
        raise PermissionDenied


def make_site_default(model: RegisteredModel, *, by: Person) -> None:
    """Let only `model` answer requests that name no model."""
    with transaction.atomic():
        for other in RegisteredModel.objects.filter(site_default=True).exclude(
            pk=model.pk
        ):
            other.site_default = False
            save(other, by=by, reason=f"{model.name} became the site's default")
        model.site_default = True
        save(model, by=by, reason="made the site's default")
