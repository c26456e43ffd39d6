"""Elect the leading controller by a row in the database and a lock on this machine."""

import fcntl
import os
from datetime import datetime, timedelta
from pathlib import Path

from django.db.models import Q

from inference.models import ControllerLease

LEADERSHIP_TTL_S = 9.0
# Leadership that ends later was taken before the clock was set back.
_LONGEST_S = 60.0


def lead(holder: str, *, now: datetime) -> bool:
    """Take or renew leadership for LEADERSHIP_TTL_S; return whether `holder` leads."""
    expires_at = now + timedelta(seconds=LEADERSHIP_TTL_S)
    implausible = now + timedelta(seconds=_LONGEST_S)
    mine_or_free = (
        Q(holder=holder) | Q(expires_at__lt=now) | Q(expires_at__gt=implausible)
    )
    if ControllerLease.objects.filter(mine_or_free, pk=1).update(
        holder=holder, expires_at=expires_at
    ):
        return True
    created = ControllerLease(pk=1, holder=holder, expires_at=expires_at)
    ControllerLease.objects.bulk_create([created], ignore_conflicts=True)
    return ControllerLease.objects.filter(
        pk=1, holder=holder, expires_at=expires_at
    ).exists()


def resign(holder: str, *, now: datetime) -> None:
    """End this holder's leadership, so that another controller can lead at once."""
    ControllerLease.objects.filter(pk=1, holder=holder).update(
        holder="", expires_at=now - timedelta(seconds=1)
    )


class Predecessor:
    """The previous controller of this machine, which may have died as the leader.

    A file names it, under a lock that ends with the process. A controller that gets the
    lock knows that the previous one is dead, and need not wait for its leadership.
    """

    def __init__(self, path: Path, *, successor: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._successor = successor
        self._dismissed = False

    def dismiss(self, *, now: datetime) -> None:
        """End its leadership if it is dead, and take its place in the file."""
        if self._dismissed:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        former = os.pread(self._file, 64, 0).decode(errors="replace")
        resign(former, now=now)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, self._successor.encode(), 0)
        self._dismissed = True

    def close(self) -> None:
        os.close(self._file)
