"""Connect signals and start reports once every app is ready."""

from collections.abc import Sequence
from typing import Any

import structlog
from celery.signals import after_task_publish, task_success
from django.apps import AppConfig, apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks
from django.db.models.signals import post_migrate

log = structlog.get_logger(__name__)


def _note_broker(**_: Any) -> None:
    log.info("broker_available", outage_over="broker")


class AdminConfig(SimpleAdminConfig):
    """The admin without its pages, which only `config.urls` and checks import.

    Most processes show no pages, and start sooner.
    """

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(_check_pages, checks.Tags.admin)


def _check_pages(
    app_configs: Sequence[AppConfig] | None, **options: Any
) -> list[checks.CheckMessage]:
    admin.autodiscover()
    return check_admin_app(app_configs, **options)


class ConfigConfig(AppConfig):
    name = "config"
    # Of the two configurations here.
    default = True

    def ready(self) -> None:
        from config.groups import ensure_groups
        from config.middleware import outage_ends
        from config.monitoring import reporting
        from inference.api import outages
        from inference.installation.log_lines import logs

        logs.outages.part_of = outages.part_of
        task_success.connect(outage_ends.note_success, weak=False)
        after_task_publish.connect(_note_broker, weak=False)

        # Django sends the signal for each app in turn and creates that app's
        # permissions then: after the last app with models, all permissions exist.
        last = [app for app in apps.get_app_configs() if app.models_module][-1]
        post_migrate.connect(ensure_groups, sender=last, dispatch_uid="config.groups")
        reporting.start(settings.MODELYARD_PROCESS)
