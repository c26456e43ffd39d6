"""The reading end of a stream, for clients on an event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import StreamChunk, credits_of

# Bytes of chunks on their way or unread, one chunk aside; half of it is granted anew
# each time. A chunk has the size that its model gives it, so a count bounds nothing.
WINDOW = 64 * 1024


class Inbox:
    """Holds chunks until they are read, and grants more as they are.

    It is the Waiter of a stream. `grant` is called while the stream goes on only.
    """

    def __init__(self, grant: Callable[[int], None]) -> None:
        # Chunks as they came, or the error that ended the stream, or None.
        self._arrived: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._returns = Returns(grant)
        self.finished = False

    # Waiter

    def resume(self, value: Any) -> None:
        """Take a StreamChunk or the StreamEnd."""
        if isinstance(value, StreamChunk):
            self.put(value.chunk)
        else:
            self.end()

    def fail(self, error: Exception) -> None:
        self.finished = True
        self._arrived.put_nowait(error)

    # The stream

    def put(self, chunk: msgspec.Raw) -> None:
        # A copy: the chunk would keep all that came with it.
        self._arrived.put_nowait(bytes(chunk))

    def end(self) -> None:
        self.finished = True
        self._arrived.put_nowait(None)

    async def chunks(self) -> AsyncGenerator[Any, None]:
        """Return the chunks; raise what the stream failed with."""
        while True:
            arrived = await self._arrived.get()
            if arrived is None:
                return
            if isinstance(arrived, Exception):
                raise arrived
            yield read_chunk(arrived)
            # Not before the reader wants another: it has passed this one on by now.
            if not self.finished:
                self._returns.count(arrived)


class Returns:
    """Counts what was read of a stream, and gives it back in a few large grants."""

    def __init__(self, grant: Callable[[int], None]) -> None:
        self._grant = grant
        self._read = 0

    def count(self, chunk: bytes | msgspec.Raw) -> None:
        self._read += credits_of(chunk)
        if self._read >= WINDOW // 2:
            read, self._read = self._read, 0
            self._grant(read)


def read_chunk(chunk: bytes | msgspec.Raw) -> Any:
    """Decode a chunk; raise EngineError."""
    try:
        return msgspec.msgpack.decode(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the engine sent a chunk that is not a value: {error}"
        raise EngineError(EngineErrorCode.CONNECTION_LOST, message) from error
