"""Check where an artifact may come from, and copy it without following links.

The author of a version chooses its artifact URI, so each URI is checked before
anything is opened: it must not make this machine read other files of its own or call
hosts of the author's choice.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

from registry.mlflow.types import ArtifactRefused

MAX_FILES = 10_000
# MLflow writes this file into downloaded artifacts; it is not part of the model.
IGNORED = frozenset({"registered_model_meta"})
_OBJECT_STORES = frozenset({"s3", "gs", "wasbs", "abfss", "hdfs", "dbfs"})


class ArtifactSource(Protocol):
    """An artifact folder; both methods raise ArtifactRefused.

    `read` returns None if the file does not exist.
    """

    def read(self, path: str, *, max_bytes: int) -> bytes | None: ...

    def copy(self, into: Path, *, max_bytes: int) -> None: ...


def at(
    uri: str,
    *,
    tracking_uri: str,
    folders: tuple[Path, ...],
    open_remote: Callable[[str], ArtifactSource],
) -> ArtifactSource:
    """Return the artifact at `uri`; a server may only name local `folders`."""
    parts = urlsplit(uri)
    served = urlsplit(tracking_uri).scheme in ("http", "https")
    if parts.scheme in ("", "file"):
        if parts.netloc not in ("", "localhost"):
            raise ArtifactRefused("The artifact's file URI names another host.")
        root = Path(unquote(parts.path))
        if served and not _is_below(root, folders):
            raise ArtifactRefused(
                "The MLflow server names a folder on its own disk. Let the server "
                "hand out artifacts (mlflow-artifacts:), use an object store, or "
                "list the shared folder in MLFLOW_ARTIFACT_FOLDERS."
            )
        return LocalSource(root)
    if parts.scheme == "mlflow-artifacts":
        if parts.netloc not in ("", urlsplit(tracking_uri).netloc.rpartition("@")[2]):
            raise ArtifactRefused("The artifact lies on a host that is not MLflow's.")
        return open_remote(uri)
    if parts.scheme in _OBJECT_STORES:
        return open_remote(uri)
    raise ArtifactRefused(f"Artifacts are not fetched over {parts.scheme!r}.")


class LocalSource:
    """An artifact folder on this machine's disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        require_inside(path, folder="", seen=0)
        file = self._root / path
        if not os.path.lexists(file):
            return None
        if _regular_size(file) > max_bytes:
            raise ArtifactRefused(f"{path} is larger than allowed.")
        return file.read_bytes()

    def copy(self, into: Path, *, max_bytes: int) -> None:
        if not self._root.is_dir():
            raise ArtifactRefused("The artifact's folder does not exist.")
        files = list(self._walk())
        if sum(_regular_size(self._root / path) for path in files) > max_bytes:
            raise ArtifactRefused("The artifact is larger than allowed.")
        for path in files:
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._root / path, target, follow_symlinks=False)

    def _walk(self) -> Iterator[Path]:
        seen = 0
        for folder, folders, files in os.walk(self._root):
            for name in [*folders, *files]:
                seen += 1
                path = Path(folder, name).relative_to(self._root)
                require_inside(path.as_posix(), folder="", seen=seen)
                if (self._root / path).is_symlink():
                    raise ArtifactRefused(f"The artifact holds a link: {path}.")
            for name in files:
                path = Path(folder, name).relative_to(self._root)
                if path.as_posix() not in IGNORED:
                    yield path


def require_inside(path: str, *, folder: str, seen: int) -> None:
    """Raise ArtifactRefused for a path outside its folder, or for too many files."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise ArtifactRefused("The artifact names a path outside its own folder.")
    if folder and not path.startswith(f"{folder}/"):
        raise ArtifactRefused("The artifact names a path outside its own folder.")
    if seen > MAX_FILES:
        raise ArtifactRefused(f"The artifact has more than {MAX_FILES} files.")


def _regular_size(file: Path) -> int:
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactRefused(f"{file.name} is not a plain file.")
    return status.st_size


def _is_below(path: Path, folders: tuple[Path, ...]) -> bool:
    # Resolve first: neither `..` nor a link may lead out of an allowed folder.
    resolved = path.resolve()
    return any(resolved.is_relative_to(folder.resolve()) for folder in folders)
