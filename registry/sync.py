"""Copy models, versions and aliases from MLflow into our own tables.

All queries to MLflow come first and outside any transaction. Then each model that
differs is written in one short transaction of its own. Only aliases are ever deleted:
a model or version that disappears from MLflow is marked as missing, because a route
may still serve it.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.db import DataError, models, transaction
from django.utils import timezone

from registry import artifacts, changes, routes, sync_run
from registry.aliases import following, moving
from registry.mlflow import model_file
from registry.mlflow.patience import Patience
from registry.mlflow.requirements_file import UNKNOWN_PYTHON
from registry.mlflow.types import (
    ArtifactRefused,
    ModelFile,
    ModelRegistry,
    RegistryUnreachable,
    RemoteModel,
    RemoteVersion,
    Training,
)
from registry.models import Alias, ModelVersion, RegisteredModel, Route
from registry.routes import RouteError
from registry.rules import metadata
from registry.signals import registry_changed, rollout_wanted, version_replaced
from registry.sync_run import Outcome

log = structlog.get_logger(__name__)

# Metrics may be logged long after registration, and artifacts that could not be read
# may come back. Each costs MLflow queries, so a sync asks again for at most this many
# versions in use and as many others, chosen at random so that each gets its turn.
AGAIN = 100
# An MLflow or a store of artifacts that is down may answer each question only after
# many seconds. A sync loses no more than this to each of them.
PATIENCE_S = 60.0
CHAMPION = "champion"
_LARGE = (
    "signature",
    "metadata",
    "metadata_errors",
    "input_example",
    "requirements",
    "environment_fit",
)


@dataclass(frozen=True, slots=True)
class _Known:
    """The contents of our tables, read at once; each mapping is by model name.

    Without the large columns: a sync compares those only for versions that it reads
    again.
    """

    models: Mapping[str, RegisteredModel]
    versions: Mapping[str, Mapping[int, ModelVersion]]
    aliases: Mapping[str, Mapping[str, int]]
    routed: frozenset[str]
    # Ids of versions that a route names or that are published.
    in_use: frozenset[int]


@dataclass(frozen=True, slots=True)
class VersionReading:
    """A remote version, its training and MLmodel file; None keeps what is stored."""

    remote: RemoteVersion
    training: Training | None
    file: ModelFile | None
    file_problem: str = ""


def synchronise(registry: ModelRegistry) -> Outcome:
    """Bring tables and artifact cache up to date, unless another sync runs.

    If MLflow cannot be reached, nothing changes and RegistrySync holds the error.
    """
    with sync_run.alone_here() as alone:
        started_at, started = timezone.now(), time.monotonic()
        if not alone or not sync_run.claim(started_at):
            return Outcome(ran=False, error="Another synchronisation is running.")
        outcome = Outcome(ran=True, error="The synchronisation was interrupted.")
        try:
            outcome = _synchronise(registry, now=started_at)
        except Exception as error:
            # A process boundary: people must see that the sync failed, for any reason.
            log.exception("sync failed")
            outcome = Outcome(
                ran=True,
                error=f"The synchronisation failed ({type(error).__name__}). "
                "The log of the worker says more.",
            )
        finally:
            sync_run.release(started_at, outcome, duration_s=time.monotonic() - started)
    return outcome


def _synchronise(registry: ModelRegistry, *, now: datetime) -> Outcome:
    # First, so that MLflow answers with our own moves.
    moving.move_wanted(registry)
    revisions = following.revisions()
    try:
        remote = registry.models()
        known = _read_known()
        readings = _read(registry, remote, known)
    except RegistryUnreachable as error:
        log.warning("mlflow_unreachable", outage="mlflow", reason=str(error))
        return Outcome(ran=True, error=str(error))
    log.info("mlflow_reachable", outage_over="mlflow")
    changed, refused = [], []
    for model in remote:
        if not _differs(model, readings[model.name], known):
            continue
        try:
            if _write_model(model, readings[model.name], now=now):
                changed.append(model.name)
        except DataError as error:
            # Only this model is affected, for example by too long a name.
            log.warning("model not stored", model=model.name, error=str(error))
            refused.append(model.name)
    changed += _mark_missing({model.name for model in remote}, now=now)
    following.follow(remote, known=revisions, promote=_promote)
    not_fetched = artifacts.fetch_wanted(registry)
    outcome = Outcome(
        ran=True,
        error=f"Our database cannot store {', '.join(refused)}." if refused else "",
        models=len(remote),
        versions=sum(len(model.versions) for model in remote),
        changed=tuple(changed),
        not_fetched=tuple(str(version) for version in not_fetched),
    )
    if changed:
        log.info("registry changed", models=changed)
    return outcome


def _read_known() -> _Known:
    models = {model.name: model for model in RegisteredModel.objects.all()}
    names = {model.pk: model.name for model in models.values()}
    versions: dict[str, dict[int, ModelVersion]] = {name: {} for name in models}
    for row in ModelVersion.objects.defer(*_LARGE).order_by().iterator(2000):
        versions[names[row.registered_model_id]][row.version] = row
    aliases: dict[str, dict[str, int]] = {name: {} for name in models}
    for alias in Alias.objects.all():
        aliases[names[alias.registered_model_id]][alias.name] = alias.version_id
    routes = Route.objects.values_list("registered_model__name", flat=True)
    return _Known(
        models=models,
        versions=versions,
        aliases=aliases,
        routed=frozenset(routes),
        in_use=frozenset(artifacts.wanted().values_list("pk", flat=True)),
    )


def _read(
    registry: ModelRegistry, remote: Sequence[RemoteModel], known: _Known
) -> dict[str, list[VersionReading]]:
    """Ask MLflow for trainings and MLmodel files; return readings by model name."""
    trainings, files = _due(remote, known)
    readings: dict[str, list[VersionReading]] = {}
    with_files, with_trainings = Patience(PATIENCE_S), Patience(PATIENCE_S)
    for model in remote:
        readings[model.name] = []
        for version in model.versions:
            asked = (model.name, version.version)
            file, problem = None, ""
            if asked in files and not with_files.has_ended:
                try:
                    with with_files.asking():
                        file = registry.model_file(*asked)
                except (ArtifactRefused, RegistryUnreachable) as error:
                    # The list was answered, so only this artifact's store fails.
                    problem = model_file.storable(str(error))
            training = None
            if asked in trainings and not with_trainings.has_ended:
                training = _training(registry, model.name, version, with_trainings)
            readings[model.name].append(
                VersionReading(
                    remote=version,
                    training=training,
                    file=file,
                    file_problem=problem,
                )
            )
    return readings


def _training(
    registry: ModelRegistry, name: str, version: RemoteVersion, patience: Patience
) -> Training | None:
    """Return how a version was trained; None if MLflow does not say.

    Its run may be another team's. The version is registered all the same, and a later
    sync asks again.
    """
    try:
        with patience.asking():
            return registry.training(name, version)
    except RegistryUnreachable as error:
        log.warning("training_not_read", reason=str(error))
        return None


_Asked = set[tuple[str, int]]


def _due(remote: Sequence[RemoteModel], known: _Known) -> tuple[_Asked, _Asked]:
    """Choose versions whose trainings, and versions whose files, are read now."""
    new: _Asked = set()
    in_use: list[tuple[str, int]] = []
    others: list[tuple[str, int]] = []
    unread: list[tuple[str, int]] = []
    # Described before requirements were read; each is asked for once more.
    without_requirements: list[tuple[str, int]] = []
    not_ready: _Asked = set()
    for model in remote:
        rows = known.versions.get(model.name, {})
        for version in model.versions:
            asked = (model.name, version.version)
            row = rows.get(version.version)
            if version.status not in ("", "READY"):
                not_ready.add(asked)
            if row is None or _is_registered_again(row, version):
                new.add(asked)
                continue
            (in_use if row.pk in known.in_use else others).append(asked)
            # An artifact never changes, so its description is read once.
            if not row.flavors:
                unread.append(asked)
            elif not row.python_version:
                without_requirements.append(asked)
    trainings = new.union(_some(in_use), _some(others))
    used = set(in_use)
    first = [asked for asked in without_requirements if asked in used]
    files = new.union(_some(unread), _some(first or without_requirements))
    return trainings, files - not_ready


def _some(versions: list[tuple[str, int]]) -> list[tuple[str, int]]:
    # This randomness spreads work; no secret depends on it.
    return random.sample(versions, min(AGAIN, len(versions)))


def _differs(
    remote: RemoteModel, readings: list[VersionReading], known: _Known
) -> bool:
    """Return whether anything differs, so that equal models need no transaction."""
    model = known.models.get(remote.name)
    if model is None or _differing(model, _model_fields(remote)):
        return True
    rows = known.versions[remote.name]
    numbers = {reading.remote.version for reading in readings}
    aliases = {
        alias: rows[number].pk
        for alias, number in remote.aliases.items()
        if number in rows
    }
    return (
        not numbers <= rows.keys()
        or aliases != known.aliases[remote.name]
        or (CHAMPION in aliases and remote.name not in known.routed)
        or any(
            row.missing_since is None
            for number, row in rows.items()
            if number not in numbers
        )
        or any(
            _differing(row, _fields(row, reading))
            for reading in readings
            for row in (rows[reading.remote.version],)
        )
    )


def _write_model(
    remote: RemoteModel, readings: list[VersionReading], *, now: datetime
) -> bool:
    """Write one model, its versions and aliases; return whether anything differed."""
    with transaction.atomic():
        model = RegisteredModel.objects.filter(name=remote.name).first()
        model = model or RegisteredModel(name=remote.name)
        changed = _update(model, _model_fields(remote))
        rows = {row.version: row for row in model.versions.all()}
        for reading in readings:
            row = rows.setdefault(
                reading.remote.version,
                ModelVersion(registered_model=model, version=reading.remote.version),
            )
            if row.pk is not None and _is_registered_again(row, reading.remote):
                version_replaced.send(
                    sender=ModelVersion, model=model.name, version=row.version
                )
            changed |= _update(row, _fields(row, reading))
        present = {reading.remote.version for reading in readings}
        for number, row in rows.items():
            if number not in present and row.missing_since is None:
                changed |= _update(row, {"missing_since": now})
        changed |= _write_aliases(model, remote.aliases, rows)
        changed |= _create_first_route(model)
        if changed:
            registry_changed.send(sender=RegisteredModel, models=[model.name])
    return changed


def _model_fields(remote: RemoteModel) -> dict[str, Any]:
    return {
        "description": remote.description,
        "tags": dict(remote.tags),
        "missing_since": None,
    }


def _fields(row: ModelVersion, reading: VersionReading) -> dict[str, Any]:
    remote = reading.remote
    fields: dict[str, Any] = {
        "description": remote.description,
        "source": remote.source,
        "run_id": remote.run_id,
        "mlflow_status": remote.status,
        "registered_at": remote.registered_at,
        "tags": dict(remote.tags),
        "missing_since": None,
    }
    if row.pk is not None and _is_registered_again(row, remote):
        fields |= {
            "flavors": [],
            "signature": {},
            "metadata": {},
            "input_example": None,
            "requirements": [],
            "python_version": "",
            "environment": "base",
            "environment_fit": {},
            "artifact_state": ModelVersion.ArtifactState.REMOTE,
            "artifact_digest": "",
            "artifact_error": "",
        }
    if reading.training is not None:
        fields |= {
            "metrics": dict(reading.training.metrics),
            "params": dict(reading.training.params),
            "trained_by": reading.training.user,
        }
    if reading.file is not None:
        file = reading.file
        problems = [*file.problems, *metadata.check(file.metadata, file.signature)]
        fields |= {
            "flavors": list(file.flavors),
            "signature": dict(file.signature),
            "metadata": file.metadata if isinstance(file.metadata, dict) else {},
            "metadata_errors": problems,
            "input_example": file.input_example,
            "requirements": list(file.requirements),
            "python_version": file.python or UNKNOWN_PYTHON,
        }
    elif reading.file_problem and not row.flavors:
        # What is known of a version is true even if it cannot be read again.
        fields["metadata_errors"] = [reading.file_problem]
    return fields


def _is_registered_again(row: ModelVersion, remote: RemoteVersion) -> bool:
    """Return whether the name was deleted in MLflow and registered again.

    Then the same number is another version. An equal source alone proves nothing:
    another artifact may lie there now.
    """
    return (row.source, row.registered_at) != (remote.source, remote.registered_at)


def _update(row: models.Model, fields: Mapping[str, Any]) -> bool:
    """Set `fields`; write and return True if the row is new or a field differs."""
    differing = _differing(row, fields)
    for name in differing:
        setattr(row, name, fields[name])
    if row.pk is None:
        row.save()
        return True
    if differing:
        row._change_reason = "synchronised"  # type: ignore[attr-defined]  # simple_history
        row.save(update_fields=differing)
    return bool(differing)


def _differing(row: models.Model, fields: Mapping[str, Any]) -> list[str]:
    return [name for name, value in fields.items() if getattr(row, name) != value]


def _write_aliases(
    model: RegisteredModel, remote: Mapping[str, int], rows: dict[int, ModelVersion]
) -> bool:
    wanted = {name: rows[number] for name, number in remote.items() if number in rows}
    gone, changed = [], False
    for alias in model.aliases.all():
        version = wanted.pop(alias.name, None)
        if version is None:
            gone.append(alias.pk)
        else:
            changed |= _update(alias, {"version_id": version.pk})
    if gone:
        Alias.objects.filter(pk__in=gone).delete()
    for name, version in wanted.items():
        Alias.objects.create(registered_model=model, name=name, version=version)
    return changed or bool(gone or wanted)


def _create_first_route(model: RegisteredModel) -> bool:
    """Make a route to the champion of a model that has no route yet."""
    if Route.objects.filter(registered_model=model).exists():
        return False
    champion = model.aliases.filter(name=CHAMPION).select_related("version").first()
    if champion is None or champion.version.missing_since is not None:
        return False
    route = Route(registered_model=model, default_version=champion.version)
    changes.save(route, by=None, reason=f"alias {CHAMPION} at the first sync")
    return True


def _promote(route: Route, version: ModelVersion) -> str:
    """Do what the route says when its alias was moved; return why not, or nothing."""
    if version.serving_problem:
        return f"{version} cannot be served: {version.serving_problem}"
    why = f"the alias {route.alias} was moved to it in MLflow"
    try:
        if route.alias_starts == Route.AliasStarts.ROLLOUT:
            rollout_wanted.send(sender=Route, version=version, why=why)
        else:
            routes.make_default(version, by=None, why=why)
    except RouteError as error:
        return str(error)
    return ""


def _mark_missing(present: set[str], *, now: datetime) -> list[str]:
    missing = RegisteredModel.objects.filter(missing_since=None).exclude(
        name__in=present
    )
    names = []
    for model in missing:
        with transaction.atomic():
            _update(model, {"missing_since": now})
            model.versions.filter(missing_since=None).update(missing_since=now)
            registry_changed.send(sender=RegisteredModel, models=[model.name])
        names.append(model.name)
    return names
