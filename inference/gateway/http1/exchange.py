"""The interface between an HTTP/1.1 connection and the exchanges that answer it."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from inference.installation.shares import Shares

Headers = Sequence[tuple[bytes, bytes]]


class Request(NamedTuple):
    """The head of one request, with header names in lower case."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    http_1_0: bool
    keep_alive: bool


class Channel(Protocol):
    """What an exchange may do with its connection."""

    client: str

    def invite(self) -> None: ...

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...

    def hold_body(self) -> None: ...

    def release_body(self) -> None: ...

    def answer(self, status: int, headers: Headers, body: bytes) -> None: ...

    def answer_and_close(self, status: int, headers: Headers, body: bytes) -> None: ...

    def begin(self, status: int, headers: Headers, body: bytes = b"") -> None: ...

    def write(self, body: bytes) -> None: ...

    def finish(self, *, keep_alive: bool = True) -> None: ...

    def count_unread(self, unread: Shares, owner: Hashable) -> None: ...

    async def drained(self) -> None: ...

    def abort(self) -> None: ...


class HeadReading(NamedTuple):
    """What an application decides from a request's head, before the body comes."""

    open: "Callable[[Channel], Exchange]"
    # The same bytes always mean the same, and are likely to come again.
    recurs: bool = False


class Exchange(Protocol):
    """Answers one request; its connection calls these methods."""

    def start(self) -> None:
        """Begin to answer: all earlier requests are answered.

        The body may have come already.
        """

    def body_received(self, data: bytes | bytearray) -> None: ...

    def body_complete(self) -> None: ...

    def client_left(self) -> None:
        """Give up: the client has left."""

    def sweep(self, now: float) -> None:
        """End the exchange if its client is too slow; `now` is the listener's time."""
