"""Store and delete the input files of jobs, in this installation's jobs folder."""

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.core.files.uploadedfile import TemporaryUploadedFile

from inference.codecs.files import row_files as job_rows
from inference.engine.signatures.signature import Signature
from inference.jobs import ids as job_ids
from inference.models import PredictionJob, Upload
from inference.uploads import files as uploaded_files


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request to start a job.

    Exactly one of `lines`, `upload` and `input_uri` is set; `find_file` sets `stored`
    for an `input_uri`.
    """

    model: str
    version: str | None
    options: dict[str, Any]
    # Each holds one JSON instance.
    lines: list[bytes] | None = None
    upload: TemporaryUploadedFile | None = None
    # Names a file that was uploaded before.
    input_uri: str | None = None
    stored: Upload | None = None
    input_format: str = "json"


@dataclass(frozen=True, slots=True)
class StoredInput:
    """The input file of a job; `rows` is None until they are counted."""

    format: str
    # Relative to the jobs folder.
    file: str
    bytes: int
    rows: int | None


# Rows of files up to this size are counted while the caller waits, of larger files by
# the worker.
_COUNT_BYTES = 16 * 1024 * 1024
_ENTRIES_AT_ONCE = 500
# The largest upload may take this long.
_ORPHAN_AGE = timedelta(hours=24)


def store(
    job_id: str, asked: JobRequest, *, signature: Signature, max_rows: int
) -> StoredInput:
    """Store a job's input; raise ApiError if its header or number of rows is wrong.

    An upload is in the jobs folder already, so a rename moves it, whatever its size.
    """
    path = _new_path(job_id, asked.input_format)
    try:
        if asked.upload is not None:
            asked.upload.flush()
            Path(asked.upload.temporary_file_path()).replace(path)
        elif asked.stored is not None:
            uploaded_files.copy(asked.stored, path)
        else:
            with path.open("xb") as file:
                file.writelines(asked.lines or ())
        with path.open("rb") as file:
            reader = job_rows.open_rows(
                file, input_format=asked.input_format, signature=signature
            )
            rows = job_rows.count_rows(
                reader, max_rows=max_rows, max_bytes=_COUNT_BYTES
            )
        _make_durable(path)
    except BaseException:
        remove(job_id)
        raise
    return StoredInput(
        format=asked.input_format,
        file=f"{job_id}/{path.name}",
        bytes=path.stat().st_size,
        rows=rows,
    )


def open_input(job: PredictionJob) -> BinaryIO:
    """Open a job's input for reading."""
    return (settings.HOME.jobs / job.input_file).open("rb")


def remove(job_id: str) -> None:
    """Delete a job's files, if there are any."""
    shutil.rmtree(settings.HOME.jobs / job_id, ignore_errors=True)


def remove_orphans(*, now: datetime) -> int:
    """Delete files that an interruption of any step left behind; return how many."""
    removed = 0
    old = _old_entries(now)
    while entries := list(itertools.islice(old, _ENTRIES_AT_ONCE)):
        names = [entry.name for entry in entries]
        kept = set(
            PredictionJob.objects.needing_input()
            .filter(pk__in=names)
            .values_list("pk", flat=True)
        )
        for entry in entries:
            if not job_ids.is_id(entry.name):
                entry.unlink(missing_ok=True)
            elif entry.name not in kept:
                remove(entry.name)
            else:
                continue
            removed += 1
    return removed


def _old_entries(now: datetime) -> Iterator[Path]:
    oldest = (now - _ORPHAN_AGE).timestamp()
    with os.scandir(settings.HOME.jobs) as entries:
        for entry in entries:
            is_ours = entry.is_file() or job_ids.is_id(entry.name)
            if is_ours and entry.stat().st_mtime < oldest:
                yield Path(entry.path)


def _new_path(job_id: str, input_format: str) -> Path:
    folder: Path = settings.HOME.jobs / job_id
    folder.mkdir(mode=0o700)
    return folder / f"input.{input_format}"


def _make_durable(path: Path) -> None:
    """Make the file private and flush it to the disk, before the job is accepted."""
    path.chmod(0o600)
    for part in (path, path.parent, path.parent.parent):
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
