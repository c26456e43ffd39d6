"""Watching the snapshot file."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from inference import snapshot
from inference.snapshot import Snapshot, SnapshotCorrupt

logger = structlog.get_logger(__name__)

_POLL_S = 0.15


class SnapshotWatcher:
    """Calls `on_change` with every new snapshot; keeps the last good one."""

    def __init__(self, path: Path, on_change: Callable[[Snapshot], None]) -> None:
        self._path = path
        self._on_change = on_change
        # Inode, size and time of change of the file that was read last.
        self._seen: tuple[int, int, int] | None = None

    def look(self) -> bool:
        """Read the file if it is another than before; tell whether it was taken."""
        seen = self._identity()
        if seen is None or seen == self._seen:
            return False
        # Set first: a damaged file is not read again until it is replaced.
        self._seen = seen
        try:
            self._on_change(snapshot.read(self._path))
        except (SnapshotCorrupt, OSError) as error:
            logger.error("snapshot_unreadable", reason=str(error))
            return False
        return True

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                self.look()
            except Exception:
                # The last good snapshot goes on serving whatever this one holds.
                logger.exception("snapshot_refused")

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
