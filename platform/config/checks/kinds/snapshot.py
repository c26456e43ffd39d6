"""Look at the snapshot: whether changes reach the gateways."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from config.checks import presence
from config.checks.finding import Finding, fault, first_line, in_words, or_well, warning
from inference.controller import callable_versions
from inference.models import ControllerLease, SnapshotState

TITLE = "Snapshot"
# The controller publishes five times a second, if its machine has time.
_LOOKS, _BETWEEN_S = 4, 1.0

NO_CONTROLLER = fault(
    "controller-away",
    "No controller runs.",
    cost="Changes of keys and routes reach no gateway: a revoked key goes on working. "
    "Usage is not counted, and no version is loaded.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep controller",
)
FILE_MISSING = fault(
    "snapshot-missing",
    "There is no snapshot at {path}.",
    cost="A gateway that starts now answers 503 to every call.",
    mend="sudo systemctl restart modelyard",
)
LATE = fault(
    "snapshot-late",
    "Changes that are not published: {count}; the last snapshot is of {age} ago.",
    cost="Gateways answer from old routes and keys; a revoked key goes on working.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep controller_step_failed",
)
GATEWAY_BEHIND = warning(
    "gateway-behind",
    "A gateway has snapshot {there}, but {published} is published.",
    cost="It answers from old routes and keys.",
    mend="sudo systemctl restart modelyard",
)
LEFT_OUT = warning(
    "versions-left-out",
    "The snapshot leaves out {names}: {reason}.",
    cost="Callers who name one get 503 MODEL_UNAVAILABLE.",
    mend="In the admin, read the page of each, and mend its model.",
)
PROBLEMS = (NO_CONTROLLER, FILE_MISSING, LATE, GATEWAY_BEHIND, LEFT_OUT)
# Most versions that one line names.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    now: datetime
    path: str = ""
    file_exists: bool = True
    led: bool = True
    # How many changes waited all the time that somebody looked.
    pending: int = 0
    published: int = 0
    published_at: datetime | None = None
    # The oldest snapshot of a gateway that was read after `published`.
    of_gateways: int | None = None
    # The versions that should be callable, but are not, with the reasons.
    left_out: Sequence[tuple[str, str]] = ()


def look() -> list[Finding]:
    return presence.not_running() or judge(facts())


def judge(facts: SnapshotFacts) -> list[Finding]:
    found = []
    at = facts.published_at
    age = "never" if at is None else in_words((facts.now - at).total_seconds())
    if not facts.led:
        found.append(NO_CONTROLLER.found())
    elif facts.pending:
        found.append(LATE.found(count=facts.pending, age=age))
    if not facts.file_exists:
        found.append(FILE_MISSING.found(path=facts.path))
    elif facts.of_gateways is not None and facts.of_gateways < facts.published:
        found.append(
            GATEWAY_BEHIND.found(there=facts.of_gateways, published=facts.published)
        )
    if facts.left_out:
        names = ", ".join(name for name, _ in facts.left_out[:_SHOWN])
        if len(facts.left_out) > _SHOWN:
            names += f" and {len(facts.left_out) - _SHOWN} more"
        reason = first_line(facts.left_out[0][1])
        found.append(LEFT_OUT.found(names=names, reason=reason))
    return or_well(
        found, f"Gateways have the newest, number {facts.published}, of {age} ago."
    )


def facts() -> SnapshotFacts:
    before = _state()
    after = before
    if before.changed > before.published or not _led():
        # A change may have been made just now, or a controller be starting.
        for _ in range(_LOOKS):
            time.sleep(_BETWEEN_S)
            after = _state()
            if after.published > before.published and _led():
                break
    moved = after.published > before.published
    sequences: Sequence[int] = [
        it.snapshot_sequence for it in presence.gateway_reports()
    ]
    return SnapshotFacts(
        now=timezone.now(),
        path=str(settings.HOME.snapshot),
        file_exists=settings.HOME.snapshot.exists(),
        led=_led(),
        pending=0 if moved else after.changed - after.published,
        # What was published just now may not have been read yet.
        published=before.published,
        published_at=after.published_at,
        of_gateways=min(sequences, default=None),
        left_out=callable_versions.reasons(artifacts=settings.HOME.artifacts),
    )


def _led() -> bool:
    return ControllerLease.objects.filter(pk=1, expires_at__gt=timezone.now()).exists()


def _state() -> SnapshotState:
    return SnapshotState.objects.filter(pk=1).first() or SnapshotState(changed=0)
