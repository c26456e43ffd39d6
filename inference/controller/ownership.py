"""Which home a database belongs to: exactly one, as long as hosts do not share one.

A second home would lead in turn with the first. Each has its own spool, snapshot and
engines: a key that is revoked while one leads goes on working on the other.
"""

import socket
from datetime import datetime

from inference.installation.home import Home
from inference.models import ControllerLease, DatabaseHome
from registry.models import ModelVersion

_State = ModelVersion.ArtifactState


class OtherHome(Exception):
    """The database belongs to another home; the text is for the operator."""


class TakenOver(OtherHome):
    """It is not even a copy of this one."""


def claim(home: Home, *, now: datetime) -> None:
    """Make the database this home's if it has none yet; raises OtherHome, TakenOver.

    A home that was moved is still the same, and a copy of it is not, for as long as the
    original runs.
    """
    here = _place(home)
    identity = home.identity()
    owner = DatabaseHome.objects.filter(pk=1).first()
    if owner is None:
        fresh = DatabaseHome(pk=1, home_id=identity, since=now, **here)
        DatabaseHome.objects.bulk_create([fresh], ignore_conflicts=True)
        owner = DatabaseHome.objects.get(pk=1)
    if owner.home_id != identity:
        raise TakenOver(
            f"The database belongs to the home {owner}, since {owner.since:%Y-%m-%d}. "
            "One database serves one home: use another database, or move that home "
            "here. If it is gone for good: manage.py take_over"
        )
    if {"host": owner.host, "path": owner.path} == here:
        return
    if _runs(now):
        raise OtherHome(
            f"This home is a copy of {owner}, which is running. Stop that one first; "
            "if its host has just died, try again in ten seconds."
        )
    DatabaseHome.objects.filter(pk=1).update(since=now, **here)


def take_over(home: Home, *, now: datetime) -> str:
    """Give the database to this home; return whose it was. Raises OtherHome."""
    owner = DatabaseHome.objects.filter(pk=1).first()
    identity = home.identity()
    if owner is not None and owner.home_id != identity and _runs(now):
        raise OtherHome(f"The home {owner} is running. Stop it first.")
    if owner is not None and owner.home_id != identity:
        # Engines would be sent to folders that only the other home had.
        ModelVersion.objects.filter(artifact_state=_State.READY).update(
            artifact_state=_State.REMOTE, artifact_digest=""
        )
    DatabaseHome.objects.update_or_create(
        pk=1, defaults={"home_id": identity, "since": now, **_place(home)}
    )
    return "" if owner is None else str(owner)


def _runs(now: datetime) -> bool:
    """Tell whether the owner's controller has renewed its lease a moment ago."""
    return ControllerLease.objects.filter(pk=1, expires_at__gt=now).exists()


def _place(home: Home) -> dict[str, str]:
    return {"host": socket.gethostname(), "path": str(home.root)}
