"""Read the end of a process's log, and keep the log within its size."""

import contextlib
import os
import shutil
from pathlib import Path

LINES = 50
_TAIL_BYTES = 16 * 1024
_LOG_BYTES = 10 * 1024 * 1024
# How our own log lines begin; people look for what the model wrote.
_OWN = b'{"'


def tail(path: Path, *, since: int = 0, lines: int = LINES) -> str:
    """Return the last lines that are not our own, from byte `since` on."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            # A smaller file was emptied meanwhile.
            first = since if since <= size else 0
            file.seek(max(first, size - _TAIL_BYTES))
            found = file.read().splitlines()
    except OSError:
        return ""
    kept = [line for line in found if not line.startswith(_OWN)][-lines:]
    text = b"\n".join(kept).decode("utf-8", "replace")
    return text.replace("\0", "")


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def rotate(path: Path, *, most: int = _LOG_BYTES) -> None:
    """Keep a log within its size while its process appends to it."""
    if size(path) <= most:
        return
    # On a full disk, new lines are worth more than old ones. A process that prints
    # without end leaves the end of it.
    with contextlib.suppress(OSError):
        if size(path) < 4 * most:
            shutil.copyfile(path, path.with_suffix(".log.1"))
    with contextlib.suppress(OSError):
        os.truncate(path, 0)
