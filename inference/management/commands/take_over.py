"""`modelyard take_over`: give the database to this home once the other is gone."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from inference.controller import ownership


class Command(BaseCommand):
    help = "Give the database to this MODELYARD_HOME once the previous one is gone."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            former = ownership.take_over(settings.HOME, now=timezone.now())
        except ownership.OtherHome as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"The database belongs to {settings.HOME.root} now"
            + (f"; before, to {former}." if former else ".")
        )
