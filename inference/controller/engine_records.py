"""Store the engines' reports as rows, for the admin and for snapshots."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

from django.db import transaction

from inference.controller import publishing
from inference.controller.engine_links import EngineView
from inference.controller.placing import Running
from inference.engine.wire.messages import EngineStatus, VersionKey, VersionStatus
from inference.models import Engine, Host, LoadedVersion
from inference.placement.processes import HostReport
from inference.placement.situation import Lacking

# Samples of memory are kept for a day: each of the last hour, then one in ten minutes.
_EVERY_SAMPLE_S = 3600.0
_SPARSE_S = 600.0
_OLDEST_S = 86_400.0
_LEAKS = "Its memory grows steadily: it leaks."


def record(
    view: EngineView,
    *,
    now: datetime,
    running: Running | None = None,
    leaving: AbstractSet[VersionKey] = frozenset(),
    leaks: bool = False,
) -> None:
    """Store one engine's report; count a change if gateways must learn of it.

    `leaving` are versions that gateways should not call there any more.
    """
    with transaction.atomic():
        engine, created = Engine.objects.get_or_create(
            name=view.name, defaults={"address": view.address}
        )
        # Whether all that it holds came or went at once.
        moved = created or engine.address != view.address
        engine.address = view.address
        if running is not None:
            _record_process(engine, running)
        changed: set[str] = set()
        if view.status is None:
            moved |= _unreachable(engine, view, running)
        else:
            moved |= engine.state != Engine.State.RUNNING
            engine.state = Engine.State.RUNNING
            engine.device = view.status.device
            engine.pid = view.status.pid
            engine.memory_bytes = _memory(view.status, running)
            if view.status.device_status is not None:
                device = view.status.device_status
                engine.device_title = device.title[:100]
                engine.device_total_bytes = device.total_bytes
                engine.device_used_bytes = device.used_bytes
            engine.error = ""
            engine.seen_at = now
            versions = {
                key: status
                for key, status in view.versions.items()
                if key not in leaving
            }
            changed = _record_versions(engine, versions, leaks=leaks)
        engine.save()
        if moved:
            changed |= _models_of(engine)
        if changed:
            publishing.mark_changed(publishing.Kind.MODEL, changed)


def _memory(status: EngineStatus, running: Running | None) -> int:
    """Return the memory of a process; of one with its author's code, its own only.

    Such processes share their libraries, which would be counted once for each.
    """
    if running is None or running.reported is None or running.planned.kind == "device":
        return status.memory_bytes
    return running.reported.memory_bytes


def _models_of(engine: Engine) -> set[str]:
    """Return the models that gateways may call there; "" means all of them."""
    if engine.kind == Engine.Kind.DEVICE:
        return {""}
    return set(engine.loaded_versions.values_list("model", flat=True))


def _record_process(engine: Engine, running: Running) -> None:
    """Store what is planned of the process, and what its host reports."""
    planned, reported = running.planned, running.reported
    engine.host = running.host
    engine.kind = planned.kind
    engine.environment = planned.environment
    engine.memory_limit_bytes = planned.memory_limit_bytes
    if reported is None:
        return
    engine.walls = reported.walls
    if reported.started_at:
        engine.started_at = datetime.fromtimestamp(reported.started_at, UTC)
    engine.memory_samples = thinned(engine.memory_samples, reported.memory_samples)


def thinned(
    stored: list[list[float]], new: tuple[tuple[float, int], ...]
) -> list[list[float]]:
    """Add samples to those that are stored; keep few of the old ones."""
    last = stored[-1][0] if stored else float("-inf")
    samples = [*stored, *([at, nbytes] for at, nbytes in new if at > last)]
    if not samples:
        return []
    newest, kept, sparse = samples[-1][0], [], float("-inf")
    for at, nbytes in samples:
        if at < newest - _OLDEST_S:
            continue
        if at < newest - _EVERY_SAMPLE_S:
            if at < sparse + _SPARSE_S:
                continue
            sparse = at
        kept.append([at, nbytes])
    return kept


def record_host(report: HostReport, lacking: tuple[Lacking, ...]) -> None:
    """Store what a host reports, and what does not fit."""
    Host.objects.update_or_create(
        name=report.host,
        defaults={
            "devices": list(report.devices),
            "memory_bytes": report.memory_bytes,
            "memory_used_bytes": report.memory_used_bytes,
            "walls": report.walls,
            "lacking": [
                {
                    "model": it.key.model,
                    "version": it.key.version,
                    "needed_bytes": it.needed_bytes,
                    "free_bytes": it.free_bytes,
                    "sentence": it.sentence,
                    "is_placed": it.is_placed,
                }
                for it in lacking
            ],
            "seen_at": datetime.fromtimestamp(report.at, UTC),
        },
    )


def _unreachable(engine: Engine, view: EngineView, running: Running | None) -> bool:
    """Mark the engine as unreachable; its versions keep their rows for its return."""
    was_running = engine.state == Engine.State.RUNNING
    reported = running.reported if running is not None else None
    engine.state = Engine.State.UNREACHABLE
    # Its host knows why it does not run.
    engine.error = (reported.problem if reported is not None else "") or view.error
    engine.pid = None
    engine.memory_bytes = 0
    return was_running


def _record_versions(
    engine: Engine, versions: Mapping[VersionKey, VersionStatus], *, leaks: bool
) -> set[str]:
    """Make the rows equal the report; return the models whose readiness changed."""
    changed: set[str] = set()
    rows = {
        VersionKey(row.model, row.version): row for row in engine.loaded_versions.all()
    }
    for key, status in versions.items():
        row = rows.pop(key, None)
        if row is None:
            row = LoadedVersion(engine=engine, model=key.model, version=key.version)
        before, fields = row.state, _fields(status, leaks=leaks)
        if row.pk and all(getattr(row, name) == fields[name] for name in fields):
            continue
        for name, value in fields.items():
            setattr(row, name, value)
        if before != row.state and LoadedVersion.State.READY in (before, row.state):
            changed.add(key.model)
        row.save()
    for row in rows.values():
        if row.state == LoadedVersion.State.READY:
            changed.add(row.model)
        row.delete()
    return changed


def _fields(status: VersionStatus, *, leaks: bool) -> dict[str, object]:
    ready_at = status.ready_at
    return {
        # A version that failed and is being tried again still counts as failed.
        "state": "failed" if status.has_failed else status.state,
        "error": status.error,
        "load_ms": status.load_ms,
        "memory_bytes": status.memory_bytes,
        "notes": "\n".join((*status.notes, *((_LEAKS,) if leaks else ()))),
        "apart": status.apart,
        "ready_at": datetime.fromtimestamp(ready_at, UTC) if ready_at else None,
        "calls": status.calls,
        "rows": status.rows,
        "single_row_ms": status.single_row_s * 1000,
    }


def forget(planned: AbstractSet[str]) -> None:
    """Delete the engines that no plan names any more."""
    gone = Engine.objects.exclude(name__in=planned)
    changed: set[str] = set()
    for engine in gone:
        changed |= _models_of(engine)
    if changed or gone:
        with transaction.atomic():
            gone.delete()
            if changed:
                publishing.mark_changed(publishing.Kind.MODEL, changed)
