"""Fill an empty home and an empty database from a backup."""

import os
import shutil
from pathlib import Path
from typing import IO

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from config.backups import archive, databases, home_files
from config.backups.archive import Head, Refused
from config.processes import schema
from inference.controller import ownership
from inference.installation.home import Home
from inference.models import ControllerLease


def restore(path: Path, *, identity: Path | None) -> tuple[Head, str]:
    """Restore a backup; return its head and its former home. Raises Refused.

    All is checked before anything is written.
    """
    home: Home = settings.HOME
    database = databases.of_this_installation()
    head = archive.verified(path, identity)
    if head.database != connection.vendor:
        raise Refused(
            f"The backup is of {head.database}, and DATABASE_URL names "
            f"{connection.vendor}. Name an empty {head.database} database."
        )
    if unknown := schema.unknown(head.migrations):
        raise Refused(
            f"The backup is of a newer version of Modelyard ({head.version}): this one "
            f"does not know {unknown[0]}. Install that version first."
        )
    home_files.check_unused(home)
    database.check_empty()
    with archive.opened(path, identity) as file, database.filling(head) as fill:
        for name, content, _ in archive.contents(file):
            kind, _, rest = name.partition("/")
            if kind == "database":
                fill(rest, content)
            elif kind == "home":
                _write(home_files.place(home, rest), content)
            elif name == "settings.env":
                _write(home.root / "restored.env", content)
            else:
                raise Refused(f"The backup holds a file that has no place: {name}")
    mlflow = home.root / home_files.MLFLOW_DATABASE
    if mlflow.exists():
        home_files.move_mlflow(mlflow, before=head.home, now=str(home.root))
    call_command("migrate", verbosity=0)
    # It is of the installation that was copied, which may have run just now.
    ControllerLease.objects.all().delete()
    former = ownership.take_over(home, now=timezone.now())
    return head, former


def _write(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{path.name}.partial")
    partial.touch(mode=0o600)
    with partial.open("wb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
