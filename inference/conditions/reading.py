"""Read how the versions of some models are doing, in a fixed number of queries."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from functools import cached_property
from typing import Any

from django.conf import settings

from inference.conditions.states import (
    OnEngine,
    StateReport,
    VersionFacts,
    state_of,
)
from inference.controller import wishes
from inference.controller.callable_versions import named_versions
from inference.engine.wire.messages import BASE_ENVIRONMENT, VersionKey
from inference.models import (
    Engine,
    Host,
    LoadedVersion,
    ModelEnvironment,
    PredictionJob,
    ServingRoute,
    VersionCondition,
)
from registry.models import ModelVersion, Route

# What a state is decided from.
_COLUMNS = (
    "version",
    "published",
    "environment",
    "environment_fit",
    "artifact_state",
    "artifact_error",
    "artifact_digest",
    "flavors",
    "serving_problem",
    "metadata_errors",
    "registered_model__name",
    "registered_model__trusted",
)
_BUILDING = {
    ModelEnvironment.State.WAITING.value: "Its environment is waiting to be built.",
    ModelEnvironment.State.BUILDING.value: "Its environment is being built.",
}


class VersionStates:
    """The states of all versions of the models with these names; None: of all."""

    def __init__(self, models: Collection[str] | None) -> None:
        self._models = names = None if models is None else set(models)
        self._on_engines = _on_engines(names)
        self._quarantines = {
            VersionKey(row.model, row.version): row.reason
            for row in _of(names, VersionCondition.objects).filter(
                quarantined_at__isnull=False
            )
        }
        self._serving = {row.model: row for row in _of(names, ServingRoute.objects)}
        self._routed = _routed(names)

    def of(self, version: ModelVersion) -> StateReport:
        return state_of(self._facts(version))

    def if_called(self, version: ModelVersion) -> StateReport:
        """Return the state that it would have if a route named it, or has now."""
        return state_of(replace(self._facts(version), called_for=True))

    def _facts(self, version: ModelVersion) -> VersionFacts:
        key = VersionKey(version.registered_model.name, version.version)
        serving = self._serving.get(key.model)
        served_as = ""
        if serving is not None and key.version == serving.default_version:
            served_as = "default"
        elif serving is not None and key.version in dict(serving.canaries):
            served_as = "canary"
        on_engines = self._on_engines.get(key, ())
        if any(each.answers for each in on_engines):
            misfit, environment = "", None
        else:
            environment = self._environment(version)
            misfit = _misfit(version, environment) or self._lacking.get(key, "")
        return VersionFacts(
            called_for=version.published
            or version.pk in self._routed
            or bool(served_as)
            or key in self._of_jobs,
            served_as=served_as,
            on_engines=on_engines,
            quarantined=key in self._quarantines,
            quarantine=self._quarantines.get(key, ""),
            misfit=misfit,
            untrusted=needs_trust(version),
            problem=_problem(version),
            waits_for=_waits_for(version, environment),
        )

    def _environment(self, version: ModelVersion) -> ModelEnvironment | None:
        if version.environment == BASE_ENVIRONMENT:
            return None
        return self._environments.get(version.environment)

    # Most pages need none of these three, so they are read when they are.

    @cached_property
    def _of_jobs(self) -> set[VersionKey]:
        """The versions that unfinished jobs need."""
        unfinished = _of(self._models, PredictionJob.objects.unfinished())
        pairs = unfinished.order_by().values_list("model", "version").distinct()
        return {VersionKey(model, version) for model, version in pairs}

    @cached_property
    def _lacking(self) -> dict[VersionKey, str]:
        """What each version needs that no host has."""
        return {
            VersionKey(entry["model"], entry["version"]): str(entry["sentence"])
            for lacking in Host.objects.order_by("name").values_list(
                "lacking", flat=True
            )
            for entry in lacking
        }

    @cached_property
    def _environments(self) -> dict[str, ModelEnvironment]:
        """The environments that were built, or are being built, by their digests."""
        rows = ModelEnvironment.objects.defer("log", "requirements")
        return {row.digest: row for row in rows}


def states_of_named() -> list[tuple[ModelVersion, StateReport]]:
    """Return the versions that are published, or that a route names, by name."""
    states = VersionStates(None)
    versions = (
        named_versions()
        .select_related("registered_model")
        .only(*_COLUMNS)
        .order_by("registered_model__name", "version")
    )
    return [(version, states.of(version)) for version in versions]


def _of(models: Collection[str] | None, rows: Any) -> Any:
    """Filter rows by the names of their models; None: all models."""
    return rows.all() if models is None else rows.filter(model__in=models)


def _on_engines(models: Collection[str] | None) -> dict[VersionKey, list[OnEngine]]:
    found: dict[VersionKey, list[OnEngine]] = defaultdict(list)
    rows = _of(models, LoadedVersion.objects).order_by("engine__name")
    columns = (
        *("model", "version", "state", "error"),
        *("engine__name", "engine__state", "engine__error"),
    )
    for model, version, state, error, name, engine_state, why_away in rows.values_list(
        *columns
    ):
        running = engine_state == Engine.State.RUNNING
        on_engine = OnEngine(
            engine=name,
            running=running,
            state=state,
            error=error if running else why_away,
        )
        found[VersionKey(model, version)].append(on_engine)
    return found


def _routed(models: Collection[str] | None) -> set[int]:
    routes = Route.objects.filter(enabled=True)
    if models is not None:
        routes = routes.filter(registered_model__name__in=models)
    return {
        version_id
        for route in routes.order_by().values_list(*Route.VERSIONS)
        for version_id in route
        if version_id is not None
    }


def _misfit(version: ModelVersion, environment: ModelEnvironment | None) -> str:
    if environment is not None and environment.state == environment.State.FAILED:
        return f"Its environment could not be built: {environment.error}"
    if environment is not None and environment.state != environment.State.READY:
        # It may fit once that is built.
        return ""
    lacks = version.environment_fit.get("verdict") == "lacks"
    # Without trust no engine tries to load it, whatever is installed.
    if not lacks or not version.registered_model.trusted:
        return ""
    findings = version.environment_fit.get("findings", [])
    return " ".join(str(finding) for finding in findings)


def _problem(version: ModelVersion) -> str:
    """Return why it cannot be loaded until somebody acts; empty: nothing is known."""
    if version.artifact_state == ModelVersion.ArtifactState.FAILED:
        return f"Its artifact could not be fetched: {version.artifact_error}"
    return version.serving_problem or " ".join(map(str, version.metadata_errors))


def needs_trust(version: ModelVersion) -> bool:
    """Return whether it runs its author's code, which nobody has trusted yet.

    Whether a torch model does is known only once its artifact is here.
    """
    flavors = tuple(version.flavors)
    if version.registered_model.trusted or "python_function" not in flavors:
        return False
    if "pytorch" not in flavors:
        return True
    path = settings.HOME.artifacts / version.artifact_digest
    is_here = version.artifact_state == ModelVersion.ArtifactState.READY
    return is_here and path.is_dir() and not wishes.is_program(str(path), flavors)


def _waits_for(version: ModelVersion, environment: ModelEnvironment | None) -> str:
    if version.artifact_state == ModelVersion.ArtifactState.REMOTE:
        return "Its artifact is not in the local cache yet."
    if environment is None:
        return ""
    return _BUILDING.get(environment.state, "")
