"""Set up the demo.

Each step does only what is missing, so the next run completes one that was interrupted.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from config.demo import contents
from config.demo.contents import Say
from config.processes.supervisor import prepare_child

# Seconds that all demo models together may take to train and register.
_TRAINING_TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `needed` is quick and has no effect; `act` returns a short result.

    `act` may report its progress by the function that it gets.
    """

    title: str
    # What its seconds count as at the end.
    part: str
    needed: Callable[[], bool]
    act: Callable[[Say], str]


def steps() -> tuple[Step, ...]:
    """Return the steps from an empty folder to a demo that can be served, in order."""
    return (
        Step("Prepare the database", "database", _has_unapplied_migrations, _migrate),
        Step(
            "Train and register the demo's models",
            "training",
            contents.needs_sync,
            _train,
        ),
        Step(
            "Bring the models over from MLflow",
            "demo data",
            contents.needs_sync,
            contents.sync,
        ),
        Step(
            "Create people, plans and keys",
            "demo data",
            contents.needs_people,
            contents.create_people,
        ),
        Step(
            "Set the demo's routes",
            "demo data",
            contents.needs_routes,
            contents.set_routes,
        ),
    )


def _has_unapplied_migrations() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _migrate(_say: Say) -> str:
    call_command("migrate", interactive=False, verbosity=0)
    return connection.vendor


def _train(say: Say) -> str:
    """Run the examples in their own process, as a data scientist would."""
    log = settings.HOME.logs / "train.log"
    parent = os.getpid()
    deadline = time.monotonic() + _TRAINING_TIMEOUT_S
    with (
        log.open("w") as problems,
        subprocess.Popen(
            [sys.executable, str(settings.BASE_DIR / "examples"), "--if-missing"],
            env={
                **os.environ,
                "MLFLOW_TRACKING_URI": settings.MLFLOW_TRACKING_URI,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=problems,
            text=True,
            preexec_fn=lambda: prepare_child(parent),
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                say(line.rstrip())
                if time.monotonic() > deadline:
                    raise contents.SetUpFailed(
                        f"Training took longer than {_TRAINING_TIMEOUT_S} s."
                    )
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        last = log.read_text().strip().splitlines()[-1:]
        raise contents.SetUpFailed(
            f"Training failed: {''.join(last) or process.returncode}. The whole "
            f"output is in {log}; run `make run` again to go on from here."
        )
    return ""
