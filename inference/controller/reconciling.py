"""Make engines and serving routes follow the desired routes; see `decision.py`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from django.db import transaction
from django.utils import timezone

from inference.controller import publishing
from inference.controller.callable_versions import (
    CatalogModel,
    NotCallable,
    NotYetCallable,
    read_catalog,
    version_to_load,
)
from inference.controller.decision import (
    Placement,
    Reports,
    Served,
    Situation,
    Variants,
    decide,
    failures,
)
from inference.controller.engine_links import EngineLink
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.models import ServingRoute
from inference.snapshot.contents import CallableModel
from registry.mlflow.model_file import storable
from registry.models import ModelVersion

# A gateway reads a new snapshot within 1 s; requests in flight end within their
# deadline, and an engine finishes what it has queued before it unloads.
UNLOAD_GRACE_S = 5.0
RETRY_FAILED_S = 60.0
# A job that ends no longer needs its version, but counts no change.
_REREAD_S = 10.0

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Wish:
    """The desired state, read from the database at once."""

    desired: dict[str, Variants] = field(default_factory=dict)
    serving: dict[str, Served] = field(default_factory=dict)
    to_load: dict[VersionKey, VersionToLoad] = field(default_factory=dict)
    # `VersionToLoad.form` of each of these, kept because it takes time to compute.
    forms: dict[VersionKey, str] = field(default_factory=dict)
    obstacles: dict[VersionKey, str] = field(default_factory=dict)
    # The obstacles that last until a person acts.
    lasting: dict[VersionKey, str] = field(default_factory=dict)


class Reconciler:
    """Compare desired and reported state in rounds, and command the engines.

    Times are monotonic seconds passed in by the caller.
    """

    def __init__(self, *, artifacts: Path) -> None:
        self._artifacts = artifacts
        self._named: frozenset[VersionKey] = frozenset()
        # When a published snapshot last named the version.
        self._named_at: dict[VersionKey, float] = {}
        self._attempts: dict[Placement, tuple[float, VersionToLoad]] = {}
        # The desired state, with the time and the change count when it was read.
        self._wish: tuple[float, int, _Wish] | None = None
        # `serving_problem` of the versions' rows.
        self._recorded: dict[VersionKey, str] | None = None

    def saw_published(self, models: Iterable[CallableModel]) -> None:
        """Record which versions gateways may call from now on."""
        self._named = frozenset(
            VersionKey(model.name, version.version)
            for model in models
            for version in model.versions
        )

    def reconcile(self, links: Mapping[str, EngineLink], *, now_s: float) -> None:
        """Command the engines, and move the serving routes that can move."""
        wish = self._current_wish(now_s=now_s)
        reports = {
            name: view.versions
            for name, link in links.items()
            if (view := link.view).status is not None
        }
        stale = _stale(reports, wish.forms)
        decision = decide(
            Situation(
                desired=wish.desired,
                serving=wish.serving,
                reports=reports,
                wanted=frozenset(wish.to_load),
                obstacles=wish.obstacles,
                recently_named=self._recently_named(reports, now_s=now_s),
                changed=_changed(reports, wish.to_load) | stale,
                stale=stale,
                retry=self._due_retries(reports, wish.to_load, now_s=now_s),
            )
        )
        if _move(wish.serving, decision.serving):
            self._wish = None
        self._record_problems(wish, reports)
        for engine, key in decision.loads:
            version = wish.to_load.get(key)
            if version is None:
                continue
            self._attempts[engine, key] = (now_s, version)
            links[engine].load(version)
            logger.info("version_load_requested", engine=engine, version=str(key))
        for engine, key in decision.unloads:
            self._attempts.pop((engine, key), None)
            links[engine].unload(key)
            logger.info("version_unload_requested", engine=engine, version=str(key))

    def _record_problems(self, wish: _Wish, reports: Reports) -> None:
        """Store on the versions' rows why they cannot answer until a person acts.

        The admin shows it, and snapshots tell callers that waiting does not help.
        """
        if self._recorded is None:
            self._recorded = _read_problems()
        # Cleaned, because the text comes from the model.
        reasons = {k: storable(text) for k, text in failures(reports).items()}
        problems = reasons | wish.lasting
        if not reports:
            # Failures stay until an engine reports something else.
            kept = {k: text for k, text in self._recorded.items() if k in wish.to_load}
            problems = kept | problems
        if problems == self._recorded:
            return
        _store_problems(self._recorded, problems)
        self._recorded = problems

    def _current_wish(self, *, now_s: float) -> _Wish:
        """Read the database only if its change count moved, or after a time."""
        changed = publishing.models_change_count()
        if self._wish is not None:
            read_s, at_count, wish = self._wish
            if at_count == changed and now_s - read_s < _REREAD_S:
                return wish
        wish = _read_wish(self._artifacts)
        self._wish = (now_s, changed, wish)
        return wish

    def _recently_named(
        self, reports: Reports, *, now_s: float
    ) -> frozenset[VersionKey]:
        for key in self._named:
            self._named_at[key] = now_s
        for versions in reports.values():
            for key in versions:
                # Loaded before this controller started: the last snapshot may have
                # dropped it just now, so its grace period starts now.
                self._named_at.setdefault(key, now_s)
        loaded = {key for versions in reports.values() for key in versions}
        self._named_at = {
            key: at
            for key, at in self._named_at.items()
            if key in loaded or key in self._named
        }
        return frozenset(
            key for key, at in self._named_at.items() if now_s - at < UNLOAD_GRACE_S
        )

    def _due_retries(
        self,
        reports: Reports,
        to_load: Mapping[VersionKey, VersionToLoad],
        *,
        now_s: float,
    ) -> frozenset[Placement]:
        """Return failed versions to try again: changed ones at once, others in time.

        A version that the engine refused is tried again only once it changed.
        """
        return frozenset(
            (engine, key)
            for engine, versions in reports.items()
            for key, status in versions.items()
            if status.state == "failed"
            and self._is_due(
                engine, key, to_load.get(key), refused=status.refused, now_s=now_s
            )
        )

    def _is_due(
        self,
        engine: str,
        key: VersionKey,
        version: VersionToLoad | None,
        *,
        refused: bool,
        now_s: float,
    ) -> bool:
        if (engine, key) not in self._attempts:
            return True
        at, tried = self._attempts[engine, key]
        return version != tried or (not refused and now_s - at >= RETRY_FAILED_S)


def _changed(
    reports: Reports, to_load: Mapping[VersionKey, VersionToLoad]
) -> frozenset[Placement]:
    """Find versions with new settings that engines apply without loading again."""
    return frozenset(
        (engine, key)
        for engine, versions in reports.items()
        for key, status in versions.items()
        if status.state != "failed"
        and (wanted := to_load.get(key)) is not None
        and (status.batching, status.pinned) != (wanted.batching, wanted.pinned)
    )


def _stale(reports: Reports, forms: Mapping[VersionKey, str]) -> frozenset[Placement]:
    """Find versions loaded with another artifact, signature or trust than is wanted.

    Engines restore such versions after a restart, from the last command they got.
    """
    return frozenset(
        (engine, key)
        for engine, versions in reports.items()
        for key, status in versions.items()
        if status.form and status.form != forms.get(key, status.form)
    )


def _read_wish(artifacts: Path) -> _Wish:
    wish = _Wish()
    for entry in read_catalog(with_jobs=True):
        if entry.route is not None:
            wish.desired[entry.name] = _desired(entry)
        for number, version in entry.versions.items():
            try:
                described = version_to_load(entry, version, artifacts=artifacts)
            except NotCallable as reason:
                key = VersionKey(entry.name, number)
                wish.obstacles[key] = str(reason)
                if not isinstance(reason, NotYetCallable):
                    wish.lasting[key] = f"It cannot be loaded: {reason}"
            else:
                wish.to_load[described.key] = described
                wish.forms[described.key] = described.form()
    for route in ServingRoute.objects.all():
        wish.serving[route.model] = _served(route)
    return wish


def _read_problems() -> dict[VersionKey, str]:
    rows = ModelVersion.objects.exclude(serving_problem="").values_list(
        "registered_model__name", "version", "serving_problem"
    )
    return {VersionKey(model, version): problem for model, version, problem in rows}


def _store_problems(
    before: Mapping[VersionKey, str], after: Mapping[VersionKey, str]
) -> None:
    differing = [
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    ]
    with transaction.atomic():
        for key in differing:
            ModelVersion.objects.filter(
                registered_model__name=key.model, version=key.version
            ).update(serving_problem=after.get(key, ""))
        publishing.mark_changed(publishing.Kind.MODEL, {key.model for key in differing})
    for key in differing:
        logger.info(
            "serving_problem", version=str(key), problem=after.get(key, "") or "none"
        )


def _desired(entry: CatalogModel) -> Variants:
    route = entry.route
    assert route is not None
    if route.canary_version is None:
        return Variants(route.default_version.version)
    return Variants(
        route.default_version.version,
        canary=route.canary_version.version,
        canary_weight_percent=route.canary_weight_percent,
    )


def _served(route: ServingRoute) -> Served:
    if route.default_version is None:
        return Served(None, waiting_for=route.waiting_for)
    return Served(
        Variants(
            route.default_version,
            canary=route.canary_version,
            canary_weight_percent=route.canary_weight_percent,
        ),
        waiting_for=route.waiting_for,
    )


def _move(before: Mapping[str, Served], after: Mapping[str, Served]) -> bool:
    """Store changed routes, each in a short transaction; return whether any changed."""
    if before == after:
        return False
    for model, served in after.items():
        if before.get(model) == served:
            continue
        moved = model not in before or before[model].variants != served.variants
        with transaction.atomic():
            _store(model, served, moved=moved)
            if moved:
                publishing.mark_changed(publishing.Kind.MODEL, [model])
        logger.info(
            "serving_route_moved" if moved else "serving_route_waits",
            model=model,
            default=served.variants.default if served.variants else None,
            canary=served.variants.canary if served.variants else None,
            waiting_for=served.waiting_for,
        )
    _remove(before.keys() - after.keys())
    return True


def _store(model: str, served: Served, *, moved: bool) -> None:
    values: dict[str, object] = {"waiting_for": served.waiting_for}
    if moved:
        variants = served.variants
        weight = variants.canary_weight_percent if variants else 0
        values |= {
            "default_version": variants.default if variants else None,
            "canary_version": variants.canary if variants else None,
            "default_weight_percent": 100 - weight,
            "canary_weight_percent": weight,
            "moved_at": timezone.now(),
        }
    ServingRoute.objects.update_or_create(model=model, defaults=values)


def _remove(models: Iterable[str]) -> None:
    """Stop serving routes that were disabled or whose model is gone."""
    for model in models:
        with transaction.atomic():
            ServingRoute.objects.filter(model=model).delete()
            publishing.mark_changed(publishing.Kind.MODEL, [model])
        logger.info("serving_route_removed", model=model)
