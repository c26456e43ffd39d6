"""Wire what needs every app to be ready."""

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class ConfigConfig(AppConfig):
    name = "config"

    def ready(self) -> None:
        from config.groups import ensure_groups

        # Django announces every app in turn and creates its permissions on the way:
        # the last app with models is the moment when all of them exist.
        last = [app for app in apps.get_app_configs() if app.models_module][-1]
        post_migrate.connect(ensure_groups, sender=last, dispatch_uid="config.groups")
