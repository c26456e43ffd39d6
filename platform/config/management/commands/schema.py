"""`manage.py schema`: print the database's migrations, or go back to earlier ones."""

from argparse import ArgumentParser, FileType
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.recorder import MigrationRecorder

from config.processes import schema


class Command(BaseCommand):
    help = "Print the last migration of each app, or go back to what this printed once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--back-to",
            type=FileType(),
            metavar="FILE",
            help="undo the migrations since FILE was printed, with what they hold",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["back_to"] is not None:
            with options["back_to"] as file:
                parts = [line.split() for line in file if line.strip()]
            if any(len(one) != 2 for one in parts):
                raise CommandError("Each line must be an app and a migration.")
            wanted = [(app, name) for app, name in parts]
            if unknown := schema.unknown(wanted):
                raise CommandError(
                    f"This version does not know {unknown[0]}. Run the command with "
                    "the newer version, before the older one is installed."
                )
            try:
                schema.migrate_to(wanted)
            except IrreversibleError as error:
                raise CommandError(
                    f"{error} Restore the backup from before the upgrade instead."
                ) from error
        recorded = MigrationRecorder(connection).applied_migrations()
        for app, name in schema.last_of_each_app(recorded):
            self.stdout.write(f"{app} {name}")
