"""Describe models to gateways: their callable versions and their routes."""

from collections.abc import Collection
from pathlib import Path

from django.conf import settings

from inference.controller.callable_versions import (
    CatalogModel,
    NotCallable,
    callable_version,
    read_catalog,
)
from inference.engine.wire.messages import VersionKey
from inference.models import Engine, LoadedVersion
from inference.snapshot.contents import (
    CachePolicy,
    CallableModel,
    Fallback,
    FixedAnswer,
)
from registry.routing import Variant


def describe(
    engines: list[Engine], *, names: Collection[str] | None = None
) -> dict[str, CallableModel]:
    """Describe the models with these names, or all, in a fixed number of queries."""
    ready = _ready_versions(names)
    models = (
        _callable_model(
            entry, engines=engines, ready=ready, artifacts=settings.HOME.artifacts
        )
        for entry in read_catalog(names=names)
    )
    return {model.name: model for model in models if model is not None}


def _ready_versions(names: Collection[str] | None) -> dict[str, set[VersionKey]]:
    """Return the ready versions of each running engine, by the engine's name."""
    ready: dict[str, set[VersionKey]] = {}
    rows = LoadedVersion.objects.filter(
        state=LoadedVersion.State.READY, engine__state=Engine.State.RUNNING
    )
    if names is not None:
        rows = rows.filter(model__in=names)
    for name, model, version in rows.values_list("engine__name", "model", "version"):
        ready.setdefault(name, set()).add(VersionKey(model, version))
    return ready


def _callable_model(
    entry: CatalogModel,
    *,
    engines: list[Engine],
    ready: dict[str, set[VersionKey]],
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
            # The admin shows the reason (`callable_versions.reasons`).
            continue
        versions.append(described)
    if not versions and not broken and entry.route is None:
        return None
    numbers = {version.version for version in versions}
    variants = _variants(entry, callable_numbers=numbers)
    needed = {VersionKey(entry.name, variant.version) for variant in variants}
    having = [
        engine.name for engine in engines if needed <= ready.get(engine.name, set())
    ]
    return CallableModel(
        name=entry.name,
        versions=tuple(sorted(versions, key=lambda version: -version.version)),
        variants=variants,
        routed=entry.route is not None,
        # While no engine has all of them, one may be about to: gateways try each and
        # answer 503 until then.
        engines=tuple(having or [engine.name for engine in engines]),
        public=entry.model.public,
        low_confidence_below=entry.route.low_confidence_below if entry.route else None,
        description=entry.model.description,
        cache=_cache(entry),
        fallback=_fallback(entry, callable_numbers=numbers),
        broken=tuple(sorted(broken)),
        stuck=not variants
        and entry.route is not None
        and str(entry.route.default_version.version) in broken,
    )


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
    """Return the serving variants; a canary that cannot be called gets no share."""
    serving = entry.serving
    if entry.route is None or serving is None:
        return ()
    if serving.default_version not in callable_numbers:
        return ()
    default_version = serving.default_version
    assert default_version is not None
    if serving.canary_version not in callable_numbers:
        return (Variant(version=default_version, role="default", weight_percent=100),)
    assert serving.canary_version is not None
    return (
        Variant(
            version=default_version,
            role="default",
            weight_percent=serving.default_weight_percent,
        ),
        Variant(
            version=serving.canary_version,
            role="canary",
            weight_percent=serving.canary_weight_percent,
        ),
    )
