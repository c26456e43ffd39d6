"""Count background tasks by how they end."""

import time
from typing import Any

from celery.signals import task_postrun, task_prerun

from inference.metrics.counts import HERE

_started: dict[str, float] = {}


def connect() -> None:
    task_prerun.connect(_begun, dispatch_uid="metrics")
    task_postrun.connect(_ended, dispatch_uid="metrics")


def disconnect() -> None:
    task_prerun.disconnect(dispatch_uid="metrics")
    task_postrun.disconnect(dispatch_uid="metrics")


def _begun(task_id: str, **_: Any) -> None:
    _started[task_id] = time.monotonic()


def _ended(task_id: str, task: Any, state: str | None, **_: Any) -> None:
    began = _started.pop(task_id, None)
    name = str(task.name)
    succeeded = state == "SUCCESS"
    HERE.add("tasks", name, "succeeded" if succeeded else "failed")
    if began is not None:
        seconds = time.monotonic() - began
        HERE.observe("task_duration_seconds", name, value=seconds)
    if succeeded:
        HERE.set("task_succeeded_at_seconds", name, value=time.time())
