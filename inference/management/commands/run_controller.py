"""`modelyard run_controller`: publish snapshots, reconcile engines, ingest usage."""

import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from inference.controller.controller import Controller
from inference.installation.log_lines import logs


class Command(BaseCommand):
    help = "Publish snapshots, keep engines as routes want them, and ingest usage."
    # Those who start it have made them.
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.MODELYARD_PROCESS:
            # Started without the supervisor, it is still a service.
            logs.configure("controller")
        controller = Controller(settings.HOME)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: controller.stop())
        controller.run()
