"""Connect the signals of the apps below."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings

from inference.errors import rendering

if TYPE_CHECKING:
    from accounts.models import ApiKey, Customer, Plan


class InferenceConfig(AppConfig):
    name = "inference"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.signals import access_changed, model_names_wanted
        from inference import checks  # noqa: F401 (registers checks)
        from registry.signals import registry_changed

        rendering.set_site(settings.MODELYARD_PUBLIC_URL)
        access_changed.connect(
            _access_changed, dispatch_uid="inference.controller.publishing"
        )
        registry_changed.connect(
            _models_changed, dispatch_uid="inference.controller.publishing"
        )
        model_names_wanted.connect(_model_names, dispatch_uid="inference.model_names")


# Models can be imported only once the apps are ready.
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


def _model_names(**_: Any) -> list[str]:
    from registry.models import RegisteredModel

    return list(RegisteredModel.objects.values_list("name", flat=True))
