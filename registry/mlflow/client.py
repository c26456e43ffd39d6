"""Query MLflow: the only module outside the engine that imports `mlflow`.

Functions import MLflow when they run, because that takes seconds and 100 MB of memory.
Only the worker and commands call them, so web processes need not pay for it.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from registry.mlflow import artifact_sources, model_file, requirements_file
from registry.mlflow.artifact_sources import ArtifactSource
from registry.mlflow.model_file import storable
from registry.mlflow.types import (
    ArtifactRefused,
    ModelFile,
    RegistryUnreachable,
    RemoteModel,
    RemoteVersion,
    Training,
)

log = structlog.get_logger(__name__)

_PAGE = 1000
_MAX_METRICS = 50
_MAX_PARAMS = 100
_LONGEST_PARAM = 500
# What MLflow's own API takes of a tag of a version. Some of its stores bound nothing,
# and a page must not show megabytes.
_LONGEST_TAG = 5000
_MAX_TAGS = 200
_LONGEST_DESCRIPTION = 100_000
# An absent server must cost a sync seconds, not the minutes that MLflow's defaults
# allow. MLflow reads these from the environment only.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_NO_ACCESS = (
    "Our account in MLflow may not do this: give it the permission, or check the name "
    "and the password in MLFLOW_TRACKING_URI."
)
# What to do about the codes of MLflow's errors.
_HINTS = {
    "RESOURCE_DOES_NOT_EXIST": "It does not exist there any more.",
    "PERMISSION_DENIED": _NO_ACCESS,
    "UNAUTHENTICATED": _NO_ACCESS,
}


class MlflowRegistry:
    """A ModelRegistry at a tracking URI, which names a database or a server."""

    def __init__(
        self, tracking_uri: str, *, artifact_folders: tuple[Path, ...] = ()
    ) -> None:
        """Connect lazily.

        `artifact_folders`: the folders on this machine's disk that a *server* may name
        as a source of artifacts; a local database may name any folder.
        """
        self._uri = tracking_uri
        self._folders = artifact_folders
        self._client: Any = None  # MlflowClient; its type would import mlflow

    def models(self) -> list[RemoteModel]:
        with self._answering("list its models"):
            client = self._connect()
            registered = _all_pages(client.search_registered_models)
            versions: dict[str, list[RemoteVersion]] = {}
            for version in _all_pages(client.search_model_versions):
                versions.setdefault(version.name, []).append(_remote_version(version))
            return [
                RemoteModel(
                    name=model.name,
                    description=_cut(model.description or "", _LONGEST_DESCRIPTION),
                    tags=_tags(model.tags),
                    aliases={
                        storable(alias): int(number)
                        for alias, number in model.aliases.items()
                    },
                    versions=tuple(versions.get(model.name, ())),
                )
                for model in registered
                if _is_storable(model.name)
            ]

    def training(self, name: str, version: RemoteVersion) -> Training:
        """Return the run's metrics and parameters, and whose run it was.

        The metrics of the logged model itself override those of the run.
        """
        with self._answering(f"show the metrics of {name} v{version.version}"):
            client = self._connect()
            found: dict[str, float] = {}
            params: dict[str, str] = {}
            user = ""
            if version.run_id:
                run = _unless_deleted(lambda: client.get_run(version.run_id))
                found |= run.data.metrics if run else {}
                params = run.data.params if run else {}
                user = run.data.tags.get("mlflow.user", "") if run else ""
            model_id = _logged_model_id(version.source)
            if model_id:
                logged = _unless_deleted(lambda: client.get_logged_model(model_id))
                entries = (logged.metrics or []) if logged else []
                found |= {entry.key: entry.value for entry in entries}
        # `system/` holds processor and memory load during training.
        names = sorted(key for key in found if not key.startswith("system/"))
        kept = {key: found[key] for key in names[:_MAX_METRICS]}
        return Training(
            metrics=model_file.plain(kept),
            params={
                storable(key): storable(params[key])[:_LONGEST_PARAM]
                for key in sorted(params)[:_MAX_PARAMS]
            },
            user=storable(user)[:255],
        )

    def model_file(self, name: str, version: int) -> ModelFile:
        with self._answering(f"show the description of {name} v{version}"):
            source = self._source(name, version)
            mlmodel = source.read("MLmodel", max_bytes=model_file.MAX_MLMODEL_BYTES)
            if mlmodel is None:
                raise ArtifactRefused(
                    "The artifact has no MLmodel file; log it with MLflow's log_model."
                )
            example = source.read(
                "serving_input_example.json", max_bytes=model_file.MAX_EXAMPLE_BYTES
            )
            described = model_file.parse(mlmodel, example=example)
            asked = requirements_file.read(
                _requirement_files(source, python_is_known=bool(described.python)),
                python=described.python,
            )
        return replace(described, requirements=asked.lines, python=asked.python)

    def download(self, name: str, version: int, *, into: Path, max_bytes: int) -> None:
        with self._answering(f"hand out the artifact of {name} v{version}"):
            self._source(name, version).copy(into, max_bytes=max_bytes)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        with self._answering(f"move the alias {alias} of {name} to v{version}"):
            self._connect().set_registered_model_alias(name, alias, str(version))

    def _connect(self) -> Any:
        if self._client is not None:
            return self._client
        database = _sqlite_path(self._uri)
        if database is not None and not database.exists():
            # MLflow would create it, which takes half a minute.
            raise RegistryUnreachable(
                f"There is no MLflow store at {database} yet. Register a first model, "
                "or point MLFLOW_TRACKING_URI to your MLflow."
            )
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient  # heavy; see the module's docstring

        self._client = MlflowClient(self._uri, self._uri)
        return self._client

    def _source(self, name: str, version: int) -> ArtifactSource:
        uri = self._connect().get_model_version_download_uri(name, str(version))
        return artifact_sources.at(
            uri,
            tracking_uri=self._uri,
            folders=self._folders,
            open_remote=self._open_remote,
        )

    def _open_remote(self, uri: str) -> "RemoteSource":
        # Heavy; see the module's docstring.
        from mlflow.store.artifact.artifact_repository_registry import (
            get_artifact_repository,
        )

        return RemoteSource(get_artifact_repository(uri, tracking_uri=self._uri))

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """Turn any error of a store into one sentence without credentials."""
        try:
            yield
        except (ArtifactRefused, RegistryUnreachable):
            raise
        except Exception as error:
            # MLflow passes on errors of SQLAlchemy, requests, botocore and others,
            # whose texts may quote URIs with passwords.
            reason = getattr(error, "error_code", None) or type(error).__name__
            hint = _HINTS.get(
                reason, "Check that it runs and that MLFLOW_TRACKING_URI is right."
            )
            raise RegistryUnreachable(
                f"MLflow at {shown_uri(self._uri)} did not {what} ({reason}). {hint}"
            ) from error


def _requirement_files(
    source: ArtifactSource, *, python_is_known: bool
) -> dict[str, bytes | None]:
    """Read the files that say what the artifact needs, and no more than are needed."""
    files: dict[str, bytes | None] = {}
    for name in ("requirements.txt", "conda.yaml", "python_env.yaml"):
        if (name == "conda.yaml" and "requirements.txt" in files) or (
            name == "python_env.yaml" and python_is_known
        ):
            continue
        try:
            content = source.read(name, max_bytes=requirements_file.MAX_BYTES)
        except ArtifactRefused:
            # It must not keep the version from being described.
            files[name] = None
        else:
            if content is not None:
                files[name] = content
    return files


class RemoteSource:
    """An artifact on a server or in an object store, read through MLflow."""

    def __init__(self, repository: Any) -> None:
        # mlflow's ArtifactRepository; its type would import mlflow
        self._repository = repository
        # What lies in its topmost folder; asked once.
        self._entries: dict[str, Any] | None = None

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        if self._entries is None:
            listed = self._repository.list_artifacts()
            self._entries = {entry.path: entry for entry in listed}
        entry = self._entries.get(path)
        if entry is None or entry.is_dir:
            return None
        _require_size(entry.file_size or 0, max_bytes)
        with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
            self._repository.download_artifacts(path, folder)
            copied = Path(folder) / path
            _require_size(copied.stat().st_size, max_bytes)
            return copied.read_bytes()

    def copy(self, into: Path, *, max_bytes: int) -> None:
        listed = dict(self._list(""))
        _require_size(sum(listed.values()), max_bytes)
        remaining = max_bytes
        for path in listed:
            self._repository.download_artifacts(path, str(into))
            # The received size counts, not the listed one.
            remaining -= (into / path).stat().st_size
            _require_size(0, remaining)

    def _list(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield all files as (relative path, size in bytes); refuse paths outside."""
        pending, seen = [folder], 0
        while pending:
            current = pending.pop()
            for entry in self._repository.list_artifacts(current or None):
                seen += 1
                artifact_sources.require_inside(entry.path, folder=current, seen=seen)
                if entry.is_dir:
                    pending.append(entry.path)
                elif entry.path not in artifact_sources.IGNORED:
                    yield entry.path, entry.file_size or 0


def shown_uri(uri: str) -> str:
    """Return the URI without credentials and without local folders."""
    if (path := _sqlite_path(uri)) is not None:
        return f"the local file {path.name}"
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else parts.path


def _require_size(size: int, limit: int) -> None:
    if size > limit or limit < 0:
        raise ArtifactRefused("The artifact is larger than allowed.")


def _sqlite_path(uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) else None


def _logged_model_id(source: str) -> str:
    prefix = "models:/m-"
    return source.removeprefix("models:/") if source.startswith(prefix) else ""


def _all_pages(search: Callable[..., Any]) -> list[Any]:
    page = search(max_results=_PAGE)
    found = list(page)
    while page.token:
        page = search(max_results=_PAGE, page_token=page.token)
        found += page
    return found


def _remote_version(version: Any) -> RemoteVersion:
    registered_at = datetime.fromtimestamp(version.creation_timestamp / 1000, tz=UTC)
    return RemoteVersion(
        version=int(version.version),
        source=storable(version.source or ""),
        run_id=storable(version.run_id or ""),
        status=storable(version.status or ""),
        registered_at=registered_at,
        description=_cut(version.description or "", _LONGEST_DESCRIPTION),
        tags=_tags(version.tags),
    )


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {
        storable(name): _cut(str(tags[name]), _LONGEST_TAG)
        for name in sorted(tags)[:_MAX_TAGS]
    }


def _cut(text: str, longest: int) -> str:
    text = storable(text)
    return text if len(text) <= longest else f"{text[:longest]}…"


def _is_storable(name: str) -> bool:
    """Return whether our database can store the name unchanged, as queries need it."""
    if storable(name) == name:
        return True
    log.warning("model_name_refused", name=storable(name))
    return False


def _unless_deleted(get: Callable[[], Any]) -> Any:
    from mlflow.exceptions import MlflowException  # heavy; see the module's docstring

    try:
        return get()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
