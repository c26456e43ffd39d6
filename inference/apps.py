"""Connect the signals of the apps below."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from inference.errors import rendering

if TYPE_CHECKING:
    from accounts.models import ApiKey, Customer, Plan
    from registry.changes import Person
    from registry.models import ModelVersion
    from registry.signals import Callers


class InferenceConfig(AppConfig):
    name = "inference"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.signals import access_changed, model_names_wanted
        from inference import checks  # noqa: F401 (registers checks)
        from registry.signals import (
            callers_wanted,
            registry_changed,
            rollout_wanted,
            version_replaced,
        )

        rendering.set_site(settings.MODELYARD_PUBLIC_URL)
        access_changed.connect(
            _access_changed, dispatch_uid="inference.controller.publishing"
        )
        registry_changed.connect(
            _models_changed, dispatch_uid="inference.controller.publishing"
        )
        rollout_wanted.connect(
            _start_rollout, dispatch_uid="inference.controller.rollouts"
        )
        registry_changed.connect(_follow_changes, dispatch_uid="inference.following")
        version_replaced.connect(_forget_version, dispatch_uid="inference.forgetting")
        model_names_wanted.connect(_model_names, dispatch_uid="inference.model_names")
        callers_wanted.connect(_callers, dispatch_uid="inference.callers")


# Models can be imported only once the apps are ready.
def _forget_version(model: str, version: int, **_: Any) -> None:
    """Forget what was noted of a version whose number is another's now."""
    from accounts.usage import field_uses
    from inference.models import (
        Feedback,
        FeedbackSum,
        Follow,
        ShadowExample,
        ShadowTotals,
    )

    for told in (Feedback, FeedbackSum):
        told.objects.filter(model=model, version=str(version)).delete()
    for compared in (ShadowTotals, ShadowExample):
        either = Q(shadow_version=version) | Q(default_version=version)
        compared.objects.filter(either, model=model).delete()
    field_uses.forget_version(model, version)
    follows = Follow.objects.filter(registered_model__name=model)
    follows.filter(newest_version__gte=version).update(newest_version=version - 1)


def _access_changed(
    rows: "Iterable[ApiKey | Customer | Plan] | None" = None, **_: Any
) -> None:
    from accounts.models import ApiKey, Customer
    from inference.controller import publishing

    if rows is None:
        publishing.mark_changed()
        return
    names: dict[publishing.Kind, list[object]] = defaultdict(list)
    for row in rows:
        if isinstance(row, ApiKey):
            names[publishing.Kind.KEY].append(row.digest)
        elif isinstance(row, Customer):
            names[publishing.Kind.CUSTOMER].append(row.pk)
        else:
            names[publishing.Kind.PLAN].append(row.pk)
    for kind, changed in names.items():
        publishing.mark_changed(kind, changed)


def _models_changed(models: "Iterable[str] | None" = None, **_: Any) -> None:
    from inference.controller import publishing
    from inference.environments import settling

    settling.settle(models)
    if models is None:
        publishing.mark_changed()
    else:
        publishing.mark_changed(publishing.Kind.MODEL, models)


def _start_rollout(version: "ModelVersion", why: str, **_: Any) -> None:
    from inference.controller.rollouts import conduct

    conduct.start_unless_running(version, why=why)


def _follow_changes(
    sender: type, models: "Iterable[str]" = (), by: "Person" = None, **_: Any
) -> None:
    from inference.following import followers, trust
    from registry.models import RegisteredModel, Route

    if sender is Route:
        followers.follow_what_changed(models, by=by)
    elif sender is RegisteredModel:
        trust.end_requests(models)


def _model_names(**_: Any) -> list[str]:
    from registry.models import RegisteredModel

    return list(RegisteredModel.objects.values_list("name", flat=True))


def _callers(
    model: str, using: "Mapping[str, int] | None" = None, **_: Any
) -> "Callers":
    from accounts.usage import reading
    from registry.signals import Callers

    named, count = reading.callers_of(model, now=timezone.now(), using=using)
    return Callers(tuple(named), count, of_fields=using is not None)
