"""`manage.py restore FILE`: fill an empty home and database from a backup."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import django.db
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.backups import restoring
from config.backups.archive import Refused
from config.processes import before_start


class Command(BaseCommand):
    help = "Fill an empty MODELYARD_HOME and an empty database from a backup."
    # The database is empty.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--identity", type=Path, help="the private key of an encrypted backup"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path = options["file"].absolute()
        try:
            # Nothing may start on this home meanwhile.
            before_start.hold_home(settings.HOME)
            head, former = restoring.restore(path, identity=options["identity"])
        except (Refused, before_start.CannotStart) as error:
            raise CommandError(str(error)) from error
        except (OSError, django.db.Error) as error:
            raise CommandError(
                f"The restore failed: {error}. Empty the home and the database, and "
                "begin again."
            ) from error
        self.stdout.write(
            f"Restored the backup of {head.created_at} into {settings.HOME.root}."
        )
        if former:
            self.stdout.write(
                f"It was the home {former}. Stop that one: it would go on answering, "
                "and its usage would be counted nowhere."
            )
