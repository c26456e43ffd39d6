"""Copying what MLflow knows into our own tables, again and again.

Questions to MLflow come first and outside any transaction; then each model is written
in one short transaction of its own, and only where something differs. Nothing is ever
deleted but aliases: what disappears from MLflow is marked as missing, because a route
may still serve it.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from registry import artifacts, changes, metadata, mlflow_client
from registry.mlflow_types import (
    ArtifactRefused,
    ModelFile,
    ModelRegistry,
    RegistryUnreachable,
    RemoteModel,
    RemoteVersion,
)
from registry.models import Alias, ModelVersion, RegisteredModel, RegistrySync, Route
from registry.signals import registry_changed

log = structlog.get_logger(__name__)

# A sync of another machine that has run for longer was killed; of those that were
# killed on this one its file tells at once.
LOCK_EXPIRES_AFTER = timedelta(minutes=30)
# Metrics may still be logged after registration; those of older versions are read
# once, because each costs MLflow two queries.
_VERSIONS_WITH_FRESH_METRICS = 20
CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one synchronisation found and did."""

    ran: bool
    models: int = 0
    versions: int = 0
    changed: tuple[str, ...] = ()
    not_fetched: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Reading:
    """One remote version with what had to be asked for it; None: keep what we have."""

    remote: RemoteVersion
    metrics: dict[str, float | None] | None
    file: ModelFile | None
    file_problem: str = ""


def synchronise(registry: ModelRegistry) -> Outcome:
    """Bring tables and artifact cache up to date, unless a sync already runs.

    An unreachable MLflow leaves everything as it is and is told in RegistrySync.
    """
    with _alone_here() as alone:
        started_at, started = timezone.now(), time.monotonic()
        if not alone or not _claim(started_at):
            return Outcome(ran=False, error="Another synchronisation is running.")
        outcome = Outcome(ran=True, error="The synchronisation was interrupted.")
        try:
            outcome = _synchronise(registry, now=started_at)
        except Exception as error:
            # A process boundary: a person must see that the sync failed, whatever it
            # was.
            log.exception("sync failed")
            outcome = Outcome(
                ran=True,
                error=f"The synchronisation failed ({type(error).__name__}). "
                "The log of the worker says more.",
            )
        finally:
            _release(started_at, outcome, duration_s=time.monotonic() - started)
    return outcome


def _synchronise(registry: ModelRegistry, *, now: datetime) -> Outcome:
    try:
        remote = registry.models()
        readings = {model.name: _read(registry, model) for model in remote}
    except RegistryUnreachable as error:
        log.warning("mlflow unreachable", error=str(error))
        return Outcome(ran=True, error=str(error))
    changed = [
        model.name
        for model in remote
        if _write_model(model, readings[model.name], now=now)
    ]
    changed += _mark_missing({model.name for model in remote}, now=now)
    not_fetched = artifacts.fetch_wanted(registry)
    outcome = Outcome(
        ran=True,
        models=len(remote),
        versions=sum(len(model.versions) for model in remote),
        changed=tuple(changed),
        not_fetched=tuple(str(version) for version in not_fetched),
    )
    if changed:
        log.info("registry changed", models=changed)
    return outcome


@contextlib.contextmanager
def _alone_here() -> Iterator[bool]:
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


def _claim(now: datetime) -> bool:
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
            tracking_uri=mlflow_client.shown_uri(settings.MLFLOW_TRACKING_URI)[:500],
        )
    )


def _release(started_at: datetime, outcome: Outcome, *, duration_s: float) -> None:
    facts: dict[str, Any] = {
        "running_since": None,
        "error": outcome.error,
        "duration_ms": round(duration_s * 1000),
    }
    if not outcome.error:
        facts["succeeded_at"] = timezone.now()
    # Not if another sync took over because this one was so slow.
    RegistrySync.objects.filter(pk=1, running_since=started_at).update(**facts)


def _read(registry: ModelRegistry, model: RemoteModel) -> list[_Reading]:
    """Ask for what the list of versions does not hold."""
    known = {
        row.version: row
        for row in ModelVersion.objects.filter(registered_model__name=model.name)
    }
    newest_first = sorted(model.versions, key=lambda version: -version.version)
    readings = []
    for position, version in enumerate(newest_first):
        row = known.get(version.version)
        same = row is not None and row.source == version.source
        metrics, file, problem = None, None, ""
        if not same or position < _VERSIONS_WITH_FRESH_METRICS:
            metrics = registry.metrics(model.name, version)
        # An artifact never changes, so its description is read once.
        if not (same and row and row.flavors) and version.status in ("", "READY"):
            try:
                file = registry.model_file(model.name, version.version)
            except (ArtifactRefused, RegistryUnreachable) as error:
                # The list came through, so only this artifact's store is in trouble.
                problem = str(error)
        readings.append(
            _Reading(remote=version, metrics=metrics, file=file, file_problem=problem)
        )
    return readings


def _write_model(
    remote: RemoteModel, readings: list[_Reading], *, now: datetime
) -> bool:
    """Write one model with all that belongs to it; True if anything differed."""
    with transaction.atomic():
        model = RegisteredModel.objects.filter(name=remote.name).first()
        model = model or RegisteredModel(name=remote.name)
        changed = _update(
            model,
            {
                "description": remote.description,
                "tags": dict(remote.tags),
                "missing_since": None,
            },
        )
        rows = {row.version: row for row in model.versions.all()}
        for reading in readings:
            row = rows.setdefault(
                reading.remote.version,
                ModelVersion(registered_model=model, version=reading.remote.version),
            )
            changed |= _update(row, _fields(row, reading))
        present = {reading.remote.version for reading in readings}
        for number, row in rows.items():
            if number not in present and row.missing_since is None:
                changed |= _update(row, {"missing_since": now})
        changed |= _write_aliases(model, remote.aliases, rows)
        changed |= _give_first_route(model)
        if changed:
            registry_changed.send(sender=RegisteredModel)
    return changed


def _fields(row: ModelVersion, reading: _Reading) -> dict[str, Any]:
    remote = reading.remote
    fields: dict[str, Any] = {
        "description": remote.description,
        "source": remote.source,
        "run_id": remote.run_id,
        "mlflow_status": remote.status,
        "registered_at": remote.registered_at,
        "tags": dict(remote.tags),
        "missing_since": None,
    }
    if row.pk is not None and row.source != remote.source:
        # The name was deleted and registered anew: same number, other artifact.
        fields |= {
            "flavors": [],
            "signature": {},
            "metadata": {},
            "input_example": None,
            "artifact_state": ModelVersion.ArtifactState.REMOTE,
            "artifact_digest": "",
            "artifact_error": "",
        }
    if reading.metrics is not None:
        fields["metrics"] = reading.metrics
    if reading.file is not None:
        file = reading.file
        problems = [*file.problems, *metadata.check(file.metadata, file.signature)]
        fields |= {
            "flavors": list(file.flavors),
            "signature": dict(file.signature),
            "metadata": file.metadata if isinstance(file.metadata, dict) else {},
            "metadata_errors": problems,
            "input_example": file.input_example,
        }
    elif reading.file_problem:
        fields["metadata_errors"] = [reading.file_problem]
    return fields


def _update(row: models.Model, fields: Mapping[str, Any]) -> bool:
    """Set `fields`; write only if the row is new or one of them differs."""
    differing = [name for name, value in fields.items() if getattr(row, name) != value]
    for name in differing:
        setattr(row, name, fields[name])
    if row.pk is None:
        row.save()
        return True
    if differing:
        row._change_reason = "synchronised"  # type: ignore[attr-defined]  # simple_history
        row.save(update_fields=differing)
    return bool(differing)


def _write_aliases(
    model: RegisteredModel, remote: Mapping[str, int], rows: dict[int, ModelVersion]
) -> bool:
    wanted = {name: rows[number] for name, number in remote.items() if number in rows}
    gone, changed = [], False
    for alias in model.aliases.all():
        version = wanted.pop(alias.name, None)
        if version is None:
            gone.append(alias.pk)
        else:
            changed |= _update(alias, {"version_id": version.pk})
    if gone:
        Alias.objects.filter(pk__in=gone).delete()
    for name, version in wanted.items():
        Alias.objects.create(registered_model=model, name=name, version=version)
    return changed or bool(gone or wanted)


def _give_first_route(model: RegisteredModel) -> bool:
    """Serve the champion of a model without a route; else a person decides."""
    if Route.objects.filter(registered_model=model).exists():
        return False
    champion = model.aliases.filter(name=CHAMPION).select_related("version").first()
    if champion is None or champion.version.missing_since is not None:
        return False
    route = Route(registered_model=model, default_version=champion.version)
    changes.save(route, by=None, reason=f"alias {CHAMPION} at the first sync")
    return True


def _mark_missing(present: set[str], *, now: datetime) -> list[str]:
    missing = RegisteredModel.objects.filter(missing_since=None).exclude(
        name__in=present
    )
    names = []
    for model in missing:
        with transaction.atomic():
            _update(model, {"missing_since": now})
            model.versions.filter(missing_since=None).update(missing_since=now)
            registry_changed.send(sender=RegisteredModel)
        names.append(model.name)
    return names
