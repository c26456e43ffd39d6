"""Store the engines' reports as rows, for the admin and for snapshots."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from inference.controller import publishing
from inference.controller.engine_links import EngineView
from inference.engine.wire.messages import VersionKey, VersionStatus
from inference.models import Engine, LoadedVersion

_FORGET_AFTER = timedelta(hours=1)


def record(view: EngineView, *, now: datetime) -> None:
    """Store one engine's report; count a change if gateways must learn of it."""
    with transaction.atomic():
        engine, created = Engine.objects.get_or_create(
            name=view.name, defaults={"address": view.address}
        )
        # Names of changed models; "" means all of them.
        changed = {""} if created or engine.address != view.address else set()
        engine.address = view.address
        if view.status is None:
            if _unreachable(engine, view):
                changed.add("")
        else:
            if engine.state != Engine.State.RUNNING:
                changed.add("")
            engine.state = Engine.State.RUNNING
            engine.device = view.status.device
            engine.pid = view.status.pid
            engine.memory_bytes = view.status.memory_bytes
            if view.status.device_status is not None:
                device = view.status.device_status
                engine.device_title = device.title[:100]
                engine.device_total_bytes = device.total_bytes
                engine.device_used_bytes = device.used_bytes
            engine.error = ""
            engine.seen_at = now
            changed |= _record_versions(engine, view.versions)
        engine.save()
        if changed:
            publishing.mark_changed(publishing.Kind.MODEL, changed)


def _unreachable(engine: Engine, view: EngineView) -> bool:
    """Mark the engine as unreachable; its versions keep their rows for its return."""
    was_running = engine.state == Engine.State.RUNNING
    engine.state = Engine.State.UNREACHABLE
    engine.error = view.error
    engine.pid = None
    return was_running


def _record_versions(
    engine: Engine, versions: Mapping[VersionKey, VersionStatus]
) -> set[str]:
    """Make the rows equal the report; return the models whose readiness changed."""
    changed: set[str] = set()
    rows = {
        VersionKey(row.model, row.version): row for row in engine.loaded_versions.all()
    }
    for key, status in versions.items():
        # A version that failed and is being tried again still counts as failed.
        state = "failed" if status.has_failed else status.state
        row = rows.pop(key, None)
        if row is None:
            row = LoadedVersion(engine=engine, model=key.model, version=key.version)
        elif (row.state, row.error, row.load_ms, row.memory_bytes, row.notes) == (
            state,
            status.error,
            status.load_ms,
            status.memory_bytes,
            "\n".join(status.notes),
        ):
            continue
        if LoadedVersion.State.READY in (row.state, state):
            changed.add(key.model)
        row.state, row.error, row.load_ms = state, status.error, status.load_ms
        row.memory_bytes = status.memory_bytes
        row.notes = "\n".join(status.notes)
        row.save()
    for row in rows.values():
        if row.state == LoadedVersion.State.READY:
            changed.add(row.model)
        row.delete()
    return changed


def forget_gone(existing: set[str], *, now: datetime) -> list[str]:
    """Delete engines without a socket that were not seen for an hour; return names."""
    silent = Q(seen_at=None) | Q(seen_at__lt=now - _FORGET_AFTER)
    gone = Engine.objects.filter(silent, state=Engine.State.UNREACHABLE).exclude(
        name__in=existing
    )
    names = list(gone.values_list("name", flat=True))
    if names:
        with transaction.atomic():
            Engine.objects.filter(name__in=names).delete()
            publishing.mark_changed(publishing.Kind.MODEL)
    return names
