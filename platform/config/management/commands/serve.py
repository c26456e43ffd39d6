"""`modelyard serve`: run all processes of this machine until a stop signal."""

import os
from argparse import ArgumentParser
from typing import Any

import msgspec
import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from config.processes import before_start, specs
from inference.host import cgroups
from inference.installation.log_lines import logs

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Start gateway, engines, site, controller, worker and beat; watch them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--print-processes",
            action="store_true",
            help="start nothing: check settings and database, and print the processes",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["print_processes"]:
                before_start.check_settings(before_start.environment())
                before_start.check_database()
                self.stdout.write(msgspec.json.encode(specs.process_specs()).decode())
                return
            before_start.check()
            before_start.check_database()
        except before_start.CannotStart as error:
            raise CommandError(str(error)) from error
        # The supervisor itself needs the database no more.
        connection.close()
        to_files = settings.LOG_TO == "files"
        if not to_files:
            logs.configure("serve", level=logs.level_of(os.environ))
        supervisor = specs.supervisor(log_to_files=to_files)
        cgroups.make_room()
        supervisor.start()
        if to_files:
            self.stdout.write(
                f"Modelyard is starting on {settings.MODELYARD_PUBLIC_URL}; "
                f"logs are in {settings.HOME.logs}."
            )
            self.stdout.flush()
        else:
            # Each line of this output is a JSON object.
            log.info("starting", url=settings.MODELYARD_PUBLIC_URL)
        supervisor.run()
