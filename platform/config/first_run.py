"""Brings an installation from nothing, or from half-way, to the demo.

Every step looks at what is there and does only what is missing, so a run that was
interrupted is finished by the next one.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from config import demo

# Seconds that one demo model may take to train and register.
_TRAINING_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Step:
    """`needed` is quick and has no effect; `act` returns a word on what it did."""

    title: str
    needed: Callable[[], bool]
    act: Callable[[], str]


def steps() -> tuple[Step, ...]:
    """Everything between an empty folder and a demo that can be served, in order."""
    return (
        Step("Prepare the database", _has_unapplied_migrations, _migrate),
        *(
            Step(
                f"Train and register {name}",
                lambda name=name: not demo.is_registered(name),  # type: ignore[misc]
                lambda name=name: _train(name),  # type: ignore[misc]
            )
            for name in demo.MODELS
        ),
        Step("Bring the models over from MLflow", demo.needs_sync, demo.sync),
        Step("Create people, plans and keys", demo.needs_people, demo.create_people),
        Step("Set the demo's routes", demo.needs_routes, demo.set_routes),
    )


def _has_unapplied_migrations() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _migrate() -> str:
    call_command("migrate", interactive=False, verbosity=0)
    return connection.vendor


def _train(name: str) -> str:
    """Run one example in a process of its own, as a data scientist would."""
    script = settings.BASE_DIR / "examples" / f"{name.replace('-', '_')}.py"
    result = subprocess.run(
        [sys.executable, str(script), "--if-missing"],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": settings.MLFLOW_TRACKING_URI,
            "MODELYARD_ARTIFACT_ROOT": str(settings.HOME.mlflow / "artifacts"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TRAINING_TIMEOUT_S,
        check=False,
    )
    log = settings.HOME.logs / f"train-{name}.log"
    log.write_text(result.stdout + result.stderr)
    if result.returncode != 0:
        last = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise demo.SetUpFailed(
            f"Training {name} failed: {''.join(last) or result.returncode}. The whole "
            f"output is in {log}; run `make run` again to go on from here."
        )
    return result.stdout.strip().splitlines()[-1] if result.stdout.strip() else "done"
