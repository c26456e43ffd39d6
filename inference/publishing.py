"""Publishing the snapshot: what the database says, as the file gateways live from."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import F, Q

from accounts import api_keys, plans
from accounts.limits import Limits
from accounts.models import ApiKey, Customer
from inference import snapshot
from inference.callable_versions import (
    CatalogModel,
    NotCallable,
    callable_version,
    read_catalog,
)
from inference.engine.messages import VersionKey
from inference.models import Engine, LoadedVersion, SnapshotState
from inference.snapshot import (
    AccessCustomer,
    AccessKey,
    CachePolicy,
    CallableModel,
    EngineAddress,
    Fallback,
    FixedAnswer,
    Snapshot,
)
from registry.routing import Variant

_KEY_FIELDS = (
    "key_id",
    "digest",
    "customer_id",
    "scopes",
    "allowed_models",
    "allowed_networks",
    "expires_at",
    "mode",
    "first_key_id",
    *api_keys.LIMIT_FIELDS,
)


def mark_changed() -> None:
    """Count a change that gateways must learn of, in the caller's transaction."""
    if SnapshotState.objects.filter(pk=1).update(changed=F("changed") + 1):
        return
    SnapshotState.objects.bulk_create([SnapshotState(pk=1)], ignore_conflicts=True)
    SnapshotState.objects.filter(pk=1).update(changed=F("changed") + 1)


def change_count() -> int:
    """Return how many changes were counted so far."""
    count = SnapshotState.objects.filter(pk=1).values_list("changed", flat=True).first()
    return count or 0


def pending_sequence() -> int | None:
    """Return the sequence to publish; None when everything is published."""
    state = SnapshotState.objects.filter(pk=1).first()
    if state is None:
        mark_changed()
        state = SnapshotState.objects.get(pk=1)
    return state.changed if state.changed > state.published else None


def publish(*, now: datetime) -> Snapshot:
    """Write the snapshot file and move `published` up to what it contains.

    The change count is read first: a change that commits while the snapshot is put
    together has a higher number and so leads to another snapshot.
    """
    sequence = SnapshotState.objects.values_list("changed", flat=True).get(pk=1)
    published = assemble(sequence=sequence, now=now)
    snapshot.write(settings.HOME.snapshot, published)
    moved = SnapshotState.objects.filter(pk=1, published__lte=sequence).update(
        published=sequence, published_at=now
    )
    if not moved:
        # Another controller published a newer one and this file has replaced it.
        mark_changed()
    return published


def assemble(*, sequence: int, now: datetime) -> Snapshot:
    """Put the snapshot together, in a number of queries that never grows."""
    catalog = read_catalog()
    engines = list(Engine.objects.all())
    ready = _ready_versions()
    models = (
        _callable_model(
            entry,
            engines=engines,
            ready=ready,
            artifacts=settings.HOME.artifacts,
        )
        for entry in catalog
    )
    customers = [
        AccessCustomer(customer_id=customer.pk, limits=plans.limits_of(customer))
        for customer in Customer.objects.filter(active=True).select_related("plan")
    ]
    return Snapshot(
        sequence=sequence,
        published_at=now.timestamp(),
        models=tuple(model for model in models if model is not None),
        keys=_access_keys(
            {customer.customer_id: customer.limits for customer in customers}, now=now
        ),
        customers=tuple(customers),
        engines=tuple(
            EngineAddress(name=engine.name, address=engine.address)
            for engine in engines
        ),
        site_default_model=next(
            (entry.name for entry in catalog if entry.model.site_default), None
        ),
    )


def _ready_versions() -> dict[str, set[VersionKey]]:
    """Return what each running engine has ready, by the engine's name."""
    ready: dict[str, set[VersionKey]] = {}
    for name, model, version in LoadedVersion.objects.filter(
        state=LoadedVersion.State.READY, engine__state=Engine.State.RUNNING
    ).values_list("engine__name", "model", "version"):
        ready.setdefault(name, set()).add(VersionKey(model, version))
    return ready


def _callable_model(
    entry: CatalogModel,
    *,
    engines: list[Engine],
    ready: dict[str, set[VersionKey]],
    artifacts: Path,
) -> CallableModel | None:
    """Describe one model; None if nothing of it was ever meant to be called."""
    versions = []
    for version in entry.versions.values():
        try:
            described = callable_version(entry, version, artifacts=artifacts)
        except NotCallable:
            # The admin asks for the reason again, where people look for it.
            continue
        versions.append(described)
    if not versions and entry.route is None:
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
        # While no engine has them all, one of these may be coming back with them:
        # gateways try, and answer 503 until then.
        engines=tuple(having or [engine.name for engine in engines]),
        public=entry.model.public,
        low_confidence_below=entry.route.low_confidence_below if entry.route else None,
        description=entry.model.description,
        cache=_cache(entry),
        fallback=_fallback(entry, callable_numbers=numbers),
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
    """Describe what stands in; a version that cannot be called does not."""
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
    """Return what the route serves; a canary that cannot be called gets no share."""
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


def _access_keys(
    customers: Mapping[int, Limits], *, now: datetime
) -> tuple[AccessKey, ...]:
    valid = ApiKey.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None
    ).order_by("pk")
    # Rows, not models: there may be 100,000 of them within the second that is promised.
    rows = valid.values_list(*_KEY_FIELDS, named=True).iterator(chunk_size=5000)
    known = [row for row in rows if row.customer_id in customers]
    # The limits of a key's newest heir hold for all of them: they count together.
    heirs = {row.first_key_id: row for row in known if row.first_key_id}
    return tuple(
        _access_key(
            row,
            heirs.get(row.first_key_id or row.key_id, row),
            customers[row.customer_id],
        )
        for row in known
    )


def _access_key(key: Any, limited_as: Any, limits: Limits) -> AccessKey:
    return AccessKey(
        key_id=key.key_id,
        digest=bytes.fromhex(key.digest),
        customer_id=key.customer_id,
        scopes=tuple(key.scopes),
        models=tuple(key.allowed_models),
        expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
        limits=plans.key_limits_of(limited_as, limits),
        networks=tuple(key.allowed_networks),
        test=key.mode == ApiKey.Mode.TEST,
        quota_key_id=key.first_key_id,
    )
