"""Let one synchronisation run at a time, and record how it went."""

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

# After this time a sync of another machine counts as killed. A sync that was killed on
# this machine is noticed at once: its file is no longer locked.
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
    """Lock this installation's sync file; yield whether that succeeded.

    The kernel releases the lock of a killed process.
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
    """Return a name of this installation, unique among those that share a database."""
    return f"{socket.gethostname()}:{settings.HOME.root}"[:500]


def claim(now: datetime) -> bool:
    """Take the database's lock by a guarded update, while holding the file."""
    RegistrySync.objects.get_or_create(pk=1)
    free = (
        Q(running_since=None)
        | Q(running_since__lt=now - LOCK_EXPIRES_AFTER)
        # The process that held it here was killed, or it would still lock the file.
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
    # If this sync was so slow that another one took over, nothing is written.
    RegistrySync.objects.filter(pk=1, running_since=started_at).update(**facts)
