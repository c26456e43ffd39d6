"""Store what happens to versions in their processes, and decide what follows from it.

Deaths, batches and loads that fail, quarantines, slow versions, fresh processes and
leaks become events, once each. A quarantine and slowness also become conditions, which
the placement and the serving routes follow.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import QuerySet

from inference.controller import publishing
from inference.controller.engine_links import EngineView
from inference.controller.placing import Placer, Running
from inference.controller.wishes import Wish
from inference.engine.wire.messages import BatchFailure, VersionKey, VersionStatus
from inference.models import VersionCondition, VersionEvent
from inference.placement import quarantine
from inference.placement.growth import steady_growth
from inference.placement.processes import Death, HostReport
from registry.mlflow.model_file import storable

# A version whose single row takes longer gets a process of its own.
SLOW_S = 0.25
_KEPT = timedelta(days=90)
_MOST_EVENTS = 200
_MOST_FAILURES = 20
_RECENT_S = 7200.0
_MIB = 1 << 20

Kind = VersionEvent.Kind

logger = structlog.get_logger(__name__)


class Incidents:
    """Find what is new in the reports of hosts and engines."""

    def __init__(self, placer: Placer) -> None:
        self._placer = placer
        # What is stored already: process and time of deaths and failures.
        self._deaths: dict[str, set[tuple[str, datetime]]] = {}
        self._failures: dict[str, datetime] | None = None
        # The last error of loads that is stored, by version.
        self._load_errors: dict[VersionKey, str] = {}
        # Process and start: those that leak, and the last sample that was looked at.
        self._leaking: set[tuple[str, float]] = set()
        self._sampled: dict[tuple[str, float], tuple[tuple[float, int], ...]] = {}
        # Forms of versions when they became slow or were quarantined.
        self._forms: dict[VersionKey, str] = {}

    def look(
        self, wish: Wish, views: Mapping[str, EngineView], *, now: datetime
    ) -> bool:
        """Store what is new; return whether conditions of versions changed."""
        running = self._placer.running()
        for host, report in self._placer.reports().items():
            self._store_deaths(host, report)
        changed = self._follow_quarantines(wish, running, now=now)
        changed |= self._forget_slow(wish)
        for engine, view in views.items():
            one = running.get(engine)
            if view.status is None or one is None:
                continue
            for key, status in view.versions.items():
                if status.failures:
                    self._store_failures(one, key, status.failures)
                self._note_load(one, key, status, now=now)
                changed |= self._note_pace(wish, one, key, status, now=now)
                self._note_wear(wish, one, key, status, now=now)
        for one in running.values():
            self._note_leak(one, now=now)
        return changed

    def is_leaking(self, one: Running) -> bool:
        reported = one.reported
        return reported is not None and (
            (reported.name, reported.started_at) in self._leaking
        )

    # Deaths and quarantines

    def _store_deaths(self, host: str, report: HostReport) -> None:
        known = self._deaths.get(host)
        if known is None:
            rows = VersionEvent.objects.filter(kind=Kind.DEATH, host=host)
            known = self._deaths[host] = set(rows.values_list("engine", "at"))
        found = {(it.process, _time(it.at)): it for it in report.deaths}
        if found.keys() == known:
            return
        for identity, death in found.items():
            if identity not in known and death.version is not None:
                self._store_death(host, death, death.version)
        self._deaths[host] = set(found)

    def _store_death(self, host: str, death: Death, key: VersionKey) -> None:
        _store(
            Kind.DEATH,
            key,
            at=_time(death.at),
            engine=death.process,
            host=host,
            text=storable(death.reason),
            detail=storable(death.output),
            exit_code=death.exit_code,
            signal=death.signal[:16],
            rows=death.rows,
        )

    def _follow_quarantines(
        self, wish: Wish, running: Mapping[str, Running], *, now: datetime
    ) -> bool:
        found = self._quarantined(wish, running)
        known = wish.quarantined
        changed = False
        for key in found.keys() - known.keys():
            if key in wish.to_load:
                self._quarantine(key, found[key], wish.forms[key], now=now)
                changed = True
        for key in known:
            why = self._why_released(wish, running, key, is_found=key in found)
            if why:
                self._release(key, why, now=now)
                changed = True
        return changed

    def _quarantined(
        self, wish: Wish, running: Mapping[str, Running]
    ) -> dict[VersionKey, tuple[str, str]]:
        """Return why versions are quarantined, and on which process.

        A host quarantines processes of one version by itself; the version is once no
        process of it survives. In a process that others share, only the version is.
        """
        found = {}
        surviving = self._surviving(running)
        for host, report in self._placer.reports().items():
            deaths: dict[VersionKey, list[Death]] = {}
            for death in report.deaths:
                if death.version is not None and (
                    death.at > wish.released_at(death.version)
                ):
                    deaths.setdefault(death.version, []).append(death)
            for process in report.processes:
                one = running.get(process.name)
                if process.state != "quarantined" or one is None or one.host != host:
                    continue
                for version in one.planned.versions[:1]:
                    key = version.key
                    if key in surviving:
                        continue
                    if key in deaths or not wish.released_at(key):
                        last = deaths[key][-1].reason if key in deaths else ""
                        found[key] = last or process.problem, process.name
                    elif key in wish.quarantined:
                        found[key] = process.problem, process.name
            for key, several in deaths.items():
                shared = [it for it in several if _is_shared(running.get(it.process))]
                times = [it.at for it in shared]
                if quarantine.is_due(times):
                    found[key] = shared[-1].reason, shared[-1].process
        return found

    def _surviving(self, running: Mapping[str, Running]) -> set[VersionKey]:
        """Return the versions that have a process which its host did not give up."""
        given_up = ("", "quarantined")
        alive = {name for name, one in running.items() if one.state not in given_up}
        holders = self._placer.placement.holders
        return {
            key
            for key, several in holders.items()
            if any(holder.process in alive for holder in several)
        }

    def _quarantine(
        self, key: VersionKey, why: tuple[str, str], form: str, *, now: datetime
    ) -> None:
        reason, process = why
        words = f"Its process died twice within ten minutes. {reason}".strip()
        text = storable(words)
        self._forms[key] = form
        with transaction.atomic():
            _set_condition(key, quarantined_at=now, reason=text)
            _store(Kind.QUARANTINED, key, at=now, engine=process, text=text)
        logger.warning("version_quarantined", version=str(key), reason=text)

    def _why_released(
        self,
        wish: Wish,
        running: Mapping[str, Running],
        key: VersionKey,
        *,
        is_found: bool,
    ) -> str:
        if key not in wish.to_load and key not in wish.obstacles:
            return "Nothing needs it any more."
        form = wish.forms.get(key)
        if form is not None and self._forms.setdefault(key, form) != form:
            return "It changed."
        states = [
            one.reported.state
            for one in running.values()
            if one.reported is not None
            and one.planned.kind == "own"
            and any(version.key == key for version in one.planned.versions)
        ]
        if states and not is_found and "quarantined" not in states:
            return "Its host runs it again."
        return ""

    def _release(self, key: VersionKey, why: str, *, now: datetime) -> None:
        self._forms.pop(key, None)
        with transaction.atomic():
            _set_condition(key, quarantined_at=None, reason="", released_at=now)
            _store(Kind.RELEASED, key, at=now, text=why)
        logger.info("version_released", version=str(key), reason=why)

    # Loads and batches that fail

    def _store_failures(
        self, one: Running, key: VersionKey, failures: Iterable[BatchFailure]
    ) -> None:
        name = f"{one.planned.name} {key}"
        if self._failures is None:
            self._failures = {}
            rows = VersionEvent.objects.filter(kind=Kind.FAILURE).order_by("at")
            for engine, model, version, at in rows.values_list(
                "engine", "model", "version", "at"
            ):
                self._failures[f"{engine} {VersionKey(model, version)}"] = at
        last = self._failures.get(name)
        new = [it for it in failures if last is None or _time(it.at) > last]
        if not new:
            return
        for failure in new:
            words = f"{failure.exception}: {failure.message}".strip(": ")
            _store_of(
                one,
                Kind.FAILURE,
                key,
                at=_time(failure.at),
                text=storable(words or failure.code),
                detail=storable(failure.trace),
                rows=failure.rows,
                request_ids=[storable(it) for it in failure.request_ids],
            )
        self._failures[name] = max(_time(it.at) for it in new)
        _keep_newest(_events(key).filter(kind=Kind.FAILURE), _MOST_FAILURES)

    def _note_load(
        self, one: Running, key: VersionKey, status: VersionStatus, *, now: datetime
    ) -> None:
        if not status.has_failed:
            if status.state == "ready":
                self._load_errors[key] = ""
            return
        error = storable(status.error)
        if key not in self._load_errors:
            events = _events(key).filter(kind=Kind.LOAD_FAILED)
            last = events.values_list("detail", flat=True).first()
            self._load_errors[key] = last or ""
        if self._load_errors[key] == error:
            return
        self._load_errors[key] = error
        _store_of(
            one,
            Kind.LOAD_FAILED,
            key,
            at=now,
            text=next(iter(error.splitlines()), "It failed."),
            detail=error,
        )

    # Versions that are slow, worn or leak

    def _note_pace(
        self,
        wish: Wish,
        one: Running,
        key: VersionKey,
        status: VersionStatus,
        *,
        now: datetime,
    ) -> bool:
        version = wish.to_load.get(key)
        condition = wish.conditions.get(key)
        if (
            status.single_row_s <= SLOW_S
            or version is None
            or one.planned.kind == "own"
            or one.planned.device != "cpu"
            or version.process.isolation == "shared"
            or (condition is not None and condition.slow_since is not None)
        ):
            return False
        milliseconds = round(status.single_row_s * 1000)
        text = (
            f"A single row takes {milliseconds} ms, so it gets a process of its own "
            "and keeps nobody waiting."
        )
        self._forms[key] = wish.forms[key]
        with transaction.atomic():
            _set_condition(key, slow_since=now)
            _store_of(one, Kind.MOVED, key, at=now, text=text)
        logger.info("version_is_slow", version=str(key), single_row_ms=milliseconds)
        return True

    def _forget_slow(self, wish: Wish) -> bool:
        """Let a version that changed share a process again, until it is slow again."""
        changed = False
        for key, condition in wish.conditions.items():
            form = wish.forms.get(key)
            if condition.slow_since is None or form is None:
                continue
            if self._forms.setdefault(key, form) != form:
                self._forms[key] = form
                _set_condition(key, slow_since=None)
                changed = True
        return changed

    def _note_wear(
        self,
        wish: Wish,
        one: Running,
        key: VersionKey,
        status: VersionStatus,
        *,
        now: datetime,
    ) -> None:
        version = wish.to_load.get(key)
        if version is None or one.planned.kind != "own" or status.state != "ready":
            return
        rules, why = version.process, ""
        if 0 < rules.recycle_after_calls <= status.calls:
            why = f"It answered {status.calls} calls"
        grown = _growth(one, since=status.ready_at)
        if 0 < rules.recycle_after_mb * _MIB <= grown:
            why = f"Its memory grew by {round(grown / _MIB)} MB"
        if not why or not self._placer.recycle(one.planned.name):
            return
        text = f"{why}, so a fresh process takes over."
        _store_of(one, Kind.RECYCLED, key, at=now, text=text)

    def _note_leak(self, one: Running, *, now: datetime) -> None:
        reported = one.reported
        if reported is None or one.planned.kind != "own":
            return
        identity = reported.name, reported.started_at
        samples = reported.memory_samples
        if identity in self._leaking or self._sampled.get(identity) == samples[-1:]:
            return
        self._sampled[identity] = samples[-1:]
        recent = [it for it in samples if it[0] >= samples[-1][0] - _RECENT_S]
        pace = steady_growth(recent)
        if pace is None:
            return
        self._leaking.add(identity)
        began = _time(reported.started_at)
        for version in one.planned.versions:
            known = _events(version.key).filter(
                kind=Kind.LEAK, engine=reported.name, at__gte=began
            )
            if known.exists():
                continue
            _store_of(
                one,
                Kind.LEAK,
                version.key,
                at=now,
                text=f"Its memory grows steadily, by {round(pace / _MIB)} MB per hour.",
            )


def prune(*, now: datetime) -> None:
    """Delete old events, and all but the newest of each version."""
    VersionEvent.objects.filter(at__lt=now - _KEPT).delete()
    versions = VersionEvent.objects.order_by().values_list("model", "version")
    for model, version in versions.distinct():
        _keep_newest(_events(VersionKey(model, version)), _MOST_EVENTS)


def _keep_newest(events: QuerySet[VersionEvent], most: int) -> None:
    kept = list(events.values_list("pk", flat=True)[:most])
    if len(kept) == most:
        events.exclude(pk__in=kept).delete()


def _events(key: VersionKey) -> QuerySet[VersionEvent]:
    return VersionEvent.objects.filter(model=key.model, version=key.version)


def _store(kind: str, key: VersionKey, **fields: object) -> None:
    VersionEvent.objects.create(
        kind=kind, model=key.model, version=key.version, **fields
    )


def _store_of(one: Running, kind: str, key: VersionKey, **fields: object) -> None:
    """Store what happened to a version in a process that its host runs."""
    _store(kind, key, engine=one.planned.name, host=one.host, **fields)


def _set_condition(key: VersionKey, **fields: object) -> None:
    VersionCondition.objects.update_or_create(
        model=key.model, version=key.version, defaults=fields
    )
    publishing.mark_changed(publishing.Kind.MODEL, [key.model])


def _is_shared(one: Running | None) -> bool:
    return one is not None and one.planned.kind != "own"


def _growth(one: Running, *, since: float) -> int:
    """Return by how many bytes the process grew since its version was ready."""
    if one.reported is None:
        return 0
    samples = [it for it in one.reported.memory_samples if it[0] >= since]
    return samples[-1][1] - samples[0][1] if samples else 0


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
