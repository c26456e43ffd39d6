"""Make engines and serving routes follow the desired routes; see `decision.py`."""

import secrets
from collections.abc import Iterable, Mapping

import structlog
from django.db import transaction
from django.utils import timezone

from inference.controller import publishing
from inference.controller.decision import (
    OnEngine,
    Reports,
    Served,
    Situation,
    decide,
    failures,
)
from inference.controller.engine_links import EngineLink
from inference.controller.incidents import Incidents
from inference.controller.placing import Placer, engines_of
from inference.controller.wishes import Wish, read_wish
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.installation.home import Home
from inference.models import ServingRoute
from inference.placement.retries import Retries
from inference.placement.situation import Placement
from inference.snapshot.contents import CallableModel
from registry.mlflow.model_file import storable
from registry.models import ModelVersion
from registry.shares import canaries

# A gateway reads a new snapshot within 1 s; requests in flight end within their
# deadline, and an engine finishes what it has queued before it unloads.
UNLOAD_GRACE_S = 5.0
# A job that ends no longer needs its version, but counts no change.
_REREAD_S = 10.0
_QUARANTINED = "Quarantined."

logger = structlog.get_logger(__name__)


class Reconciler:
    """Compare desired and reported state in rounds, and command the engines.

    Times are monotonic seconds passed in by the caller.
    """

    def __init__(self, home: Home) -> None:
        self._artifacts = home.artifacts
        self.placer = Placer(home, grace_s=UNLOAD_GRACE_S)
        self.incidents = Incidents(self.placer)
        self._retries = Retries()
        self._named: frozenset[VersionKey] = frozenset()
        # When a published snapshot last named the version.
        self._named_at: dict[VersionKey, float] = {}
        # The desired state, with the time and the change count when it was read.
        self._wish: tuple[float, int, Wish] | None = None
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
        """Place versions, command the engines, and move the serving routes that can."""
        wish = self._current_wish(now_s=now_s)
        views = {name: link.view for name, link in links.items()}
        if self.incidents.look(wish, views, now=timezone.now()):
            wish = self._current_wish(now_s=now_s)
        statuses = {
            name: view.status for name, view in views.items() if view.status is not None
        }
        reports = {name: views[name].versions for name in statuses}
        placement = self.placer.place(
            wish,
            reports,
            unnamed=self._unnamed(wish, reports, now_s=now_s),
            memory={
                name: status.device_status.total_bytes
                for name, status in statuses.items()
                if status.device_status is not None
            },
            devices={name: status.device for name, status in statuses.items()},
            now_s=now_s,
        )
        stale = _stale(reports, wish.forms)
        decision = decide(
            Situation(
                desired=wish.desired,
                serving=wish.serving,
                reports=reports,
                holders=engines_of(placement.holders),
                staying=engines_of(placement.staying),
                obstacles=wish.obstacles,
                lacking={it.key: it.sentence for it in placement.lacking},
                quarantined=wish.quarantined,
                changed=_changed(reports, wish.to_load) | stale,
                stale=stale,
                retry=self._due_retries(reports, wish, now_s=now_s),
            )
        )
        if _move(wish.serving, decision.serving):
            self._wish = None
        self._record_problems(wish, reports, placement)
        for engine, key in decision.loads:
            version = wish.to_load[key]
            self._retries.tried(key, wish.forms[key], wish.asked_at(key), now_s=now_s)
            self.placer.told(engine, version)
            links[engine].load(version)
            logger.info("version_load_requested", engine=engine, version=str(key))
        for engine, key in decision.unloads:
            links[engine].unload(key)
            logger.info("version_unload_requested", engine=engine, version=str(key))

    def _record_problems(
        self, wish: Wish, reports: Reports, placement: Placement
    ) -> None:
        """Store on the versions' rows why they cannot answer until a person acts.

        The admin shows it, and snapshots tell callers that waiting does not help.
        """
        if self._recorded is None:
            self._recorded = _read_problems()
        # Cleaned, because the text comes from the model.
        problems = {k: storable(text) for k, text in failures(reports).items()}
        for key, text in self._recorded.items():
            # A failure stands until an engine of the version reports something else.
            engines = {it.process for it in placement.holders.get(key, ())}
            if (
                key in wish.to_load
                and not engines & reports.keys()
                and not text.startswith(_QUARANTINED)
            ):
                problems.setdefault(key, text)
        problems |= wish.lasting
        for key, reason in wish.quarantined.items():
            if key in wish.to_load:
                problems[key] = f"{_QUARANTINED} {reason}"
        if problems == self._recorded:
            return
        _store_problems(self._recorded, problems)
        self._recorded = problems

    def _current_wish(self, *, now_s: float) -> Wish:
        """Read the database only if its change count moved, or after a time."""
        changed = publishing.models_change_count()
        if self._wish is not None:
            read_s, at_count, wish = self._wish
            if at_count == changed and now_s - read_s < _REREAD_S:
                return wish
        wish = read_wish(self._artifacts, now=timezone.now())
        self._wish = (now_s, changed, wish)
        return wish

    def _unnamed(
        self, wish: Wish, reports: Reports, *, now_s: float
    ) -> frozenset[VersionKey]:
        """Return the versions that nobody needs and no gateway can name any more."""
        placement = self.placer.placement
        loaded = set(placement.holders) | set(placement.staying)
        loaded |= {key for versions in reports.values() for key in versions}
        for running in self.placer.running().values():
            loaded |= {version.key for version in running.planned.versions}
        for key in self._named:
            self._named_at[key] = now_s
        for key in loaded:
            # Loaded before this controller started: the last snapshot may have
            # dropped it just now, so its grace period starts now.
            self._named_at.setdefault(key, now_s)
        self._named_at = {
            key: at
            for key, at in self._named_at.items()
            if key in loaded or key in self._named
        }
        return frozenset(
            key
            for key, at in self._named_at.items()
            if now_s - at >= UNLOAD_GRACE_S
            and key not in wish.to_load
            and key not in wish.obstacles
        )

    def _due_retries(
        self, reports: Reports, wish: Wish, *, now_s: float
    ) -> frozenset[OnEngine]:
        """Return failed versions to try again."""
        due = set()
        for engine, versions in reports.items():
            for key, status in versions.items():
                if status.state == "ready":
                    self._retries.succeeded(key)
                elif (
                    status.state == "failed"
                    and key in wish.to_load
                    and self._retries.is_due(
                        key,
                        wish.forms[key],
                        wish.asked_at(key),
                        refused=status.refused,
                        now_s=now_s,
                    )
                ):
                    due.add((engine, key))
        return frozenset(due)


def _changed(
    reports: Reports, to_load: Mapping[VersionKey, VersionToLoad]
) -> frozenset[OnEngine]:
    """Find versions with new settings that engines apply without loading again."""
    return frozenset(
        (engine, key)
        for engine, versions in reports.items()
        for key, status in versions.items()
        if status.state != "failed"
        and (wanted := to_load.get(key)) is not None
        and (status.batching, status.pinned) != (wanted.batching, wanted.pinned)
    )


def _stale(reports: Reports, forms: Mapping[VersionKey, str]) -> frozenset[OnEngine]:
    """Find versions loaded with another artifact, signature or trust than is wanted.

    Engines restore such versions after a restart, from the last command they got.
    """
    return frozenset(
        (engine, key)
        for engine, versions in reports.items()
        for key, status in versions.items()
        if status.form and status.form != forms.get(key, status.form)
    )


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
            canaries=served.variants.canaries if served.variants else (),
            waiting_for=served.waiting_for,
        )
    _remove(before.keys() - after.keys())
    return True


def _store(model: str, served: Served, *, moved: bool) -> None:
    values: dict[str, object] = {"waiting_for": served.waiting_for}
    if moved:
        variants = served.variants
        values |= canaries.columns(variants.canaries if variants else ())
        values |= {
            "default_version": variants.default if variants else None,
            "former_version": served.former,
            "moved_at": timezone.now(),
            "salt": secrets.token_hex(16),
        }
    ServingRoute.objects.update_or_create(model=model, defaults=values)


def _remove(models: Iterable[str]) -> None:
    """Stop serving routes that were disabled or whose model is gone."""
    for model in models:
        with transaction.atomic():
            ServingRoute.objects.filter(model=model).delete()
            publishing.mark_changed(publishing.Kind.MODEL, [model])
        logger.info("serving_route_removed", model=model)
