"""Keep wanted artifacts in the local cache, the only place engines load from.

Each cached folder is named by the digest of its contents and appears by a rename, so
an engine never sees half an artifact, and equal artifacts are stored once.
"""

import hashlib
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from kombu.exceptions import OperationalError

from registry.mlflow import client
from registry.mlflow.model_file import storable
from registry.mlflow.types import ArtifactRefused, ModelRegistry, RegistryUnreachable
from registry.models import ModelVersion, Route
from registry.signals import registry_changed

log = structlog.get_logger(__name__)

State = ModelVersion.ArtifactState
FETCH_TASK = "registry.tasks.fetch_artifact"
_PARTIAL_PREFIX = ".partial-"
# Older partial folders are left over from a killed worker.
_PARTIAL_MAX_AGE_S = 6 * 3600


def connect() -> client.MlflowRegistry:
    """Return a client for the MLflow that the settings name."""
    return client.MlflowRegistry(
        settings.MLFLOW_TRACKING_URI,
        artifact_folders=tuple(map(Path, settings.MLFLOW_ARTIFACT_FOLDERS)),
    )


def wanted() -> QuerySet[ModelVersion]:
    """Return the versions that may be called: those in a route or published."""
    wanted = Q(published=True)
    for name in Route.VERSIONS:
        named = Route.objects.exclude(**{name: None}).order_by().values(name)
        wanted |= Q(pk__in=named)
    return ModelVersion.objects.filter(wanted).select_related("registered_model")


def fetch_wanted(registry: ModelRegistry) -> list[ModelVersion]:
    """Fetch wanted artifacts that are not cached; return the versions that failed."""
    _remove_leftovers()
    missing = [version for version in wanted() if not is_cached(version)]
    return [version for version in missing if not fetch(version, registry=registry)]


def is_cached(version: ModelVersion) -> bool:
    return (
        version.artifact_state == State.READY
        and (settings.HOME.artifacts / version.artifact_digest).is_dir()
    )


def fetch(version: ModelVersion, *, registry: ModelRegistry | None = None) -> bool:
    """Copy the artifact into the cache and store the outcome; return True if cached."""
    if is_cached(version):
        return True
    try:
        digest = _download(version, registry or connect())
    except (ArtifactRefused, RegistryUnreachable) as error:
        # The error may quote a file name that the database cannot store.
        _note(version, state=State.FAILED, digest="", error=storable(str(error)))
        return False
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problem = f"The artifact cache could not be written: {reason}."
        _note(version, state=State.FAILED, digest="", error=problem)
        return False
    _note(version, state=State.READY, digest=digest, error="")
    return True


class NotAsked(ValueError):
    """No worker was asked for an artifact; the text may be shown to people."""


def ask_for(version: ModelVersion) -> None:
    """Ask a worker to fetch the artifact now; raise NotAsked if that is impossible."""
    if is_cached(version):
        raise NotAsked(f"The artifact of {version} is cached already.")
    if not _queue_fetch(version.pk):
        raise NotAsked(
            "The message broker cannot be reached, so no worker was asked to fetch"
            f" {version}."
        )


def fetch_soon(version: ModelVersion) -> None:
    """Ask a worker to fetch the artifact once the transaction is committed."""
    if not is_cached(version):
        transaction.on_commit(partial(_queue_fetch, version.pk))


def _queue_fetch(version_id: int) -> bool:
    # By the task's name: `registry.tasks` imports this module.
    try:
        current_app.send_task(FETCH_TASK, (version_id,), retry=False)
    except (OperationalError, OSError) as error:
        # The next sync fetches it as well.
        log.warning("fetch_not_queued", version_id=version_id, reason=error)
        return False
    return True


def _download(version: ModelVersion, registry: ModelRegistry) -> str:
    cache: Path = settings.HOME.artifacts
    with tempfile.TemporaryDirectory(prefix=_PARTIAL_PREFIX, dir=cache) as partial_dir:
        folder = Path(partial_dir) / "artifact"
        folder.mkdir()
        registry.download(
            version.registered_model.name,
            version.version,
            into=folder,
            max_bytes=settings.MODELYARD_ARTIFACT_MAX_BYTES,
        )
        digest = _flush_and_digest(folder)
        target = cache / digest
        try:
            folder.rename(target)
        except OSError:
            # The same artifact is cached already, perhaps by another worker.
            if not target.is_dir():
                raise
    return digest


def _flush_and_digest(folder: Path) -> str:
    """Flush all files to the disk; return the digest of their paths and contents."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        if file.is_symlink():
            raise ArtifactRefused("The artifact holds a link.")
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256")
            os.fsync(opened.fileno())
        name = file.relative_to(folder).as_posix().encode(errors="surrogateescape")
        digest.update(len(name).to_bytes(4) + name + content.digest())
    return digest.hexdigest()


def _note(version: ModelVersion, *, state: str, digest: str, error: str) -> None:
    """Store the outcome, unless it is stored already."""
    outcome = (state, digest, error)
    if outcome == (
        version.artifact_state,
        version.artifact_digest,
        version.artifact_error,
    ):
        return
    version.artifact_state, version.artifact_digest, version.artifact_error = outcome
    with transaction.atomic():
        # If another sync replaced the version meanwhile, this outcome is not about it.
        ModelVersion.objects.filter(
            pk=version.pk, source=version.source, registered_at=version.registered_at
        ).update(artifact_state=state, artifact_digest=digest, artifact_error=error)
        registry_changed.send(
            sender=ModelVersion, models=[version.registered_model.name]
        )
    log.info("artifact", version=str(version), state=state, error=error)


def _remove_leftovers() -> None:
    for folder in settings.HOME.artifacts.glob(f"{_PARTIAL_PREFIX}*"):
        if time.time() - folder.stat().st_mtime > _PARTIAL_MAX_AGE_S:
            shutil.rmtree(folder, ignore_errors=True)
