"""Keep log files within their size while their processes write to them."""

import contextlib
import os
import shutil
from pathlib import Path

import structlog

logger = structlog.get_logger(__name__)

# A log file of this size is moved to `….log.1`, replacing the previous one.
LOG_BYTES = 10 * 1024 * 1024


def rotate(path: Path, *, most: int = LOG_BYTES, flood: int | None = None) -> None:
    """Keep a log within `most` bytes; nothing above `flood` bytes is kept.

    The file is copied and then emptied, so the process need not open it again. Only
    lines written between the two steps are lost, at most one.
    """
    nbytes = size(path)
    if nbytes <= most:
        return
    if flood is None or nbytes < flood:
        try:
            shutil.copyfile(path, path.with_suffix(".log.1"))
        except OSError as error:
            # On a full disk, new lines are worth more than old ones.
            logger.warning("log_not_kept", name=path.stem, reason=error.strerror)
    with contextlib.suppress(OSError):
        os.truncate(path, 0)


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
