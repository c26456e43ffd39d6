"""Tell how a route divided its calls at any time, and go back to an earlier state."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from registry import routes
from registry.changes import Person
from registry.models import ModelVersion, RegisteredModel, Route
from registry.routes import RouteError, Traffic
from registry.shares import canaries
from registry.shares.canaries import Canary

_DELETED = "-"
_CANARIES = tuple(f"{name}_id" for name in canaries.VERSIONS)
_VERSIONS = ("default_version_id", *_CANARIES, "shadow_version_id")
_TRAFFIC = ("enabled", *_VERSIONS, *canaries.WEIGHTS, "shadow_percent")


@dataclass(frozen=True, slots=True)
class PastState:
    """How a route divided its calls from `at` on, who set that, and why."""

    # Its record in the history.
    record_id: int
    at: datetime
    enabled: bool
    # Numbers; None for a default or a canary whose row was deleted.
    default_version: int | None
    canaries: tuple[Canary[int | None], ...]
    # The user's name; empty: Modelyard itself.
    by: str
    why: str
    has_shadow: bool = False
    shadow_version: int | None = None
    shadow_percent: int = 0

    @property
    def default_weight_percent(self) -> int:
        return 100 - canaries.total(self.canaries)

    def in_words(self) -> str:
        shadow = Canary(self.shadow_version, self.shadow_percent)
        return routes.in_words(
            self.default_version,
            self.canaries,
            shadow=shadow if self.has_shadow else None,
            enabled=self.enabled,
        )


def timeline(
    model: RegisteredModel,
    *,
    until: datetime | None = None,
    before: int | None = None,
    most: int = 100,
) -> list[PastState]:
    """List the states of the model's route, the newest first.

    Changes that moved no calls are left out. Only states that began at `until` or
    earlier, and before the record `before`. Records are ordered by their numbers,
    because a clock may have been set back.
    """
    records = Route.history.filter(registered_model=model)
    if until is not None:
        records = records.filter(history_date__lte=until)
    if before is not None:
        records = records.filter(history_id__lt=before)
    fields = (
        *_TRAFFIC,
        "history_id",
        "history_date",
        "history_type",
        "history_user__username",
        "history_change_reason",
    )
    rows = records.order_by("-history_id").values(*fields).iterator(200)
    found = list(islice(_first_of_each_state(rows), most))
    return _with_numbers(found)


def state_at(model: RegisteredModel, at: datetime) -> PastState | None:
    """Return the state of the model's route at a time; None before its first route."""
    return next(iter(timeline(model, until=at, most=1)), None)


def revert(route: Route, *, to: int, by: Person, seen: datetime | None = None) -> str:
    """Divide calls as the record `to` of its history says; return what changed.

    Rules, cache and fallback stay as they are. Raises RouteError; see
    `routes.set_traffic`.
    """
    record = route.history.filter(pk=to).exclude(history_type=_DELETED).first()
    if record is None:
        raise RouteError("There is no such state in the history of this route.")
    chosen = canaries.of(record, suffix="_id")
    named = [record.default_version_id, *(canary.version for canary in chosen)]
    if record.shadow_version_id is not None:
        named.append(record.shadow_version_id)
    versions = ModelVersion.objects.select_related("registered_model").in_bulk(named)
    if len(versions) < len({*named}):
        raise RouteError("A version of that state was deleted.")
    traffic = Traffic(
        enabled=record.enabled,
        default=versions[record.default_version_id],
        canaries=tuple(Canary(versions[key], weight) for key, weight in chosen),
        shadow=versions.get(record.shadow_version_id),
        shadow_percent=record.shadow_percent,
    )
    why = f"back to the state of {record.history_date:%Y-%m-%d %H:%M:%S} UTC"
    return routes.set_traffic(route, traffic, by=by, why=why, seen=seen)


def _first_of_each_state(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the oldest of each run of records with equal traffic, newest run first."""
    oldest = None
    for row in rows:
        if oldest is not None and _traffic(row) != _traffic(oldest):
            yield oldest
        oldest = row
    if oldest is not None:
        yield oldest


def _traffic(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["history_type"] == _DELETED, *(row[name] for name in _TRAFFIC))


def _with_numbers(rows: list[dict[str, Any]]) -> list[PastState]:
    named = {row[name] for row in rows for name in _VERSIONS}
    numbers = dict(
        ModelVersion.objects.filter(pk__in=named).values_list("pk", "version")
    )
    return [
        PastState(
            record_id=row["history_id"],
            at=row["history_date"],
            enabled=row["enabled"] and row["history_type"] != _DELETED,
            default_version=numbers.get(row["default_version_id"]),
            canaries=tuple(
                Canary(numbers.get(row[name]), row[weight])
                for name, weight in zip(_CANARIES, canaries.WEIGHTS, strict=True)
                if row[name] is not None
            ),
            by=row["history_user__username"] or "",
            why=row["history_change_reason"] or "",
            has_shadow=row["shadow_version_id"] is not None,
            shadow_version=numbers.get(row["shadow_version_id"]),
            shadow_percent=row["shadow_percent"],
        )
        for row in rows
    ]
