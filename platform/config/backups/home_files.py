"""Choose the files of a home that a backup holds, and keep them until the copy."""

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from django.conf import settings
from django.utils import timezone

from accounts.metering import spool
from accounts.models import SpoolSegment
from config.backups.archive import Refused
from inference.installation.home import Home
from inference.models import PredictionJob, Upload

MLFLOW_DATABASE = "mlflow/mlflow.db"


@dataclass(slots=True)
class HeldFiles:
    """Files that are open, so that they can be read even if they are deleted now."""

    files: dict[str, IO[bytes]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@contextlib.contextmanager
def held(home: Home) -> Iterator[HeldFiles]:
    """Open the files that the database, as this transaction sees it, needs.

    Of the spool these are the segments that are not counted to their end. They may have
    grown since; what is behind the counted offset is counted after a restore.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.ExitStack() as stack:
        found = HeldFiles()
        for name, wanted in _wanted(home).items():
            try:
                found.files[name] = stack.enter_context((home.root / name).open("rb"))
            except FileNotFoundError:
                if wanted:
                    found.missing.append(name)
            except OSError as error:
                raise Refused(f"{name} cannot be read: {error.strerror}.") from error
        yield found


def _wanted(home: Home) -> dict[str, bool]:
    """Return the names of files; False: it may be deleted at any time."""
    counted = dict(SpoolSegment.objects.values_list("name", "completed_at"))
    there = [path.name for path in home.spool.glob(f"*{spool.SUFFIX}")]
    # The controller deletes no segment that is not counted.
    uncounted = {name for name, at in counted.items() if at is None}
    segments = uncounted | {name for name in there if not counted.get(name)}
    wanted = {f"spool/{name}": True for name in sorted(segments)}
    jobs = PredictionJob.objects.needing_input().exclude(input_file="")
    for name in jobs.values_list("input_file", flat=True):
        wanted[f"jobs/{name}"] = True
    if not settings.UPLOAD_STORAGE:
        uploads = Upload.objects.filter(expires_at__gt=timezone.now())
        for name in uploads.exclude(file="").values_list("file", flat=True):
            wanted[f"uploads/{name}"] = True
    if holds_models(home):
        for path in sorted(home.mlflow.rglob("*")):
            name = path.relative_to(home.root).as_posix()
            if path.is_file() and not name.startswith(MLFLOW_DATABASE):
                wanted[name] = False
    return wanted


def holds_models(home: Home) -> bool:
    """Return whether MLflow is a file of this home, so its models are only here."""
    return str(home.mlflow) in settings.MLFLOW_TRACKING_URI


def copy_mlflow(home: Home, path: Path) -> None:
    """Copy MLflow's own database as it is now."""
    with (
        contextlib.closing(sqlite3.connect(home.root / MLFLOW_DATABASE)) as source,
        contextlib.closing(sqlite3.connect(path)) as target,
    ):
        source.backup(target)


def move_mlflow(path: Path, *, before: str, now: str) -> None:
    """Let MLflow's database name artifacts in the folder where they are now."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for column in database.execute(f'PRAGMA table_info("{table}")').fetchall():
                if "CHAR" in column[2].upper() or column[2].upper() == "TEXT":
                    database.execute(
                        f'UPDATE "{table}" SET "{column[1]}" = replace("{column[1]}",'
                        f' ?, ?) WHERE instr("{column[1]}", ?)',
                        (f"{before}/", f"{now}/", f"{before}/"),
                    )


def check_unused(home: Home) -> None:
    """Raise Refused if a home holds anything that a restore would replace or mix."""
    for folder in (home.spool, home.jobs, home.uploads, home.mlflow, home.artifacts):
        if folder.exists() and (first := next(folder.iterdir(), None)) is not None:
            raise Refused(
                f"The home {home.root} is used already: it holds {first.name} in "
                f"{folder.name}. Restore into an empty home: MODELYARD_HOME=FOLDER"
            )
    if home.snapshot.exists():
        raise Refused(f"The home {home.root} is used already: it has a snapshot.")


def place(home: Home, name: str) -> Path:
    """Return where a file of a backup belongs; raise Refused."""
    path = PurePosixPath(name)
    known = path.parts[0] in ("spool", "jobs", "uploads", "mlflow", "secret_key")
    if not known or path.is_absolute() or ".." in path.parts:
        raise Refused(f"The backup holds a file that has no place: {name}")
    return home.root / path
