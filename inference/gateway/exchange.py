"""What a connection knows of those who answer its requests, and of its place."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from inference.errors import ApiError

if TYPE_CHECKING:
    from inference.gateway.connection import Connection
    from inference.gateway.heads import KnownHeads
    from inference.gateway.large_body import LargeBodies

Headers = Sequence[tuple[bytes, bytes]]


class Request(NamedTuple):
    """The head of one request; names of headers are in lower case."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    http_1_0: bool
    keep_alive: bool


class Reading(NamedTuple):
    """What an application makes of a head, before there is a body."""

    open: "Callable[[Connection], Exchange]"
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


class Place(Protocol):
    """What connections share: their listener."""

    # The line of an answer's head that gives the time.
    date_line: bytes
    heads: "KnownHeads"
    large_bodies: "LargeBodies"

    def read(self, request: Request) -> Reading: ...

    def join(self, connection: "Connection") -> bool:
        """Count one more connection; False: there are too many."""

    def leave(self, connection: "Connection") -> None: ...

    def note_cut_off(self) -> None:
        """Count a client that read too slowly."""

    def now(self) -> float: ...

    def refusal(self, error: ApiError) -> tuple[int, Headers, bytes]:
        """Render an error for a request that could not be read."""
