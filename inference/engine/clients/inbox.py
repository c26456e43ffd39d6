"""Read the chunks of a stream, and grant the engine credits for more."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import StreamChunk, credits_of

# Most bytes of chunks that are on the way or unread, plus one chunk; a new grant is at
# least half of it. In bytes, because a model may make chunks of any size.
WINDOW = 64 * 1024


class Inbox:
    """Hold a stream's chunks until they are read, and grant credits for more.

    It is the Waiter of the stream. It calls `grant` only until the stream ends.
    """

    def __init__(self, grant: Callable[[int], None]) -> None:
        # Chunks as they came; the last item is an error, or None for a good end.
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
        # A copy, because the chunk is a view that keeps a whole buffer alive.
        self._arrived.put_nowait(bytes(chunk))

    def end(self) -> None:
        self.finished = True
        self._arrived.put_nowait(None)

    async def chunks(self) -> AsyncGenerator[Any, None]:
        """Yield the chunks; raise the error that ended the stream, if any."""
        while True:
            arrived = await self._arrived.get()
            if arrived is None:
                return
            if isinstance(arrived, Exception):
                raise arrived
            yield read_chunk(arrived)
            # The reader asks for more, so it has passed this chunk on.
            if not self.finished:
                self._returns.count(arrived)


class Returns:
    """Count the credits of chunks that were read, and grant them in a few messages."""

    def __init__(self, grant: Callable[[int], None]) -> None:
        self._grant = grant
        self._read = 0

    def count(self, chunk: bytes | msgspec.Raw) -> None:
        self._read += credits_of(chunk)
        if self._read >= WINDOW // 2:
            read, self._read = self._read, 0
            self._grant(read)


def read_chunk(chunk: bytes | msgspec.Raw) -> Any:
    """Decode a chunk; raise EngineError MODEL_ERROR."""
    try:
        return msgspec.msgpack.decode(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the engine sent a chunk that is not a value: {error}"
        raise EngineError(EngineErrorCode.MODEL_ERROR, message) from error
