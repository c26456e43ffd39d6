"""`manage.py backup FILE`: copy this installation into one file while it runs."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config.backups import taking
from config.backups.archive import Refused

_BEHIND_EVERYTHING = 15


class Command(BaseCommand):
    help = "Copy database, usage, jobs and uploads into one file while Modelyard runs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="the new file, or - for standard output")
        parser.add_argument(
            "--recipient",
            action="append",
            default=[],
            help="encrypt for this public key of age or SSH; may be repeated",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        os.nice(_BEHIND_EVERYTHING)
        name = options["file"]
        target = None if name == "-" else Path(name).absolute()
        try:
            head = taking.take(target, recipients=options["recipient"])
        except Refused as error:
            raise CommandError(str(error)) from error
        for missing in head.missing:
            self.stderr.write(f"Not in the backup, because it is not there: {missing}")
        if target is not None:
            size = target.stat().st_size / 1e6
            self.stdout.write(f"Backup of {head.created_at}: {target}, {size:.1f} MB.")
            if not options["recipient"]:
                self.stdout.write("It is not encrypted, so it has no secret key.")
