"""`manage.py serve`: run all processes of this machine until a stop signal."""

import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from config.processes import before_start
from config.processes.specs import process_specs
from config.processes.supervisor import Supervisor


class Command(BaseCommand):
    help = "Start gateway, engines, site, controller, worker and beat; watch them."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            before_start.check()
            before_start.check_database()
        except before_start.CannotStart as error:
            raise CommandError(str(error)) from error
        # The supervisor itself needs the database no more.
        connection.close()
        to_files = settings.LOG_TO == "files"
        supervisor = Supervisor(
            process_specs(), home=settings.HOME, log_to_files=to_files
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: supervisor.request_stop())
        supervisor.start()
        where = settings.HOME.logs if to_files else "this output"
        self.stdout.write(
            f"Modelyard is starting on {settings.MODELYARD_PUBLIC_URL}; "
            f"logs are in {where}."
        )
        self.stdout.flush()
        supervisor.run()
