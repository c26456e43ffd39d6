"""One synchronisation at a time: who runs it, and how it went."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from registry.mlflow import client
from registry.models import RegistrySync

# A sync of another machine that has run for longer was killed; of those that were
# killed on this one its file tells at once.
LOCK_EXPIRES_AFTER = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one synchronisation found and did."""

    ran: bool
    models: int = 0
    versions: int = 0
    changed: tuple[str, ...] = ()
    not_fetched: tuple[str, ...] = ()
    error: str = ""


@contextlib.contextmanager
def alone_here() -> Iterator[bool]:
    """Hold the file of this installation's sync; tell whether nobody else does.

    The kernel lets go of it for a process that was killed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    file = os.open(settings.HOME.run / "sync.lock", flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(file)


def here() -> str:
    """Name this installation among those that share a database."""
    return f"{socket.gethostname()}:{settings.HOME.root}"[:500]


def claim(now: datetime) -> bool:
    """Take the one lock by a guarded update, while this installation's file is held."""
    RegistrySync.objects.get_or_create(pk=1)
    free = (
        Q(running_since=None)
        | Q(running_since__lt=now - LOCK_EXPIRES_AFTER)
        # Whoever held it here was killed, or its file would be held still.
        | Q(running_on=here())
    )
    return bool(
        RegistrySync.objects.filter(free, pk=1).update(
            running_since=now,
            running_on=here(),
            attempted_at=now,
            tracking_uri=client.shown_uri(settings.MLFLOW_TRACKING_URI)[:500],
        )
    )


def release(started_at: datetime, outcome: Outcome, *, duration_s: float) -> None:
    facts: dict[str, Any] = {
        "running_since": None,
        "error": outcome.error,
        "duration_ms": round(duration_s * 1000),
    }
    if not outcome.error:
        facts["succeeded_at"] = timezone.now()
    # Not if another sync took over because this one was so slow.
    RegistrySync.objects.filter(pk=1, running_since=started_at).update(**facts)
