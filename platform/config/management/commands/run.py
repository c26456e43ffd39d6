"""`modelyard run NAME`: become one process of this machine, as in a container."""

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from config.processes import before_start
from config.processes.specs import process_specs


class Command(BaseCommand):
    help = "Become one process of this machine; `serve` starts all of them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="for example site, worker or beat")

    def handle(self, *args: Any, **options: Any) -> None:
        specs = {spec.name: spec for spec in process_specs()}
        spec = specs.get(options["name"])
        if spec is None:
            raise CommandError(
                f"There is no process {options['name']}; there are {', '.join(specs)}.",
                returncode=os.EX_CONFIG,
            )
        try:
            before_start.check_alone(
                spec.name,
                # What sees no credentials needs no database either.
                uses_database="DATABASE_URL" not in spec.hidden,
            )
        except before_start.CannotStart as error:
            raise CommandError(str(error), returncode=os.EX_CONFIG) from error
        connection.close()
        os.nice(spec.nice)
        inherited = {
            name: value for name, value in os.environ.items() if name not in spec.hidden
        }
        # The process itself gets SIGTERM, and its exit code is its own.
        os.execvpe(
            spec.command[0],
            spec.command,
            {**inherited, **spec.environment, "MODELYARD_PROCESS": spec.name},
        )
