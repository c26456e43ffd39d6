"""What a connection and those who answer its requests know of each other."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from inference.installation.shares import Shares

Headers = Sequence[tuple[bytes, bytes]]


class Request(NamedTuple):
    """The head of one request; names of headers are in lower case."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    http_1_0: bool
    keep_alive: bool


class Channel(Protocol):
    """A connection as an exchange sees it: what it may do with its client."""

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
    """What an application makes of a head, before there is a body."""

    open: "Callable[[Channel], Exchange]"
    # Says that the same head means the same each time, and is likely to come again.
    recurs: bool = False


class Exchange(Protocol):
    """Whoever answers one request; called by its connection."""

    def start(self) -> None:
        """Begin: it is this request's turn. The body may have come already."""

    def body_received(self, data: bytes | bytearray) -> None: ...

    def body_complete(self) -> None: ...

    def client_left(self) -> None:
        """Give up: nothing can be answered any more."""

    def sweep(self, now: float) -> None:
        """Look whether the client takes too long; `now` is of the listener's clock."""
