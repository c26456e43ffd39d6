"""Read a large body of known length from the socket straight into one buffer.

An ordinary asyncio protocol gets new bytes for each read and joins them at the end,
which copies the body twice more.
"""

import asyncio
from typing import Protocol

# A smaller rest comes with the head or soon after it, so a buffer would not pay.
_MIN_BYTES = 48 * 1024
_MAX_BYTES = 4 * 1024 * 1024
# For all buffers together. Other bodies take only the memory of the bytes received.
_MAX_OPEN_BYTES = 64 * 1024 * 1024


class BodyReader(Protocol):
    """A connection whose body is read for it, and which handles all other events."""

    def take_large_body(self, body: bytearray) -> None: ...

    def eof_received(self) -> bool: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class LargeBodies:
    """Bound the memory of the large bodies that one listener reads at a time."""

    def __init__(self) -> None:
        self.open_bytes = 0

    def begin(
        self, connection: BodyReader, length: int, beginning: bytes
    ) -> "LargeBody | None":
        """Reserve a buffer for a body that has begun; None if none fits or pays."""
        if (
            length - len(beginning) < _MIN_BYTES
            or length > _MAX_BYTES
            or self.open_bytes + length > _MAX_OPEN_BYTES
        ):
            return None
        self.open_bytes += length
        return LargeBody(self, connection, length, beginning)


class LargeBody(asyncio.BufferedProtocol):
    """Stand in for a connection until its body is complete."""

    def __init__(
        self,
        bodies: LargeBodies,
        connection: BodyReader,
        length: int,
        beginning: bytes,
    ) -> None:
        self._bodies = bodies
        self._connection = connection
        self._memory = bytearray(length)
        self._view = memoryview(self._memory)
        self._have = len(beginning)
        self._memory[: self._have] = beginning

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        self._have += nbytes
        if self._have == len(self._memory):
            self._bodies.open_bytes -= self._have
            self._connection.take_large_body(self._memory)

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._bodies.open_bytes -= len(self._memory)
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
