"""Find the models that a reader of the docs may call, as gateways know them."""

from collections.abc import Callable

from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.request import Request

from accounts.models import ApiKey
from inference.api import driver, model_cards
from inference.api.openapi.typed_operations import PublishedModel, can_explain
from inference.snapshot.contents import CallableModel

_Test = Callable[[CallableModel], bool]


def visible_models(request: Request | None) -> list[PublishedModel]:
    """Return the models that the sender of the request may call, by name.

    Anonymous readers see public models, members of a customer see models that any of
    its keys may call, and staff and commands (no request) see all. The models come from
    the snapshot in memory, so the docs show what the gateways answer.
    """
    may_call, may_explain = _permissions_of(request)
    return [
        _published(model, may_explain=may_explain(model))
        for model in driver.current().refresh().models_by_name()
        if model.versions and may_call(model)
    ]


def _permissions_of(request: Request | None) -> tuple[_Test, _Test]:
    """Return tests of whether the sender may call a model, and may explain it."""
    key = getattr(request, "auth", None)
    user = getattr(request, "user", None)
    if isinstance(key, ApiKey):
        return _allowed_by([key], "predict"), _allowed_by([key], "explain")
    if request is None or getattr(user, "is_staff", False):
        return _everything, _everything
    if isinstance(user, User):
        keys = list(
            ApiKey.objects.valid(timezone.now()).filter(customer__members=user.pk)
        )
        if keys:
            return _allowed_by(keys, "predict"), _allowed_by(keys, "explain")
    return _is_public, _everything


def _everything(model: CallableModel) -> bool:
    return True


def _is_public(model: CallableModel) -> bool:
    return model.public


def _allowed_by(keys: list[ApiKey], scope: str) -> _Test:
    names: set[str] = set()
    for key in keys:
        if scope not in key.scopes:
            continue
        if not key.allowed_models:
            return _everything
        names.update(key.allowed_models)
    return lambda model: model.name in names


def _published(model: CallableModel, *, may_explain: bool) -> PublishedModel:
    """Describe a model by its default version, or else by its newest."""
    default = model_cards.default_version(model)
    described = next(
        (version for version in model.versions if version.version == default),
        model.versions[0],
    )
    return PublishedModel(
        name=model.name,
        described=described,
        description=model.description,
        pinned=not model.routed,
        ending=model.ending if model.routed else model.ending_of(described),
        explainable=may_explain and can_explain(described.signature),
        canaries=tuple(
            variant.version for variant in model.variants if variant.role == "canary"
        ),
    )
