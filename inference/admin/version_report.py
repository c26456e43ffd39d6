"""Gather what a version's page shows of its processes and of what happened there."""

from dataclasses import dataclass

from django.db.models import QuerySet

from inference.admin import sparkline
from inference.admin.sparkline import Sparkline
from inference.conditions.states import StateReport
from inference.controller import callable_versions
from inference.controller.callable_versions import CatalogModel
from inference.models import (
    Engine,
    LoadedVersion,
    ModelEnvironment,
    ServingRoute,
    VersionCondition,
    VersionEvent,
)
from registry.models import ModelVersion, Route

FAILURES_SHOWN = 20
_DEATHS_SHOWN = 20
_OTHERS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class HoldingProcess:
    """One engine process that holds the version."""

    loaded: LoadedVersion
    engine: Engine
    # Of the whole process if it holds nothing else, otherwise of the version.
    memory_bytes: int
    memory: Sparkline | None


@dataclass(frozen=True, slots=True)
class VersionReport:
    """Everything that a version's page shows of its serving."""

    state: StateReport
    processes: list[HoldingProcess]
    # Why its requests share no batches.
    apart: str
    environment: str
    # How its processes are to run, as somebody said; empty: nobody did.
    process_rules: str
    fit: str
    findings: list[str]
    condition: VersionCondition | None
    deaths: list[VersionEvent]
    failures: list[VersionEvent]
    others: list[VersionEvent]


def report_on(
    version: ModelVersion, *, state: StateReport, with_events: bool
) -> VersionReport:
    name = version.registered_model.name
    loaded = list(
        LoadedVersion.objects.filter(model=name, version=version.version)
        .select_related("engine")
        .order_by("engine__host", "engine__name")
    )
    kind = VersionEvent.Kind
    events = VersionEvent.objects.filter(model=name, version=version.version)
    if not with_events:
        events = events.none()
    fit = version.environment_fit
    return VersionReport(
        state=state,
        processes=[_process(row) for row in loaded],
        apart=next((row.apart for row in loaded if row.apart), ""),
        environment=_environment(version),
        process_rules=_process_rules(version),
        fit=str(fit.get("verdict", "")),
        findings=[str(finding) for finding in fit.get("findings", [])],
        condition=VersionCondition.objects.select_related("asked_by")
        .filter(model=name, version=version.version)
        .first(),
        deaths=_newest(events.filter(kind=kind.DEATH), _DEATHS_SHOWN),
        failures=_newest(events.filter(kind=kind.FAILURE), FAILURES_SHOWN),
        others=_newest(
            events.exclude(kind__in=(kind.DEATH, kind.FAILURE)), _OTHERS_SHOWN
        ),
    )


def _process(loaded: LoadedVersion) -> HoldingProcess:
    engine = loaded.engine
    alone = engine.kind == Engine.Kind.OWN
    samples = engine.memory_samples if alone else []
    return HoldingProcess(
        loaded=loaded,
        engine=engine,
        memory_bytes=int(samples[-1][1]) if samples else loaded.memory_bytes,
        memory=sparkline.draw(samples),
    )


def _process_rules(version: ModelVersion) -> str:
    """Say which rules hold: the version's own, overridden by its model and route."""
    if version.metadata_errors:
        # They may be of any shape.
        return ""
    model = version.registered_model
    route = Route.objects.filter(registered_model=model, enabled=True).select_related(
        *Route.VERSIONS
    )
    serving = ServingRoute.objects.filter(model=model.name)
    entry = CatalogModel(model, route=route.first(), serving=serving.first())
    said = callable_versions.process_rules(entry, version)
    # PostgreSQL keeps no order of members.
    return ", ".join(f"{name} {_typed(value)}" for name, value in sorted(said.items()))


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _environment(version: ModelVersion) -> str:
    built = ModelEnvironment.objects.filter(digest=version.environment)
    environment = built.only("digest", "python").first()
    if environment is None:
        return version.environment
    return f"{environment} (Python {environment.python})"


def _newest(events: QuerySet[VersionEvent], most: int) -> list[VersionEvent]:
    return list(events.order_by("-at", "-pk")[:most])
