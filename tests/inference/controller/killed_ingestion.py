"""Ingest usage and die at the first step, then at the second, and so on.

Run by `test_ledger_killed.py`, as `python -m` with the spool's folder and a customer's
id. Steps are the statements, the commits and the removed files of a round.
Each death is a SIGKILL of its own process right before its step. After each one
another process does a whole round. Prints the number of deaths.
"""

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import django

django.setup()

# Django has to know its apps before their models are imported.
from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.metering import spool  # noqa: E402
from accounts.metering.event import UsageEvent  # noqa: E402
from accounts.usage import roll_ups  # noqa: E402
from inference.controller import ledger  # noqa: E402

EVENTS = 3


def write_segment(folder: Path, customer_id: int, boot_id: str) -> None:
    writer = spool.SpoolWriter(folder, boot_id)
    writer.append(
        [
            UsageEvent(
                id=f"{boot_id}-{number}",
                at=time.time(),
                customer_id=customer_id,
                key_id="key",
                operation="predict",
                model="m",
                version="1",
                variant="default",
                status=200,
                code="",
                rows=2,
                charged=True,
                compute_us=10,
                total_us=20,
                shap_samples=0,
                request_id=f"{boot_id}-{number}",
            )
            for number in range(EVENTS)
        ]
    )
    writer.close()


def whole_round(folder: Path) -> None:
    """Ingest, roll up and clean up as the controller and the worker do in a week."""
    now = timezone.now()
    ledger.ingest(folder, now=now + timedelta(seconds=10), budget_s=60)
    roll_ups.roll_up(now=now + timedelta(days=2))
    ledger.delete_old_segments(folder, now=now + timedelta(days=8))


class Dying:
    """Die right before the step with the given number."""

    def __init__(self, step: int) -> None:
        self._left = step

    def before(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any, **named: Any) -> Any:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            return action(*arguments, **named)

        return dying

    def statement(self, execute: Any, *arguments: Any) -> Any:
        return self.before(execute)(*arguments)

    def install(self) -> None:
        connection.execute_wrappers.append(self.statement)
        connection._commit = self.before(connection._commit)
        unlink = self.before(Path.unlink)
        setattr(Path, "unlink", lambda path, **named: unlink(path, **named))  # noqa: B010


def in_a_process(work: Callable[[], None]) -> int:
    """Run it in a child process; return its status as waitpid does."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def main(folder: Path, customer_id: int) -> int:
    for step in itertools.count():
        write_segment(folder, customer_id, f"boot{step}")

        def die(step: int = step) -> None:
            Dying(step).install()
            whole_round(folder)

        status = in_a_process(die)
        if in_a_process(lambda: whole_round(folder)) != 0:
            sys.exit(f"The round after death {step} failed.")
        if status == 0:
            return step
        if not os.WIFSIGNALED(status):
            sys.exit(f"Step {step} failed instead of dying.")
    raise AssertionError("unreachable")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), int(sys.argv[2])))
