"""Find the model versions that may be called, and why the others may not.

A version is callable if a route names or serves it or it is published, its artifact is
in the local cache, and its metadata can be read.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from django.db.models import Exists, OuterRef, Q, QuerySet

from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.signatures.signature import (
    Signature,
    UnsupportedSignature,
    with_rules,
)
from inference.engine.wire.messages import (
    BASE_ENVIRONMENT,
    Batching,
    ProcessRules,
    VersionKey,
    VersionToLoad,
)
from inference.models import (
    ModelEnvironment,
    PredictionJob,
    ServingRoute,
    VersionCondition,
)
from inference.snapshot.contents import CallableVersion, Ending
from registry.models import Alias, Deprecation, ModelVersion, RegisteredModel, Route
from registry.shares import canaries

# Columns that routes need not read: their versions are read together with all others.
_NOT_OF_ROUTES = [
    f"{role}__{field}"
    for role in Route.VERSIONS
    for field in ("tags", "metrics", "signature", "metadata", "input_example")
]


class NotCallable(ValueError):
    """The version cannot be served; the text tells people why."""


class NotYetCallable(NotCallable):
    """The version cannot be served yet, but soon without anybody's help."""


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A registered model with its route, serving route, aliases and named versions."""

    model: RegisteredModel
    # None while there is no route or it is disabled.
    route: Route | None = None
    serving: ServingRoute | None = None
    versions: dict[int, ModelVersion] = field(default_factory=dict)
    # Names of the aliases by version.
    aliases: dict[int, list[str]] = field(default_factory=dict)
    # Announced ends by version; None: of the whole model.
    endings: dict[int | None, Ending] = field(default_factory=dict)
    # The environments that were asked for, by digest.
    environments: Mapping[str, ModelEnvironment] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.model.name

    def is_routed(self, number: int) -> bool:
        """Return whether a route names the version or gateways still serve it."""
        named: list[int | None] = []
        if self.route is not None:
            versions = [getattr(self.route, name) for name in Route.VERSIONS]
            named = [version.version for version in versions if version is not None]
        if self.serving is not None:
            named.append(self.serving.default_version)
            named += [canary.version for canary in self.serving.canaries]
        return number in named


def read_catalog(
    *,
    with_jobs: bool = False,
    warm_since: datetime | None = None,
    names: Collection[str] | None = None,
) -> list[CatalogModel]:
    """Read the models with these names, or all, with routes and named versions.

    In a fixed number of queries. `with_jobs` adds versions that unfinished jobs need,
    `warm_since` former defaults: of routes that moved later, and of versions that are
    quarantined.
    """
    models = RegisteredModel.objects.all()
    if names is not None:
        models = models.filter(name__in=names)
    serving = {
        route.model: route for route in _of(names, ServingRoute.objects, by="model")
    }
    routes = {
        route.registered_model_id: route
        for route in _of(names, Route.objects.select_related(*Route.VERSIONS)).defer(
            *_NOT_OF_ROUTES
        )
    }
    versions: dict[int, dict[int, ModelVersion]] = defaultdict(dict)
    named = _of(names, named_versions())
    of_jobs = _versions_of_jobs() if with_jobs else ()
    former = _former_defaults(warm_since) if warm_since is not None else ()
    for version in (*named, *of_jobs, *former):
        versions[version.registered_model_id][version.version] = version
    aliases: dict[int, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for model_id, number, name in _of(
        names, Alias.objects.order_by("name")
    ).values_list("registered_model_id", "version__version", "name"):
        aliases[model_id][number].append(name)
    endings: dict[int, dict[int | None, Ending]] = defaultdict(dict)
    for row in _of(names, Deprecation.objects.select_related("version")):
        number = None if row.version is None else row.version.version
        endings[row.registered_model_id][number] = Ending(
            row.deprecated_at.timestamp(), row.ends_at.timestamp(), row.use_instead
        )
    environments = {
        row.digest: row
        for row in ModelEnvironment.objects.only("digest", "state", "error")
    }
    catalog = []
    for model in models:
        route = routes.get(model.pk)
        catalog.append(
            CatalogModel(
                model=model,
                route=route if route is not None and route.enabled else None,
                serving=serving.get(model.name),
                versions=versions[model.pk],
                aliases=aliases[model.pk],
                endings=endings[model.pk],
                environments=environments,
            )
        )
    return catalog


def _of(
    names: Collection[str] | None, rows: Any, *, by: str = "registered_model__name"
) -> Any:
    """Filter rows by the names of their models; None: all models."""
    return rows.all() if names is None else rows.filter(**{f"{by}__in": names})


def named_versions() -> QuerySet[ModelVersion]:
    """Return the versions that are published, or that a route names or serves."""
    routes = Route.objects.filter(enabled=True)
    is_served = Q()
    for name in ("default_version", *canaries.VERSIONS):
        is_served |= Q(**{name: OuterRef("version")})
    served = ServingRoute.objects.filter(
        is_served, model=OuterRef("registered_model__name")
    )
    named = Q(published=True) | Q(Exists(served))
    for name in Route.VERSIONS:
        named |= Q(pk__in=routes.exclude(**{name: None}).values(name))
    return ModelVersion.objects.filter(named)


def _former_defaults(warm_since: datetime) -> QuerySet[ModelVersion]:
    """Return what should answer at once if people or a quarantine go back to it."""
    quarantined = VersionCondition.objects.filter(
        model=OuterRef("model"), quarantined_at__isnull=False
    )
    routes = ServingRoute.objects.filter(
        Q(moved_at__gt=warm_since) | Q(Exists(quarantined)),
        model=OuterRef("registered_model__name"),
        former_version=OuterRef("version"),
    )
    return ModelVersion.objects.filter(Exists(routes))


def _versions_of_jobs() -> Iterable[ModelVersion]:
    """Return the versions that unfinished jobs need."""
    unfinished = PredictionJob.objects.unfinished().order_by()
    needed = set(unfinished.values_list("model", "version").distinct())
    versions = ModelVersion.objects.filter(
        registered_model__name__in={model for model, _ in needed},
        version__in={version for _, version in needed},
    ).select_related("registered_model")
    # The query combines each name with each number, so some pairs are not needed.
    return [
        version
        for version in versions
        if (version.registered_model.name, version.version) in needed
    ]


def version_to_load(
    entry: CatalogModel, version: ModelVersion, *, artifacts: Path
) -> VersionToLoad:
    """Describe a version to an engine; raise NotCallable with the reason."""
    if version.artifact_state == ModelVersion.ArtifactState.FAILED:
        raise NotCallable(
            f"its artifact could not be fetched: {version.artifact_error}"
        )
    if version.artifact_state != ModelVersion.ArtifactState.READY:
        raise NotYetCallable("its artifact is not in the local cache yet")
    _require_environment(entry, version)
    return VersionToLoad(
        key=VersionKey(entry.name, version.version),
        path=str(artifacts / version.artifact_digest),
        flavors=tuple(str(flavor) for flavor in version.flavors),
        signature=msgspec.to_builtins(_signature(version)),
        trusted=entry.model.trusted,
        batching=_batching(entry, version),
        pinned=entry.is_routed(version.version) or not version.published,
        process=_process(entry, version),
        environment=version.environment,
        deterministic=version.metadata.get("deterministic", True),
    )


def _require_environment(entry: CatalogModel, version: ModelVersion) -> None:
    """Raise NotCallable unless what the version needs is installed."""
    fit = version.environment_fit
    if not entry.model.trusted:
        # The engine refuses its code, and says so.
        return
    if version.environment == BASE_ENVIRONMENT:
        if fit.get("verdict") == "lacks":
            findings = " ".join(fit["findings"])
            raise NotCallable(
                f"its requirements are not met. {findings} An operator can install "
                "what is missing beside Modelyard, or let environments be built "
                "(MODELYARD_ENVIRONMENTS=build)."
            )
        return
    row = entry.environments.get(version.environment)
    if row is None or row.state in (row.State.WAITING, row.State.BUILDING):
        raise NotYetCallable("its environment is being built")
    if row.state == row.State.FAILED:
        raise NotCallable(f"its environment could not be built. {row.error}")


def process_rules(entry: CatalogModel, version: ModelVersion) -> dict[str, Any]:
    """Return the version's own rules, overridden by those of its model and route."""
    said = {**version.metadata.get("process", {}), **entry.model.process}
    replicas = entry.route.replicas if entry.route is not None else None
    if replicas and entry.is_routed(version.version):
        said["replicas"] = replicas
    return said


def _process(entry: CatalogModel, version: ModelVersion) -> ProcessRules:
    said = process_rules(entry, version)
    # The model asks, and an administrator agrees.
    said["network"] = bool(said.get("network")) and entry.model.network
    try:
        return msgspec.convert(said, ProcessRules)
    except (TypeError, msgspec.ValidationError) as error:
        raise NotCallable("its rules for processes cannot be read") from error


def _batching(entry: CatalogModel, version: ModelVersion) -> Batching:
    """Return the version's own batching, overridden by that of its route."""
    own = version.metadata.get("batching", {})
    over = {}
    if entry.route is not None and entry.is_routed(version.version):
        over = entry.route.batching
    try:
        return msgspec.convert({**own, **over}, Batching)
    except (TypeError, msgspec.ValidationError) as error:
        raise NotCallable("its batching cannot be read") from error


def callable_version(
    entry: CatalogModel, version: ModelVersion, *, artifacts: Path
) -> CallableVersion:
    """Describe a version to the gateways; raise NotCallable with the reason."""
    to_load = version_to_load(entry, version, artifacts=artifacts)
    rules = entry.route.input_rules if entry.route else {}
    described = CallableVersion(
        version=version.version,
        signature=_signature(version, rules=rules),
        aliases=tuple(entry.aliases.get(version.version, ())),
        example=version.input_example,
        artifact=version.artifact_digest,
        deterministic=to_load.deterministic,
        repeatable=to_load.process.repeatable,
        ending=entry.endings.get(version.version),
    )
    # A version that cannot be encoded must not keep the others from being published.
    try:
        msgspec.msgpack.encode(described)
    except (OverflowError, TypeError, ValueError):
        return msgspec.structs.replace(described, example=None)
    return described


def _signature(
    version: ModelVersion, *, rules: dict[str, Any] | None = None
) -> Signature:
    if version.metadata_errors:
        problems = "; ".join(str(problem) for problem in version.metadata_errors)
        raise NotCallable(f"its metadata is not valid: {problems}")
    try:
        signature = from_mlflow(version.signature, version.metadata)
        if rules:
            signature = with_rules(signature, rules)
        # Structs check their fields only when decoded, not when created.
        return msgspec.convert(msgspec.to_builtins(signature), Signature)
    except UnsupportedSignature as error:
        raise NotCallable(str(error)) from error
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise NotCallable("its signature or its rules cannot be read") from error


def reasons(*, artifacts: Path) -> list[tuple[str, str]]:
    """Return each version that is not callable until somebody acts, with the reason."""
    left_out = []
    for entry in read_catalog():
        for version in entry.versions.values():
            try:
                callable_version(entry, version, artifacts=artifacts)
            except NotYetCallable:
                continue
            except NotCallable as reason:
                left_out.append((f"{entry.name} v{version.version}", str(reason)))
    return left_out
