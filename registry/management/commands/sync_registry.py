"""`modelyard sync_registry`: synchronise with MLflow once, now."""

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from registry import artifacts, sync

# The worker synchronises each minute, so that a person often meets its turn.
_PATIENCE_S = 300.0
_ASK_AGAIN_S = 0.5


class Command(BaseCommand):
    help = "Copy models, versions and aliases from MLflow and fetch wanted artifacts."

    def handle(self, *_: Any, **__: Any) -> None:
        registry = artifacts.connect()
        outcome = sync.synchronise(registry)
        if not outcome.ran:
            self.stdout.write("Another synchronisation is running; waiting for it.")
        give_up_at = time.monotonic() + _PATIENCE_S
        while not outcome.ran and time.monotonic() < give_up_at:
            time.sleep(_ASK_AGAIN_S)
            outcome = sync.synchronise(registry)
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
