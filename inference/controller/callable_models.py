"""Describe models to gateways: their callable versions and their routes."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
from django.conf import settings

from inference.controller.callable_versions import (
    CatalogModel,
    NotCallable,
    callable_version,
    read_catalog,
)
from inference.engine.wire.messages import VersionKey
from inference.models import Engine, LoadedVersion, VersionCondition
from inference.snapshot.contents import (
    CachePolicy,
    CallableModel,
    Fallback,
    FixedAnswer,
    Shadow,
    Sticky,
)
from registry.routing import Variant
from registry.shares import canaries


@dataclass(frozen=True, slots=True)
class _Held:
    """Names of the engines that hold a version: ready on a running engine, or else."""

    ready: list[str] = field(default_factory=list)
    # Loading, evicted or failed, or the engine does not answer.
    other: list[str] = field(default_factory=list)


_NOWHERE = _Held()


def describe(*, names: Collection[str] | None = None) -> dict[str, CallableModel]:
    """Describe the models with these names, or all, in a fixed number of queries."""
    held, quarantined = _held(names), _quarantined(names)
    models = (
        _callable_model(
            entry,
            held=held,
            quarantined=quarantined,
            artifacts=settings.HOME.artifacts,
        )
        for entry in read_catalog(names=names)
    )
    return {model.name: model for model in models if model is not None}


def _held(names: Collection[str] | None) -> dict[VersionKey, _Held]:
    """Return which engines hold each version."""
    rows = LoadedVersion.objects.order_by("engine__name")
    if names is not None:
        rows = rows.filter(model__in=names)
    held: dict[VersionKey, _Held] = defaultdict(_Held)
    for model, version, state, engine, engine_state in rows.values_list(
        "model", "version", "state", "engine__name", "engine__state"
    ):
        found = held[VersionKey(model, version)]
        is_ready = (state, engine_state) == (
            LoadedVersion.State.READY,
            Engine.State.RUNNING,
        )
        (found.ready if is_ready else found.other).append(engine)
    return held


def _quarantined(names: Collection[str] | None) -> set[VersionKey]:
    rows = VersionCondition.objects.exclude(quarantined_at=None).order_by()
    if names is not None:
        rows = rows.filter(model__in=names)
    return {VersionKey(*row) for row in rows.values_list("model", "version")}


def _callable_model(
    entry: CatalogModel,
    *,
    held: Mapping[VersionKey, _Held],
    quarantined: Set[VersionKey],
    artifacts: Path,
) -> CallableModel | None:
    """Describe one model; None if nothing of it is or should be callable."""
    versions = []
    broken: list[str] = []
    for version in entry.versions.values():
        if version.serving_problem:
            broken += (str(version.version), *entry.aliases.get(version.version, ()))
        try:
            described = callable_version(entry, version, artifacts=artifacts)
        except NotCallable:
            # `modelyard check` shows the reason (`callable_versions.reasons`).
            continue
        key = VersionKey(entry.name, version.version)
        where = held.get(key, _NOWHERE)
        shut = key in quarantined and not where.ready
        versions.append(
            msgspec.structs.replace(
                described,
                # While it is ready nowhere, gateways ask those that are about to have
                # it, or to come back.
                engines=tuple(where.ready or ([] if shut else where.other)),
                quarantined=shut,
            )
        )
    if not versions and not broken and entry.route is None:
        return None
    numbers = {version.version for version in versions}
    variants = _variants(entry, callable_numbers=numbers)
    stuck: Literal["", "broken", "quarantined"] = ""
    if not variants and entry.route is not None:
        default = entry.route.default_version.version
        if VersionKey(entry.name, default) in quarantined:
            stuck = "quarantined"
        elif str(default) in broken:
            stuck = "broken"
    return CallableModel(
        name=entry.name,
        versions=tuple(sorted(versions, key=lambda version: -version.version)),
        variants=variants,
        routed=entry.route is not None,
        public=entry.model.public,
        low_confidence_below=entry.route.low_confidence_below if entry.route else None,
        description=entry.model.description,
        cache=_cache(entry),
        fallback=_fallback(entry, callable_numbers=numbers),
        broken=tuple(sorted(broken)),
        stuck=stuck,
        ending=entry.endings.get(None),
        shadow=_shadow(entry, callable_numbers=numbers),
        sticky=_sticky(entry),
    )


def _shadow(entry: CatalogModel, *, callable_numbers: set[int]) -> Shadow | None:
    """Describe the route's shadow if it gets copies and can be called."""
    route = entry.route
    if route is None or route.shadow_version is None or not route.shadow_percent:
        return None
    if route.shadow_version.version not in callable_numbers:
        return None
    return Shadow(
        version=route.shadow_version.version,
        percent=route.shadow_percent,
        tolerance=route.shadow_tolerance_percent / 100,
        keeps_examples=route.keeps_examples,
    )


def _sticky(entry: CatalogModel) -> Sticky | None:
    route, serving = entry.route, entry.serving
    # A route that was served before there were salts has one after its next move.
    if route is None or serving is None or not serving.salt:
        return None
    if route.sticky == route.Sticky.OFF:
        return None
    by_key = route.sticky == route.Sticky.KEY
    return Sticky("key" if by_key else "header", serving.salt)


def _cache(entry: CatalogModel) -> CachePolicy | None:
    route = entry.route
    if route is None or not route.cache_ttl_s:
        return None
    everyone = route.cache_scope == route.CacheScope.EVERYONE
    return CachePolicy(
        ttl_s=route.cache_ttl_s, scope="everyone" if everyone else "customer"
    )


def _fallback(entry: CatalogModel, *, callable_numbers: set[int]) -> Fallback | None:
    """Describe the route's fallback, without a version that cannot be called."""
    route = entry.route
    if route is None:
        return None
    version = None if route.fallback_version is None else route.fallback_version.version
    answer = None
    if route.fallback_answer is not None:
        answer = FixedAnswer(route.fallback_answer)
    if version not in callable_numbers:
        version = None
    if version is None and answer is None:
        return None
    codes = tuple(str(code) for code in route.fallback_on)
    return Fallback(on=codes, version=version, answer=answer)


def _variants(
    entry: CatalogModel, *, callable_numbers: set[int]
) -> tuple[Variant, ...]:
    """Return the serving variants; canaries that cannot be called get no share."""
    serving = entry.serving
    if entry.route is None or serving is None:
        return ()
    if serving.default_version not in callable_numbers:
        return ()
    default_version = serving.default_version
    assert default_version is not None
    chosen = [it for it in serving.canaries if it.version in callable_numbers]
    rest = 100 - canaries.total(chosen)
    return (
        Variant(version=default_version, role="default", weight_percent=rest),
        *(Variant(version, "canary", weight) for version, weight in chosen),
    )
