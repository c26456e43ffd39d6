"""`modelyard roll_up_usage`: add up minutes of usage to hours and days now."""

import datetime
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from accounts.usage import retention, roll_ups
from accounts.usage.grains import DAY


class Command(BaseCommand):
    help = (
        "Add up hours and days of usage that wait for it. With --from and --to, make"
        " those of whole UTC days anew from their minutes, whether they wait or not;"
        " with --check, only compare them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="first", type=_day, metavar="YYYY-MM-DD")
        parser.add_argument(
            "--to", dest="last", type=_day, metavar="YYYY-MM-DD", help="Included."
        )
        parser.add_argument("--customer", type=int, metavar="ID")
        parser.add_argument("--check", action="store_true")

    def handle(self, *_: Any, **options: Any) -> None:
        days = _days(options["first"], options["last"])
        if options["check"]:
            self._check(days)
            return
        marked = sum(
            roll_ups.mark_again(day, day + DAY, customer_id=options["customer"])
            for day in days
        )
        if days:
            self.stdout.write(f"To make anew: {marked} hours of customers.")
        rolled = 0
        progress = roll_ups.RollUpProgress(caught_up=False)
        while not progress.caught_up:
            progress = roll_ups.roll_up(now=timezone.now())
            rolled += progress.done
        self.stdout.write(f"Rolled up: {rolled} hours of customers.")

    def _check(self, days: list[datetime.datetime]) -> None:
        if not days:
            raise CommandError("--check needs --from and --to.")
        differing = sum(len(retention.differing_hours(day)) for day in days)
        if differing:
            raise CommandError(
                f"{differing} hours of customers differ from their minutes, or wait."
            )
        self.stdout.write("Minutes, hours and days have the same sums.")


def _day(text: str) -> datetime.datetime:
    return datetime.datetime.combine(
        datetime.date.fromisoformat(text), datetime.time(), tzinfo=datetime.UTC
    )


def _days(
    first: datetime.datetime | None, last: datetime.datetime | None
) -> list[datetime.datetime]:
    if first is None and last is None:
        return []
    if first is None or last is None or last < first:
        raise CommandError("--from and --to name the first and the last day.")
    first = max(first, roll_ups.kept_from())
    return [first + number * DAY for number in range((last - first).days + 1)]
