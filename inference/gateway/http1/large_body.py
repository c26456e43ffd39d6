"""A large body of known length, read from the socket straight into its place.

An ordinary protocol is given new bytes for each read, which are joined in the end: two
copies of all of it more than this makes.
"""

import asyncio
from typing import Protocol

# Of a body that is still to come; less comes with its head or soon after it.
_MIN_BYTES = 48 * 1024
_MAX_BYTES = 4 * 1024 * 1024
# Of all at once. Other bodies take no more memory than has come of them.
_MAX_OPEN_BYTES = 64 * 1024 * 1024


class BodyReader(Protocol):
    """A connection whose body is read for it, and which hears of all else."""

    def take_large_body(self, body: bytearray) -> None: ...

    def eof_received(self) -> bool: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class LargeBodies:
    """Those that one listener reads at a time."""

    def __init__(self) -> None:
        self.open_bytes = 0

    def begin(
        self, connection: BodyReader, length: int, beginning: bytes
    ) -> "LargeBody | None":
        """Make room for a body of which so much is here, where that pays."""
        if (
            length - len(beginning) < _MIN_BYTES
            or length > _MAX_BYTES
            or self.open_bytes + length > _MAX_OPEN_BYTES
        ):
            return None
        self.open_bytes += length
        return LargeBody(self, connection, length, beginning)


class LargeBody(asyncio.BufferedProtocol):
    """Stands in for a connection until the body is complete, and reads nothing else."""

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
