"""`manage.py sync_registry`: synchronise with MLflow once, now."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from registry import artifacts, sync


class Command(BaseCommand):
    help = "Copy models, versions and aliases from MLflow and fetch wanted artifacts."

    def handle(self, *_: Any, **__: Any) -> None:
        outcome = sync.synchronise(artifacts.connect())
        if outcome.error:
            raise CommandError(outcome.error)
        changed = ", ".join(outcome.changed) or "nothing"
        self.stdout.write(
            f"{outcome.models} models with {outcome.versions} versions in MLflow; "
            f"changed: {changed}."
        )
        if outcome.not_fetched:
            raise CommandError(
                "Artifacts that could not be fetched: "
                f"{', '.join(outcome.not_fetched)}. The admin shows why."
            )
