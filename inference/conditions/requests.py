"""What people ask for a version that is in trouble: to load again, to be released."""

from datetime import datetime
from typing import Any

from django.db import transaction

from inference.conditions.reading import VersionStates
from inference.conditions.states import ServingState
from inference.controller import publishing
from inference.models import VersionCondition, VersionEvent
from registry.models import ModelVersion
from registry.routes import RouteError


class RequestRefused(RouteError):
    """What was asked for is not possible now; the text may be shown to people."""


def load_again(version: ModelVersion, *, by: Any, now: datetime) -> None:
    """Let the controller try at once to load a version that waits or failed.

    A replica that its host gave up starts again: deaths before `now` count no more.
    Raises RequestRefused if trying again cannot help.
    """
    name = version.registered_model.name
    report = VersionStates([name]).of(version)
    if report.state is ServingState.QUARANTINED:
        raise RequestRefused(f"{version} is quarantined: release it instead.")
    if report.state is ServingState.UNTRUSTED:
        raise RequestRefused(
            f"{version} is untrusted: an administrator must trust its model first."
        )
    if report.state is ServingState.UNCALLED:
        raise RequestRefused(
            f"Nothing calls for {version}, so no engine loads it. Make it the default "
            "or a canary, or publish it."
        )
    if version.artifact_state == ModelVersion.ArtifactState.FAILED:
        raise RequestRefused(
            f"The artifact of {version} could not be fetched: fetch it first."
        )
    loaded = report.state not in (
        ServingState.WAITING,
        ServingState.NO_MEMORY,
        ServingState.FAILED,
        ServingState.MISFIT,
    )
    if loaded and not report.reason:
        raise RequestRefused(f"{version} is {report.state}: nothing failed to load.")
    with transaction.atomic():
        VersionCondition.objects.update_or_create(
            model=name,
            version=version.version,
            defaults={"load_again_at": now, "released_at": now, "asked_by": by},
        )
        publishing.mark_changed(publishing.Kind.MODEL, [name])


def release(
    version: ModelVersion, *, by: Any, now: datetime, seen: str | None = None
) -> None:
    """End a version's quarantine: deaths before `now` count no more.

    `seen` is when the quarantine began that the person read about, in ISO 8601. Raises
    RequestRefused if the version is not in that quarantine now.
    """
    name = version.registered_model.name
    with transaction.atomic():
        condition = (
            VersionCondition.objects.select_for_update(of=("self",))
            .filter(model=name, version=version.version)
            .first()
        )
        if condition is None or condition.quarantined_at is None:
            raise RequestRefused(f"{version} is not quarantined.")
        if seen and seen != condition.quarantined_at.isoformat():
            raise RequestRefused(
                f"{version} was quarantined again since you asked. Read why, and ask "
                "again."
            )
        condition.quarantined_at, condition.reason = None, ""
        condition.released_at, condition.asked_by = now, by
        condition.save(
            update_fields=["quarantined_at", "reason", "released_at", "asked_by"]
        )
        VersionEvent.objects.create(
            model=name,
            version=version.version,
            kind=VersionEvent.Kind.RELEASED,
            at=now,
            text=f"{by} released it from quarantine.",
        )
        publishing.mark_changed(publishing.Kind.MODEL, [name])


def quarantine_of(version: ModelVersion) -> VersionCondition | None:
    """Return the condition of a quarantined version; None: it is not quarantined."""
    return VersionCondition.objects.filter(
        model=version.registered_model.name,
        version=version.version,
        quarantined_at__isnull=False,
    ).first()
