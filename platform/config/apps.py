"""Connect signals once every app is ready."""

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class ConfigConfig(AppConfig):
    name = "config"

    def ready(self) -> None:
        from config.groups import ensure_groups

        # Django sends the signal for each app in turn and creates that app's
        # permissions then: after the last app with models, all permissions exist.
        last = [app for app in apps.get_app_configs() if app.models_module][-1]
        post_migrate.connect(ensure_groups, sender=last, dispatch_uid="config.groups")
