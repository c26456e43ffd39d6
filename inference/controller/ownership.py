"""Let exactly one home own a database.

Two homes would lead in turn. Each has its own spool, snapshot and engines, so a key
that is revoked while one leads would still work on the other.
"""

import socket
from datetime import datetime

from inference.installation.home import Home
from inference.models import ControllerLease, DatabaseHome
from registry.models import ModelVersion

_State = ModelVersion.ArtifactState


class OtherHome(Exception):
    """The database belongs to another place; the text is for the operator."""


class TakenOver(OtherHome):
    """The database belongs to another home, of which this one is not a copy."""


def claim(home: Home, *, now: datetime) -> None:
    """Let this home own the database if no home does; raise OtherHome or TakenOver.

    A moved home stays the owner. A copy is refused as long as the original runs.
    """
    here = _place(home)
    identity = home.identity()
    owner = DatabaseHome.objects.filter(pk=1).first()
    if owner is None:
        fresh = DatabaseHome(pk=1, home_id=identity, since=now, **here)
        DatabaseHome.objects.bulk_create([fresh], ignore_conflicts=True)
        owner = DatabaseHome.objects.get(pk=1)
    _require(owner, identity)
    if {"host": owner.host, "path": owner.path} == here:
        return
    if _runs(now):
        raise OtherHome(
            f"This home is a copy of {owner}, which is running. Stop that one first; "
            "if its host has just died, try again in ten seconds."
        )
    DatabaseHome.objects.filter(pk=1).update(since=now, **here)


def check(home: Home) -> None:
    """Raise TakenOver if another home owns the database."""
    owner = DatabaseHome.objects.filter(pk=1).first()
    if owner is not None:
        _require(owner, home.identity())


def _require(owner: DatabaseHome, identity: str) -> None:
    if owner.home_id != identity:
        raise TakenOver(
            f"The database belongs to the home {owner}, since {owner.since:%Y-%m-%d}. "
            "One database serves one home: use another database, or move that home "
            "here. If it is gone for good: modelyard take_over"
        )


def take_over(home: Home, *, now: datetime) -> str:
    """Give the database to this home; return the former owner. Raises OtherHome."""
    owner = DatabaseHome.objects.filter(pk=1).first()
    identity = home.identity()
    if owner is not None and owner.home_id != identity and _runs(now):
        raise OtherHome(f"The home {owner} is running. Stop it first.")
    if owner is not None and owner.home_id != identity:
        # Only the other home had these artifacts in its folders.
        ModelVersion.objects.filter(artifact_state=_State.READY).update(
            artifact_state=_State.REMOTE, artifact_digest=""
        )
    DatabaseHome.objects.update_or_create(
        pk=1, defaults={"home_id": identity, "since": now, **_place(home)}
    )
    return "" if owner is None else str(owner)


def _runs(now: datetime) -> bool:
    """Return whether the owner's controller has renewed its leadership recently."""
    return ControllerLease.objects.filter(pk=1, expires_at__gt=now).exists()


def _place(home: Home) -> dict[str, str]:
    return {"host": socket.gethostname(), "path": str(home.root)}
