"""Read the end of a process's log, and keep the log within its size."""

import os
from pathlib import Path

from inference.installation.log_lines import log_files

LINES = 50
_TAIL_BYTES = 16 * 1024
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


def rotate(path: Path, *, most: int = log_files.LOG_BYTES) -> None:
    """Keep a log within its size; a process that prints without end loses most."""
    log_files.rotate(path, most=most, flood=4 * most)
