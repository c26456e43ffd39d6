"""The reading end of a stream, for clients on an event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from inference.engine.frames import MalformedFrame
from inference.engine.messages import StreamChunk

# Chunks on their way or unread at most; half of it is granted anew each time.
WINDOW = 32


class Inbox:
    """Holds chunks until they are read, and grants more as they are.

    It is the Waiter of a stream. `grant` is called while the stream goes on only.
    """

    def __init__(self, grant: Callable[[int], None]) -> None:
        self._grant = grant
        # Values of the first kind, or the error that ended the stream, or None.
        self._arrived: asyncio.Queue[tuple[Any] | Exception | None] = asyncio.Queue()
        self._read = 0
        self.finished = False

    # Waiter

    def resume(self, value: Any) -> None:
        """Take a StreamChunk or the StreamEnd; raise MalformedFrame."""
        if isinstance(value, StreamChunk):
            self.put(value.chunk)
        else:
            self.end()

    def fail(self, error: Exception) -> None:
        self.finished = True
        self._arrived.put_nowait(error)

    # The stream

    def put(self, chunk: msgspec.Raw) -> None:
        self._arrived.put_nowait((read_chunk(chunk),))

    def end(self) -> None:
        self.finished = True
        self._arrived.put_nowait(None)

    async def chunks(self) -> AsyncGenerator[Any, None]:
        """Give the chunks; raise what the stream failed with."""
        while True:
            arrived = await self._arrived.get()
            if arrived is None:
                return
            if isinstance(arrived, Exception):
                raise arrived
            self._read += 1
            if self._read == WINDOW // 2:
                self._read = 0
                if not self.finished:
                    self._grant(WINDOW // 2)
            yield arrived[0]


def read_chunk(chunk: msgspec.Raw) -> Any:
    try:
        return msgspec.msgpack.decode(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFrame("a chunk is no value") from error
