"""Build the environments that versions wait for, one at a time; remove unused ones.

A file lock lets one worker of this installation build. Its holder knows that a row in
the state `building` is left over from a worker that was killed.
"""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError

from inference.engine.wire.messages import BASE_ENVIRONMENT
from inference.environments import building, folders, needs, pythons, settling
from inference.environments.building import (
    Build,
    BuildFailed,
    BuildStopped,
    Limits,
)
from inference.models import ModelEnvironment, PredictionJob, ServingRoute
from registry import artifacts
from registry.mlflow.model_file import storable
from registry.models import ModelVersion, RegisteredModel
from registry.signals import registry_changed

TASK = "inference.tasks.keep_environments"
# After a failure it is tried again when as much time has passed as since its first try,
# so the pauses double, within these bounds.
FIRST_PAUSE = timedelta(minutes=10)
LONGEST_PAUSE = timedelta(days=1)
_LOG_S = 2.0
_NOTE_USE = timedelta(hours=1)
_State = ModelEnvironment.State

# Set when this process must end.
stopping = threading.Event()
logger = structlog.get_logger(__name__)


def take_turn(*, stopped: Callable[[], bool] = stopping.is_set) -> int:
    """Settle versions, then build what is due; return how many builds began.

    Does nothing more while another worker builds.
    """
    _announce(settling.settle_outdated())
    if not _builds() and not ModelEnvironment.objects.exists():
        return 0
    _ask_for_missing()
    with _only_builder() as alone:
        if not alone:
            return 0
        _recover()
        begun = 0
        while not stopped() and (row := _next_due(timezone.now())) is not None:
            _build(row, stopped=stopped)
            begun += 1
        _remove_unused(timezone.now())
    return begun


def build_again(row: ModelEnvironment) -> bool:
    """Let a failed environment be built now; return False if it did not fail."""
    with transaction.atomic():
        again = ModelEnvironment.objects.filter(pk=row.pk, state=_State.FAILED)
        if not again.update(state=_State.WAITING, error=""):
            return False
        _announce(_models_of(row.pk))
        transaction.on_commit(hint)
    return True


def hint() -> None:
    """Ask a worker to take its turn now; beat asks as well."""
    try:
        current_app.send_task(TASK, retry=False)
    except (OperationalError, OSError) as error:
        logger.warning("build_not_queued", outage="broker", reason=error)


def environment_folders() -> dict[str, str]:
    """Return the folders of the environments that are ready, by their digests."""
    ready = ModelEnvironment.objects.filter(state=_State.READY)
    return {
        digest: str(folder)
        for digest in ready.values_list("digest", flat=True)
        if folders.is_ready(folder := _folder(digest))
    }


def users_of(digest: str) -> QuerySet[ModelVersion]:
    """Return the versions that run in an environment, or wait for it."""
    return ModelVersion.objects.filter(environment=digest).select_related(
        "registered_model"
    ) | ModelVersion.objects.filter(environment_fit__wanted=digest).select_related(
        "registered_model"
    )


@contextmanager
def _only_builder() -> Iterator[bool]:
    with (settings.HOME.environments / "builder.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _builds() -> bool:
    builds: bool = settings.MODELYARD_ENVIRONMENTS == "build"
    return builds


def _folder(digest: str) -> Path:
    folder: Path = settings.HOME.environments / digest
    return folder


def _announce(models: list[str]) -> None:
    """Tell the controller; versions of these models are settled again, too."""
    if models:
        registry_changed.send(sender=ModelEnvironment, models=models)


def _models_of(digest: str) -> list[str]:
    names = users_of(digest).values_list("registered_model__name", flat=True)
    return sorted(set(names))


def _needed() -> list[ModelVersion]:
    """Return the versions that may be called or that jobs need."""
    unfinished = PredictionJob.objects.unfinished().order_by()
    of_jobs = set(unfinished.values_list("model", "version").distinct())
    served: set[tuple[str, int | None]] = set(of_jobs)
    for route in ServingRoute.objects.all():
        served.add((route.model, route.default_version))
        served |= {(route.model, canary.version) for canary in route.canaries}
    models = RegisteredModel.objects.filter(name__in={model for model, _ in served})
    others = ModelVersion.objects.filter(registered_model__in=models)
    fields = (
        "registered_model__name",
        "registered_model__trusted",
        "version",
        "artifact_state",
        "requirements",
        "python_version",
        "environment",
        "environment_fit",
    )
    found = {version.pk: version for version in artifacts.wanted().only(*fields)}
    for version in others.select_related("registered_model").only(*fields):
        if (version.registered_model.name, version.version) in served:
            found[version.pk] = version
    return list(found.values())


def _ask_for_missing() -> None:
    """Make a row for each environment that a needed version waits for."""
    if not _builds():
        return
    wanted: dict[str, ModelVersion] = {}
    for version in _needed():
        digest = version.environment_fit.get("wanted")
        if digest and version.artifact_state == ModelVersion.ArtifactState.READY:
            wanted[digest] = version
    known = set(
        ModelEnvironment.objects.filter(pk__in=wanted).values_list("pk", flat=True)
    )
    for digest in wanted.keys() - known:
        version = wanted[digest]
        ModelEnvironment.objects.bulk_create(
            [
                ModelEnvironment(
                    digest=digest,
                    python=version.environment_fit["python"],
                    requirements=sorted(needs.to_install(version.requirements)),
                )
            ],
            ignore_conflicts=True,
        )
        logger.info("environment_wanted", digest=digest[:12], version=str(version))


def _recover() -> None:
    """Put right what a killed worker or a cleaned disk left behind."""
    left = ModelEnvironment.objects.filter(state__in=(_State.BUILDING, _State.READY))
    for row in left.only("digest", "state"):
        ready = folders.is_ready(_folder(row.digest))
        if ready and row.state == _State.BUILDING:
            _finish(row.digest, state=_State.READY)
        elif not ready:
            _finish(row.digest, state=_State.WAITING)
    known = set(ModelEnvironment.objects.values_list("digest", flat=True))
    for folder in settings.HOME.environments.iterdir():
        if folder.is_dir() and folder.name not in known:
            building.remove(folder)


def _next_due(now: datetime) -> ModelEnvironment | None:
    """Return the environment to build next: new ones first."""
    if not _builds():
        return None
    waiting = ModelEnvironment.objects.filter(state=_State.WAITING)
    if (row := waiting.order_by("created_at").first()) is not None:
        return row
    for row in ModelEnvironment.objects.filter(state=_State.FAILED):
        if row.started_at is None or now >= row.started_at + pause_of(row):
            return row
    return None


def pause_of(row: ModelEnvironment) -> timedelta:
    """Return how long a failed environment waits for its next try."""
    assert row.started_at is not None
    age = row.started_at - row.created_at
    return min(max(age, FIRST_PAUSE), LONGEST_PAUSE)


def _build(row: ModelEnvironment, *, stopped: Callable[[], bool]) -> None:
    started = timezone.now()
    claimed = ModelEnvironment.objects.filter(pk=row.pk, state=row.state)
    if not claimed.update(
        state=_State.BUILDING, started_at=started, error="", log="", built_at=None
    ):
        return
    logger.info("environment_build_started", digest=row.digest[:12])
    program = pythons.find(row.python)
    build = Build(
        folder=_folder(row.digest),
        python=program or Path(f"python{row.python}"),
        lines=row.requirements,
        limits=Limits(
            timeout_s=settings.MODELYARD_ENVIRONMENT_TIMEOUT_S,
            max_bytes=settings.MODELYARD_ENVIRONMENT_MAX_BYTES,
        ),
        watch=_LogKeeper(row.digest),
        stopped=stopped,
    )
    try:
        if program is None:
            raise BuildFailed(f"python{row.python} is not installed on this machine.")
        built = build.run()
    except BuildStopped:
        _finish(row.digest, state=_State.WAITING)
        return
    except BuildFailed as error:
        building.remove(build.folder)
        _finish(row.digest, state=_State.FAILED, error=str(error), log=build.log)
        return
    _finish(row.digest, state=_State.READY, log=build.log, size=built.size_bytes)


def _finish(
    digest: str, *, state: str, error: str = "", log: bytes = b"", size: int = 0
) -> None:
    """Store the outcome, and settle the versions that wait for it."""
    values: dict[str, object] = {"state": state, "error": storable(error)}
    if log:
        values["log"] = _text(log)
    if state == _State.READY:
        values |= {"built_at": timezone.now(), "used_at": timezone.now()}
        built = folders.built(_folder(digest))
        values["size_bytes"] = built.size_bytes if built else size
    with transaction.atomic():
        ModelEnvironment.objects.filter(pk=digest).update(**values)
        _announce(_models_of(digest))
    logger.info("environment", digest=digest[:12], state=state, error=error)


class _LogKeeper:
    """Store the output of a build every few seconds, for people who watch it."""

    def __init__(self, digest: str) -> None:
        self._row = ModelEnvironment.objects.filter(pk=digest)
        self._stored = b""
        self._next_s = 0.0

    def __call__(self, build: Build) -> None:
        if build.log == self._stored or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _LOG_S
        try:
            self._row.update(log=_text(build.log))
        except DatabaseError:
            # It is stored when the build ends, too.
            connection.close()
            return
        self._stored = build.log


def _text(log: bytes) -> str:
    return storable(log.decode(errors="replace"))


def _remove_unused(now: datetime) -> None:
    """Remove environments that no needed version has used for some days."""
    used = {BASE_ENVIRONMENT}
    for version in _needed():
        used |= {version.environment, version.environment_fit.get("wanted", "")}
    rows = ModelEnvironment.objects.exclude(state=_State.BUILDING)
    rows.filter(pk__in=used).exclude(used_at__gt=now - _NOTE_USE).update(used_at=now)
    oldest = now - timedelta(days=settings.MODELYARD_ENVIRONMENT_KEEP_DAYS)
    for digest, used_at, created_at in rows.exclude(pk__in=used).values_list(
        "digest", "used_at", "created_at"
    ):
        if (used_at or created_at) >= oldest:
            continue
        # First the row: a folder without one is removed at the next turn.
        with transaction.atomic():
            ModelEnvironment.objects.filter(pk=digest).delete()
            _announce(_models_of(digest))
        building.remove(_folder(digest))
        logger.info("environment_removed", digest=digest[:12])
