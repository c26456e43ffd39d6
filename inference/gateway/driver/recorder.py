"""Usage events to the spool, all of one turn of the loop at once."""

import asyncio
from typing import Protocol

import structlog

from accounts.metering.event import UsageEvent
from accounts.metering.spool import SpoolUnavailable, SpoolWriter, encode_event

logger = structlog.get_logger(__name__)

_SYNC_S = 0.1
_MEASURE_S = 1.0


class Recording(Protocol):
    """Who waits until an event is written; told in the same turn of the loop."""

    def recorded(self) -> None: ...

    def unrecorded(self) -> None:
        """Learn that it could not be written: what is not metered is not answered."""


class Recorder:
    """Answers wait here until their events are written."""

    def __init__(self, writer: SpoolWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._waiting: list[Recording] = []
        self.failing = False

    def record(self, event: UsageEvent, waiting: Recording) -> None:
        """Write the event at the end of this turn, and tell who waits for it."""
        if not self._frames:
            self._loop.call_soon(self.flush)
        self._frames.append(encode_event(event))
        self._waiting.append(waiting)

    def flush(self) -> None:
        frames, waiting = self._frames, self._waiting
        if not frames:
            return
        self._frames, self._waiting = [], []
        try:
            self._writer.append_encoded(frames)
        except SpoolUnavailable as error:
            self._note(error)
            for recording in waiting:
                recording.unrecorded()
            return
        if self.failing:
            self._note(None)
        for recording in waiting:
            recording.recorded()

    async def keep_synced(self) -> None:
        """Flush to the disk ten times a second, in a thread of its own.

        Once a second it is tried whether the disk takes more: a gateway that nobody
        calls must know it too, and one that was given no calls for it must recover.
        """
        measured = 0.0
        while True:
            await asyncio.sleep(_SYNC_S)
            try:
                if self._writer.dirty:
                    await asyncio.to_thread(self._writer.sync)
                now = self._loop.time()
                if now - measured >= _MEASURE_S:
                    measured = now
                    self._writer.measure()
                    await asyncio.to_thread(self._writer.probe)
                    self._note(None)
            except SpoolUnavailable as error:
                self._note(error)

    def _note(self, error: SpoolUnavailable | None) -> None:
        if error is not None and not self.failing:
            logger.error("spool_unavailable", reason=str(error))
        elif error is None and self.failing:
            logger.info("spool_available")
        self.failing = error is not None

    def close(self) -> None:
        self.flush()
        self._writer.close()
