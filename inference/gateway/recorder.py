"""Usage events to the spool, all of one turn of the loop at once."""

import asyncio

import structlog

from accounts.usage_event import UsageEvent
from inference.spool import SpoolUnavailable, SpoolWriter, encode_event

logger = structlog.get_logger(__name__)

_SYNC_S = 0.1
_MEASURE_S = 1.0


class Recorder:
    """Answers wait here until their events are written."""

    def __init__(self, writer: SpoolWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self.failing = False

    def record(self, event: UsageEvent) -> "asyncio.Future[None]":
        """Give a future that is done once the event is written.

        It raises SpoolUnavailable if that fails.
        """
        if not self._frames:
            self._loop.call_soon(self.flush)
        future = self._loop.create_future()
        self._frames.append(encode_event(event))
        self._waiting.append(future)
        return future

    def flush(self) -> None:
        frames, waiting = self._frames, self._waiting
        if not frames:
            return
        self._frames, self._waiting = [], []
        try:
            self._writer.append_encoded(frames)
        except SpoolUnavailable as error:
            if not self.failing:
                logger.error("spool_unavailable", reason=str(error))
            self.failing = True
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        self.failing = False
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def keep_synced(self) -> None:
        """Flush to the disk ten times a second, in a thread of its own."""
        measured = 0.0
        while True:
            await asyncio.sleep(_SYNC_S)
            if self._writer.dirty:
                await asyncio.to_thread(self._writer.sync)
            now = self._loop.time()
            if now - measured >= _MEASURE_S:
                measured = now
                self._writer.measure()

    def close(self) -> None:
        self.flush()
        self._writer.close()
