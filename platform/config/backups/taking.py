"""Copy a running installation into one file.

1. Begin a transaction that sees the database at one moment.
2. Open the files that it names. If one is gone by now, begin again a moment later.
3. Copy database and files.

Usage events that were written after that moment are in the spool's files, and the
database knows how far they were counted. So after a restore each event counts once.
"""

import contextlib
import fcntl
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO

from django.conf import settings
from django.db import connection
from django.utils import timezone

from config.backups import archive, databases, home_files
from config.backups.archive import ArchiveWriter, Head, Refused
from config.backups.home_files import HeldFiles
from config.processes import secret_key
from config.processes.specs import CREDENTIALS
from inference.installation.home import Home

# Moments that are tried until no file of one is gone.
_MOMENTS = 5
_SETTINGS = (
    "MODELYARD_", "LOG_", "JOB_", "UPLOAD_", "USAGE_", "MLFLOW_", "HTTPS", "HSTS_",
    "ALLOWED_HOSTS", "CSRF_", "DEFAULT_FROM_EMAIL",
)  # fmt: skip


def take(target: Path | None, *, recipients: Sequence[str]) -> Head:
    """Write a backup to a file, or to standard output; raise Refused.

    The file appears when it is complete. The secret key is in it if it is encrypted.
    """
    home: Home = settings.HOME
    try:
        with contextlib.ExitStack() as stack:
            if target is None:
                out: IO[bytes] = sys.stdout.buffer
                beside = home.root / "backup.database.partial"
            else:
                out = stack.enter_context(_whole_file(target))
                beside = target.with_name(f"{target.name}.database.partial")
            file = stack.enter_context(archive.encrypted(out, recipients))
            return _copy(file, home, beside=beside, with_key=bool(recipients))
    except OSError as error:
        where = home.root if target is None else target.parent
        raise Refused(
            f"The backup in {where} failed: {error.strerror}. Nothing is left of it."
        ) from error


def _copy(file: IO[bytes], home: Home, *, beside: Path, with_key: bool) -> Head:
    database = databases.of_this_installation()
    with _moment(database, home) as files:
        head = Head(
            version=metadata.version("modelyard"),
            created_at=timezone.now().isoformat(timespec="seconds"),
            home=str(home.root),
            database=connection.vendor,
            migrations=databases.migrations(),
            sequences=database.sequences(),
            missing=files.missing,
        )
        with archive.writing(file, head) as writer:
            for name, pieces in database.copy(beside):
                writer.add_pieces(f"database/{name}", pieces)
            for name, held in files.files.items():
                _add_file(writer, name, held)
            if home_files.holds_models(home):
                _add_mlflow(writer, home, beside=beside)
            _add_text(writer, "settings.env", settings_without_secrets(os.environ))
            # It may come from the environment, and the home's own not be in use.
            key = secret_key.in_use() if with_key else ""
            if key:
                _add_text(writer, "home/secret_key", key)
    return head


def _add_mlflow(writer: ArchiveWriter, home: Home, *, beside: Path) -> None:
    if not (home.root / home_files.MLFLOW_DATABASE).exists():
        return
    try:
        home_files.copy_mlflow(home, beside)
        with beside.open("rb") as copied:
            _add_file(writer, home_files.MLFLOW_DATABASE, copied)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _moment(database: databases.Database, home: Home) -> Iterator[HeldFiles]:
    for left in reversed(range(_MOMENTS)):
        with database.moment(), home_files.held(home) as files:
            # A job or an upload ended between the two steps, or the file is lost.
            if not files.missing or not left:
                yield files
                return


def settings_without_secrets(environment: Mapping[str, str]) -> str:
    """Return the lines of an environment file."""
    return "".join(
        f"{name}={value}\n"
        for name, value in sorted(environment.items())
        if name.startswith(_SETTINGS)
        and name not in CREDENTIALS
        and name not in ("MODELYARD_HOME", "MODELYARD_PROCESS")
        and "\n" not in value
    )


def _add_file(writer: ArchiveWriter, name: str, file: IO[bytes]) -> None:
    writer.add_file(f"home/{name}", file, os.fstat(file.fileno()).st_size)


def _add_text(writer: ArchiveWriter, name: str, text: str) -> None:
    data = text.encode()
    writer.add_file(name, io.BytesIO(data), len(data))


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that appears when it is complete and on the disk."""
    if path.exists():
        raise Refused(f"{path} exists already.")
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"Another backup is writing {path} now.") from error
        try:
            # A backup that was killed may have left one.
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.link(partial, path)
        except FileExistsError as error:
            raise Refused(f"{path} exists already.") from error
        finally:
            partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
