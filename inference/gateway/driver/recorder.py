"""Write usage events to the spool, all of one turn of the event loop at once."""

import asyncio
from typing import Protocol

import structlog

from accounts.metering.event import UsageEvent
from accounts.metering.spool import SpoolUnavailable, SpoolWriter, encode_event

logger = structlog.get_logger(__name__)

_SYNC_S = 0.1
_MEASURE_S = 1.0


class Recording(Protocol):
    """A call whose answer waits until its event is written."""

    def recorded(self) -> None: ...

    def unrecorded(self) -> None:
        """Refuse the call: its event could not be written, so it is not metered."""


class Recorder:
    """Hold answers until their events are written."""

    def __init__(self, writer: SpoolWriter) -> None:
        self.writer = writer
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._waiting: list[Recording] = []
        self.failing = False

    def record(self, event: UsageEvent, waiting: Recording) -> None:
        """Write the event at the end of this turn of the loop, then call `waiting`."""
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
            self.writer.append_encoded(frames)
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
        """Sync the spool to disk ten times a second, in a thread of its own.

        Once a second, test whether the disk takes more. A gateway without calls must
        know this too, and one that gets no calls because the disk failed must recover.
        """
        measured = 0.0
        while True:
            await asyncio.sleep(_SYNC_S)
            try:
                if self.writer.dirty:
                    await asyncio.to_thread(self.writer.sync)
                now = self._loop.time()
                if now - measured >= _MEASURE_S:
                    measured = now
                    self.writer.measure()
                    await asyncio.to_thread(self.writer.probe)
                    self._note(None)
            except SpoolUnavailable as error:
                self._note(error)

    def _note(self, error: SpoolUnavailable | None) -> None:
        if error is not None and not self.failing:
            logger.error("spool_unavailable", outage="spool", reason=str(error))
        elif error is None and self.failing:
            logger.info("spool_available", outage_over="spool")
        self.failing = error is not None

    def close(self) -> None:
        self.flush()
        self.writer.close()
