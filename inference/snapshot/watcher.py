"""Following the snapshot file."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from inference.snapshot.contents import Delta
from inference.snapshot.snapshot_file import SnapshotCorrupt, SnapshotReader
from inference.snapshot.tables import MissedDelta, Tables

logger = structlog.get_logger(__name__)

_POLL_S = 0.15
# The loop is held so long at a time, and is free for as long at least in between.
_TURN_S = 0.001
_PAUSE_S = 0.002


class SnapshotWatcher:
    """Keeps tables equal to the file; they keep what they have if it is damaged."""

    def __init__(
        self,
        path: Path,
        tables: Tables,
        *,
        on_change: Callable[[Delta], None] = lambda _: None,
    ) -> None:
        """`on_change` is called with the last part of each delta, when it is taken."""
        self._reader = SnapshotReader(path)
        self._tables = tables
        self._on_change = on_change

    def look(self) -> bool:
        """Take over all that is new; return whether anything was."""
        taken = [delta.last for delta in self._steps()]
        return any(taken)

    async def watch(self) -> None:
        """Take over what is new, again and again, in short turns of the loop."""
        while True:
            await asyncio.sleep(_POLL_S)
            began = time.perf_counter()
            for _ in self._steps():
                if time.perf_counter() - began > _TURN_S:
                    await asyncio.sleep(_PAUSE_S)
                    began = time.perf_counter()

    def _steps(self) -> Iterator[Delta]:
        """Take over one part after the other, and stop after each."""
        try:
            for delta in self._reader.parts():
                self._tables.take(delta)
                if delta.last:
                    self._on_change(delta)
                    logger.info(
                        "snapshot_taken", sequence=delta.sequence, base=delta.base
                    )
                yield delta
        except MissedDelta as missed:
            logger.warning("snapshot_delta_missed", reason=str(missed))
            self._reader.start_over()
        except (SnapshotCorrupt, OSError) as error:
            logger.error("snapshot_unreadable", reason=str(error))
        except Exception:
            # What is served already goes on whatever this one holds.
            logger.exception("snapshot_refused")
            self._reader.give_up()
