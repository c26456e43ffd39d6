"""`modelyard new_secret_key`: replace a secret key that is lost or known to others."""

import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.processes import before_start, secret_key


class Command(BaseCommand):
    help = (
        "Make another secret key for this home. Everybody is signed out, and links in "
        "mails, to results of jobs and for uploads end."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--replace", action="store_true", help="also if the home has a key"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("SECRET_KEY", "SECRET_KEY_FILE"):
            if os.environ.get(name):
                raise CommandError(
                    f"{name} is set, so the home's own key is not used. Change it "
                    "there, for all processes, and restart them."
                )
        if settings.HOME.secret_key.exists() and not options["replace"]:
            raise CommandError(
                f"{settings.HOME.root} has a secret key. With another one everybody is "
                "signed out, and links that were sent end. If you want that: "
                "modelyard new_secret_key --replace"
            )
        try:
            before_start.hold_home(settings.HOME)
            secret_key.replace(settings.HOME)
        except before_start.CannotStart as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(
                f"{settings.HOME.secret_key} cannot be written ({error.strerror})."
            ) from error
        self.stdout.write(
            "The home has a new secret key. Everybody must sign in again; links in "
            "mails, to results of jobs and for uploads must be asked for again."
        )
