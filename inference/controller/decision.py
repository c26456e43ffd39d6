"""Decide what engines load and unload, and what gateways serve. Without I/O.

People set *desired* variants; gateways use *serving* variants. Serving follows desired
once every running engine has loaded and warmed up every variant, and engines unload a
version once no gateway can name it any more. So a move fails no request:

    desired ──► load on every engine ──► serving moves ──► snapshot published
                                                              │ grace
    old version: nothing names it any more ◄──────────────────┘──► unload
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from inference.engine.wire.messages import VersionKey, VersionStatus

# The reports of the engines that answer, by the engine's name.
Reports = Mapping[str, Mapping[VersionKey, VersionStatus]]
# One version on one engine.
Placement = tuple[str, VersionKey]


@dataclass(frozen=True, slots=True)
class Variants:
    """The versions of a route, with the canary's share; the default gets the rest."""

    default: int
    canary: int | None = None
    canary_weight_percent: int = 0

    def keys(self, model: str) -> frozenset[VersionKey]:
        return frozenset(
            VersionKey(model, version)
            for version in (self.default, self.canary)
            if version is not None
        )


@dataclass(frozen=True, slots=True)
class Served:
    """A route's serving variants (None: nothing is served yet), and why it waits."""

    variants: Variants | None
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """All inputs of the decision."""

    desired: Mapping[str, Variants]
    serving: Mapping[str, Served]
    reports: Reports
    # Versions to keep loaded besides routes: published ones and those of jobs.
    wanted: frozenset[VersionKey] = frozenset()
    # Why a version cannot be sent to engines at all.
    obstacles: Mapping[VersionKey, str] = field(default_factory=dict)
    # Versions that a recent snapshot named: a gateway may still call them.
    recently_named: AbstractSet[VersionKey] = frozenset()
    # Versions with other settings than the engine was told.
    changed: AbstractSet[Placement] = frozenset()
    # Those that must load again: another artifact, signature or trust.
    stale: AbstractSet[Placement] = frozenset()
    # Failed versions that are due for another try.
    retry: AbstractSet[Placement] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    loads: tuple[Placement, ...]
    unloads: tuple[Placement, ...]
    # The new serving state of every desired route.
    serving: Mapping[str, Served]


def decide(situation: Situation) -> Decision:
    """Compare the desired variants with the engines' reports."""
    serving = {
        model: _serve(situation, model, variants)
        for model, variants in situation.desired.items()
    }
    needed = set(situation.wanted)
    for model, variants in situation.desired.items():
        needed |= variants.keys(model)
    for routes in (situation.serving, serving):
        for model, served in routes.items():
            if served.variants is not None:
                needed |= served.variants.keys(model)
    loads, unloads = [], []
    for engine, versions in situation.reports.items():
        for key in needed:
            if key in situation.obstacles:
                continue
            status = versions.get(key)
            if (
                status is None
                or (status.state == "failed" and (engine, key) in situation.retry)
                or (engine, key) in situation.changed
            ):
                loads.append((engine, key))
        unloads += [
            (engine, key)
            for key in versions
            if key not in needed and key not in situation.recently_named
        ]
    return Decision(
        loads=tuple(sorted(loads, key=_order)),
        unloads=tuple(sorted(unloads, key=_order)),
        serving=serving,
    )


def _serve(situation: Situation, model: str, desired: Variants) -> Served:
    before = situation.serving.get(model)
    current = before.variants if before else None
    waiting = {
        version: reason
        for version in (desired.default, desired.canary)
        if version is not None
        and (reason := _why_not_ready(situation, VersionKey(model, version)))
    }
    if not waiting:
        return Served(desired)
    text = "; ".join(f"version {v} {reason}" for v, reason in waiting.items())
    if current is None and desired.default not in waiting:
        # A canary that is not ready must not keep a new route from answering.
        return Served(Variants(desired.default), waiting_for=text)
    if current is not None and desired.keys(model) <= current.keys(model):
        # No new version, for example a canary is stopped while an engine restarts
        # empty: the old variants would not be ready sooner.
        return Served(desired, waiting_for=text)
    return Served(current, waiting_for=text)


def _why_not_ready(situation: Situation, key: VersionKey) -> str:
    """Return why `key` cannot be served yet; empty if every engine has it ready."""
    if key in situation.obstacles:
        return f"cannot be loaded: {situation.obstacles[key]}"
    if not situation.reports:
        return "waits for an engine: none is running"
    for engine, versions in situation.reports.items():
        status = versions.get(key)
        # An evicted version loads once the engine hears that a route names it.
        is_stale = (engine, key) in situation.stale
        if status is not None and status.has_failed and not is_stale:
            return f"failed on engine {engine}: {status.error}"
        if status is None or is_stale or status.state in ("loading", "evicted"):
            return f"is loading on engine {engine}"
    return ""


def failures(reports: Reports) -> dict[VersionKey, str]:
    """Return why versions failed that no engine could load."""
    found: dict[VersionKey, str] = {}
    answering = set()
    for engine, versions in sorted(reports.items()):
        for key, status in versions.items():
            if status.has_failed:
                found.setdefault(key, f"It failed on engine {engine}: {status.error}")
            elif status.state != "loading":
                answering.add(key)
    return {key: reason for key, reason in found.items() if key not in answering}


def _order(placement: Placement) -> tuple[str, str, int]:
    engine, key = placement
    return engine, key.model, key.version
