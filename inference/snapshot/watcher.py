"""Watch the snapshot file, and take its changes over in short turns."""

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
# Longest turn of the event loop, and the least pause between two turns.
_TURN_S = 0.001
_PAUSE_S = 0.002


class SnapshotWatcher:
    """Keeps tables equal to the file; a damaged file leaves them as they are."""

    def __init__(
        self,
        path: Path,
        tables: Tables,
        *,
        on_change: Callable[[Delta], None] = lambda _: None,
    ) -> None:
        """Call `on_change` with the last part of each delta, once it is taken over."""
        self._reader = SnapshotReader(path)
        self._tables = tables
        self._on_change = on_change

    def look(self) -> bool:
        """Take over all new parts; return whether a delta was completed."""
        taken = [delta.last for delta in self._steps()]
        return any(taken)

    async def watch(self) -> None:
        """Take over new parts forever, in short turns of the event loop."""
        while True:
            await asyncio.sleep(_POLL_S)
            began = time.perf_counter()
            for _ in self._steps():
                if time.perf_counter() - began > _TURN_S:
                    await asyncio.sleep(_PAUSE_S)
                    began = time.perf_counter()

    def _steps(self) -> Iterator[Delta]:
        """Take over the new parts, and yield after each."""
        try:
            for delta in self._reader.parts():
                self._tables.take(delta)
                if delta.last:
                    self._on_change(delta)
                    logger.info("snapshot_readable", outage_over="snapshot")
                    logger.info(
                        "snapshot_taken", sequence=delta.sequence, base=delta.base
                    )
                yield delta
        except MissedDelta as missed:
            logger.warning("snapshot_delta_missed", reason=str(missed))
            self._reader.start_over()
        except (SnapshotCorrupt, OSError) as error:
            logger.error("snapshot_unreadable", outage="snapshot", reason=error)
        except Exception:
            # Whatever this file holds, the gateway goes on with what it has.
            logger.exception("snapshot_refused")
            self._reader.give_up()
