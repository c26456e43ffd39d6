"""`manage.py serve`: run every process of this machine until told to stop."""

import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.processes import process_specs
from config.supervisor import CannotStart, Supervisor, check_ports, hold_home


class Command(BaseCommand):
    help = "Start gateway, engines, site, controller, worker and beat; watch them."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            hold_home(settings.HOME)
            check_ports(
                settings.MODELYARD_HOST,
                {
                    settings.MODELYARD_PORT: "MODELYARD_PORT",
                    settings.MODELYARD_OPERATOR_PORT: "MODELYARD_OPERATOR_PORT",
                },
            )
        except CannotStart as error:
            raise CommandError(str(error)) from error
        supervisor = Supervisor(process_specs(), home=settings.HOME)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: supervisor.request_stop())
        supervisor.start()
        self.stdout.write(
            f"Modelyard is starting on {settings.MODELYARD_PUBLIC_URL}; "
            f"logs are in {settings.HOME.logs}."
        )
        supervisor.run()
