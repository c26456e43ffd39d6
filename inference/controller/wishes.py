"""Read from the database which versions should be loaded, and what should be served."""

import functools
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from inference.controller.callable_versions import (
    CatalogModel,
    NotCallable,
    NotYetCallable,
    read_catalog,
    version_to_load,
)
from inference.controller.decision import Served, Variants
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.environments.turn import environment_folders
from inference.installation import disk
from inference.models import PredictionJob, ServingRoute, VersionCondition
from inference.placement.situation import Priority
from registry.shares.canaries import Canary

# The former default of a route stays loaded for so long, if there is room.
WARM = timedelta(hours=1)
# An exported torch program; everything else runs code of its author.
_PROGRAM = Path("data", "model.pt2")


@dataclass(frozen=True, slots=True)
class Wish:
    """The desired state, read from the database at once."""

    desired: dict[str, Variants] = field(default_factory=dict)
    serving: dict[str, Served] = field(default_factory=dict)
    to_load: dict[VersionKey, VersionToLoad] = field(default_factory=dict)
    priorities: dict[VersionKey, Priority] = field(default_factory=dict)
    # `VersionToLoad.form` of each of these, kept because it takes time to compute.
    forms: dict[VersionKey, str] = field(default_factory=dict)
    # Why a version cannot be loaded.
    obstacles: dict[VersionKey, str] = field(default_factory=dict)
    # The obstacles that last until a person acts.
    lasting: dict[VersionKey, str] = field(default_factory=dict)
    conditions: dict[VersionKey, VersionCondition] = field(default_factory=dict)
    # Folders of the environments that are built, by their digests.
    environments: dict[str, str] = field(default_factory=dict)

    @property
    def quarantined(self) -> dict[VersionKey, str]:
        """Return why versions are quarantined."""
        return {
            key: it.reason for key, it in self.conditions.items() if it.quarantined_at
        }

    def released_at(self, key: VersionKey) -> float:
        condition = self.conditions.get(key)
        if condition is None or condition.released_at is None:
            return 0.0
        return condition.released_at.timestamp()

    def asked_at(self, key: VersionKey) -> datetime | None:
        """Return when people asked for a version to be loaded again."""
        condition = self.conditions.get(key)
        return None if condition is None else condition.load_again_at


def read_wish(artifacts: Path, *, now: datetime) -> Wish:
    wish = Wish(environments=environment_folders())
    for condition in VersionCondition.objects.all():
        wish.conditions[VersionKey(condition.model, condition.version)] = condition
    for route in ServingRoute.objects.all():
        wish.serving[route.model] = _served(route)
    jobs = _keys_of_jobs()
    for entry in read_catalog(with_jobs=True, warm_since=now - WARM):
        if entry.route is not None:
            wish.desired[entry.name] = _desired(entry)
        stand_in = _stand_in(entry, wish)
        for number, version in entry.versions.items():
            key = VersionKey(entry.name, number)
            try:
                described = version_to_load(entry, version, artifacts=artifacts)
            except NotCallable as reason:
                wish.obstacles[key] = str(reason)
                if not isinstance(reason, NotYetCallable):
                    wish.lasting[key] = f"It cannot be loaded: {reason}"
                continue
            if number == stand_in or entry.is_routed(number):
                priority = Priority.ROUTED
            elif key in jobs:
                priority = Priority.JOB
            elif version.published:
                priority = Priority.PUBLISHED
            else:
                priority = Priority.FORMER
                described = msgspec.structs.replace(described, pinned=False)
            wish.to_load[key] = described
            wish.priorities[key] = priority
            wish.forms[key] = described.form()
    return wish


def _stand_in(entry: CatalogModel, wish: Wish) -> int | None:
    """Return the former default if a quarantined one needs it."""
    desired, serving = wish.desired.get(entry.name), entry.serving
    if desired is None or serving is None:
        return None
    key = VersionKey(entry.name, desired.default)
    return serving.former_version if key in wish.quarantined else None


def _keys_of_jobs() -> set[VersionKey]:
    unfinished = PredictionJob.objects.unfinished().order_by()
    pairs = unfinished.values_list("model", "version").distinct()
    return {VersionKey(model, version) for model, version in pairs}


@functools.lru_cache(maxsize=10_000)
def is_program(path: str, flavors: tuple[str, ...]) -> bool:
    """Return whether nothing of an artifact is run as code. Artifacts never change."""
    return "pytorch" in flavors and (Path(path) / _PROGRAM).is_file()


@functools.lru_cache(maxsize=10_000)
def size_of(path: str) -> int:
    """Return the bytes of an artifact's files: an estimate of its memory."""
    return disk.file_bytes(Path(path))


def _desired(entry: CatalogModel) -> Variants:
    route = entry.route
    assert route is not None
    numbered = [Canary(it.version.version, it.weight_percent) for it in route.canaries]
    return Variants(route.default_version.version, tuple(numbered))


def _served(route: ServingRoute) -> Served:
    if route.default_version is None:
        return Served(None, waiting_for=route.waiting_for, former=route.former_version)
    return Served(
        Variants(route.default_version, route.canaries),
        waiting_for=route.waiting_for,
        former=route.former_version,
    )
