"""Empty and measure scratch folders, whatever a model has made there."""

import shutil
import subprocess
import threading
import uuid
from pathlib import Path

import structlog

from inference.installation import disk

# More files than that are not counted; nor are folders whose paths are too long, or
# that let nobody read them.
MOST_FILES = 100_000
_REMOVED = ".removed-"
_PATIENCE_S = 60.0
# Only a folder itself; neither command follows the links in it.
_OPEN_AND_REMOVE = '[ -L "$1" ] || chmod -R u+rwX "$1"; rm -rf "$1"'

logger = structlog.get_logger(__name__)


def clear(folder: Path) -> None:
    """Move a folder away and remove it in a thread, because it may hold many files.

    Raises OSError if it cannot be moved.
    """
    aside = folder.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    _remove_soon(aside)


def finish(scratch: Path) -> None:
    """Remove in a thread what an earlier host had moved away."""
    _remove_soon(*scratch.glob(f"{_REMOVED}*"))


def is_removed(folder: Path) -> bool:
    """Return whether a folder is one that was moved away."""
    return folder.name.startswith(_REMOVED)


def _remove_soon(*folders: Path) -> None:
    threading.Thread(target=_remove, args=folders, daemon=True).start()


def _remove(*folders: Path) -> None:
    for folder in folders:
        try:
            # Never through a link: who made this folder is not to be trusted.
            shutil.rmtree(folder)
        except (OSError, RecursionError):
            # A thousand folders in each other, or one that lets nobody in.
            _open_and_remove(folder)


def _open_and_remove(folder: Path) -> None:
    try:
        subprocess.run(
            ("sh", "-c", _OPEN_AND_REMOVE, "sh", str(folder)),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.error("scratch_not_removed", folder=str(folder), reason=str(error))


def measure(folder: Path, *, most_files: int = MOST_FILES) -> int | None:
    """Return the bytes of a folder's files; None if they cannot be counted."""
    return disk.used_bytes(folder, most_files=most_files)
