"""Connect what the apps below announce and ask."""

from typing import Any

from django.apps import AppConfig


class InferenceConfig(AppConfig):
    name = "inference"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.signals import access_changed, model_names_wanted
        from registry.signals import registry_changed

        for signal in (access_changed, registry_changed):
            signal.connect(_mark_changed, dispatch_uid="inference.mark_changed")
        model_names_wanted.connect(_model_names, dispatch_uid="inference.model_names")


def _mark_changed(**_: Any) -> None:
    # Models can be imported only once the apps are ready.
    from inference import publishing

    publishing.mark_changed()


def _model_names(**_: Any) -> list[str]:
    from registry.models import RegisteredModel

    return list(RegisteredModel.objects.values_list("name", flat=True))
