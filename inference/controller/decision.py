"""Decide what engines load and unload, and what gateways serve. Without I/O.

The placement says which engines hold which version (`inference/placement/`). People
set *desired* variants; gateways use *serving* variants. Serving follows desired once
every engine that should hold a variant, and answers, has loaded it and warmed it up. A
version leaves an engine once no gateway can name it there. So a move fails no request:

    desired ──► load on its engines ──► serving moves ──► snapshot published
                                                              │ grace
    old version: nothing names it any more ◄──────────────────┘──► unload

A version that is quarantined answers nothing: the former default stands in for it.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from inference.engine.wire.messages import VersionKey, VersionStatus
from registry.shares.canaries import Canary

# The reports of the engines that answer, by the engine's name.
Reports = Mapping[str, Mapping[VersionKey, VersionStatus]]
# One version on one engine.
OnEngine = tuple[str, VersionKey]
Engines = Mapping[VersionKey, AbstractSet[str]]


@dataclass(frozen=True, slots=True)
class Variants:
    """The versions of a route, with shares of canaries; the default gets the rest."""

    default: int
    canaries: tuple[Canary[int], ...] = ()

    @property
    def versions(self) -> tuple[int, ...]:
        return (self.default, *(canary.version for canary in self.canaries))

    def keys(self, model: str) -> frozenset[VersionKey]:
        return frozenset(VersionKey(model, version) for version in self.versions)

    def only(self, is_fit: Callable[[int], bool]) -> "Variants":
        """Return the variants without canaries that are not fit."""
        fit = tuple(canary for canary in self.canaries if is_fit(canary.version))
        return Variants(self.default, fit)


@dataclass(frozen=True, slots=True)
class Served:
    """A route's serving variants (None: nothing is served yet), and why it waits."""

    variants: Variants | None
    waiting_for: str = ""
    # The default before this one.
    former: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """All inputs of the decision."""

    desired: Mapping[str, Variants]
    serving: Mapping[str, Served]
    reports: Reports
    # The engines that should hold each version, and those that keep it for now.
    holders: Engines = field(default_factory=dict)
    staying: Engines = field(default_factory=dict)
    # Why a version cannot be sent to engines at all.
    obstacles: Mapping[VersionKey, str] = field(default_factory=dict)
    # Why a version has no engine.
    lacking: Mapping[VersionKey, str] = field(default_factory=dict)
    # Why a version is quarantined.
    quarantined: Mapping[VersionKey, str] = field(default_factory=dict)
    # Versions with other settings than the engine was told.
    changed: AbstractSet[OnEngine] = frozenset()
    # Those that must load again: another artifact, signature or trust.
    stale: AbstractSet[OnEngine] = frozenset()
    # Failed versions that are due for another try.
    retry: AbstractSet[OnEngine] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    loads: tuple[OnEngine, ...]
    unloads: tuple[OnEngine, ...]
    # The new serving state of every desired route.
    serving: Mapping[str, Served]


def decide(situation: Situation) -> Decision:
    """Compare the desired variants with the engines' reports."""
    serving = {
        model: _serve(situation, model, variants)
        for model, variants in situation.desired.items()
    }
    loads = [
        (engine, key)
        for key, engines in situation.holders.items()
        for engine in engines & situation.reports.keys()
        if _should_load(situation, engine, key)
    ]
    unloads = [
        (engine, key)
        for engine, versions in situation.reports.items()
        for key in versions
        if engine not in situation.holders.get(key, ())
        and engine not in situation.staying.get(key, ())
    ]
    return Decision(
        loads=tuple(sorted(loads, key=_order)),
        unloads=tuple(sorted(unloads, key=_order)),
        serving=serving,
    )


def _should_load(situation: Situation, engine: str, key: VersionKey) -> bool:
    status = situation.reports[engine].get(key)
    return (
        status is None
        or (status.state == "failed" and (engine, key) in situation.retry)
        or (engine, key) in situation.changed
    )


def _serve(situation: Situation, model: str, desired: Variants) -> Served:
    before = situation.serving.get(model, Served(None))
    healthy, words = _without_quarantined(situation, model, desired, before)
    served = _follow(situation, model, healthy, before.variants)
    texts = [text for text in (words, served.waiting_for) if text]
    former = _former(situation, model, before, served.variants)
    return Served(served.variants, waiting_for="; ".join(texts), former=former)


def _without_quarantined(
    situation: Situation, model: str, desired: Variants, before: Served
) -> tuple[Variants, str]:
    """Return what to serve instead of quarantined versions, and why."""
    if not situation.quarantined:
        return desired, ""

    def reason(version: int) -> str | None:
        return situation.quarantined.get(VersionKey(model, version))

    texts = [
        f"version {version} is quarantined: {why}"
        for version, _ in desired.canaries
        if (why := reason(version))
    ]
    desired = desired.only(lambda version: not reason(version))
    why = reason(desired.default)
    if why is None:
        return desired, "; ".join(texts)
    current = before.variants
    if current is not None and reason(current.default) is None:
        stand_in = current.only(lambda version: not reason(version))
    elif before.former is None or reason(before.former) is not None:
        return desired, "; ".join(texts)
    else:
        stand_in = Variants(before.former)
    if VersionKey(model, stand_in.default) in situation.obstacles:
        return desired, "; ".join(texts)
    texts.insert(0, f"version {desired.default} is quarantined: {why}")
    return stand_in, "; ".join([*texts, f"version {stand_in.default} answers"])


def _former(
    situation: Situation, model: str, before: Served, variants: Variants | None
) -> int | None:
    """Return the last default that answered before the one that serves now."""
    if before.variants is None or variants is None:
        return before.former
    old = before.variants.default
    if old == variants.default or VersionKey(model, old) in situation.quarantined:
        return before.former
    return old


def _follow(
    situation: Situation, model: str, desired: Variants, current: Variants | None
) -> Served:
    waiting = {
        version: reason
        for version in desired.versions
        if (reason := _why_not_ready(situation, VersionKey(model, version)))
    }
    text = "; ".join(f"version {v} {reason}" for v, reason in waiting.items())
    # While an engine restarts empty, what it served would not be ready sooner.
    served = () if current is None else current.versions

    def is_answering(version: int) -> bool:
        return not _cannot_answer(situation, VersionKey(model, version))

    def is_fit(version: int) -> bool:
        if version not in waiting:
            return True
        # Without its default, a route would serve nothing.
        may_stay = version == desired.default or is_answering(version)
        return version in served and may_stay

    if not is_fit(desired.default):
        return Served(current and current.only(is_answering), waiting_for=text)
    # A canary that is not ready must keep neither the route nor others from moving.
    return Served(desired.only(is_fit), waiting_for=text)


def _why_not_ready(situation: Situation, key: VersionKey) -> str:
    """Return why `key` cannot be served yet; empty if its engines have it ready."""
    if key in situation.obstacles:
        return f"cannot be loaded: {situation.obstacles[key]}"
    if key in situation.quarantined:
        return f"is quarantined: {situation.quarantined[key]}"
    holders = situation.holders.get(key)
    if not holders and key in situation.lacking:
        return f"has no process: {situation.lacking[key]}"
    if not holders:
        return "waits for an engine: none is running"
    answering = sorted(holders & situation.reports.keys())
    if not answering:
        return f"waits for its process {min(holders)}"
    for engine in answering:
        status = situation.reports[engine].get(key)
        # An evicted version loads once the engine hears that a route names it.
        is_stale = (engine, key) in situation.stale
        if status is not None and status.has_failed and not is_stale:
            return f"failed on engine {engine}: {status.error}"
        if status is None or is_stale or status.state in ("loading", "evicted"):
            return f"is loading on engine {engine}"
    return ""


def _cannot_answer(situation: Situation, key: VersionKey) -> bool:
    """Return whether `key` failed on all its engines, or cannot be sent to any."""
    if key in situation.obstacles:
        return True
    statuses = [
        situation.reports[engine].get(key)
        for engine in situation.holders.get(key, frozenset()) & situation.reports.keys()
        if (engine, key) not in situation.stale
    ]
    return bool(statuses) and all(it is not None and it.has_failed for it in statuses)


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


def _order(placed: OnEngine) -> tuple[str, str, int]:
    engine, key = placed
    return engine, key.model, key.version
