"""Connect changes that other apps announce to the snapshot."""

from typing import Any

from django.apps import AppConfig


class InferenceConfig(AppConfig):
    name = "inference"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.signals import access_changed
        from registry.signals import registry_changed

        for signal in (access_changed, registry_changed):
            signal.connect(_mark_changed, dispatch_uid="inference.mark_changed")


def _mark_changed(**_: Any) -> None:
    # Models can be imported only once the apps are ready.
    from inference import publishing

    publishing.mark_changed()
