"""One stream of a connection: its windows, and what a protocol above does with it."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable
from typing import Protocol

from inference.gateway.http2.frames import Code, StreamFault
from inference.gateway.http2.limits import STREAM_WINDOW


class Granting(Protocol):
    """Room for large messages, beyond a stream's window."""

    def ask(self, stream: "Stream", count: int) -> None: ...

    def give_back(self, stream: "Stream") -> None: ...


class Carrier(Protocol):
    """A connection as a stream sees it: what it may do with its client."""

    client: str

    @property
    def grants(self) -> Granting: ...

    def answer(
        self, stream: "Stream", prefix: bytes, body: bytes, trailers: bytes
    ) -> None: ...

    def refuse(self, stream: "Stream", block: bytes) -> None: ...

    def send(self, stream: "Stream", prefix: bytes, body: bytes) -> None: ...

    def end(self, stream: "Stream", trailers: bytes) -> None: ...

    def open_window(self, stream: "Stream", count: int) -> None: ...

    def give_up(self, stream: "Stream") -> None: ...

    def abort(self) -> None: ...


class Stream(ABC):
    """Whoever answers one request; called by its connection."""

    __slots__ = (
        "asking",
        "begun",
        "body_left",
        "closed",
        "connection",
        "ended",
        "extra_window",
        "granted_bytes",
        "known",
        "outgoing",
        "owner",
        "stream_id",
        "stuck_since",
        "trailers",
        "unseen_bytes",
        "window",
    )

    def __init__(self, connection: Carrier, stream_id: int) -> None:
        self.connection = connection
        self.stream_id = stream_id
        # The client has said all; nobody says anything more.
        self.ended = self.closed = False
        # What is left of the length that the client announced, if it did.
        self.body_left: int | None = None
        # What the client may still send; what of it is for a large message.
        self.window = STREAM_WINDOW
        self.granted_bytes = 0
        self.asking = False
        # The customer, or the stranger's address, whose share of all calls it uses.
        self.owner: Hashable | None = None
        # Whoever opened it has a key.
        self.known = False
        # Of the head that opened it, if it was not seen before; given back to those who
        # are known once it is answered.
        self.unseen_bytes = 0
        # What we may send beyond the window that the client's settings give.
        self.extra_window = 0
        # Whether the head of the answer has been sent; what of it waits, since when.
        self.begun = False
        self.outgoing: deque[memoryview] | None = None
        self.trailers: bytes | None = None
        self.stuck_since = 0.0

    def count_body(self, size: int) -> None:
        """Hold the client to the length that it announced (RFC 9113, section 8.1.1)."""
        if self.body_left is None:
            return
        self.body_left -= size
        if self.body_left < 0 or (self.ended and self.body_left):
            raise StreamFault(Code.PROTOCOL_ERROR, "DATA is not of its content-length")

    @abstractmethod
    def opened(self) -> None:
        """Begin; what the client sends comes later, if `ended` does not say no."""

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Take what the client sent; `ended` tells whether it was the last."""

    @abstractmethod
    def client_left(self) -> None:
        """Give up: nothing can be answered any more."""

    @abstractmethod
    def sweep(self, now: float) -> None:
        """Look whether the client takes too long; `now` is of the listener's clock."""

    @abstractmethod
    def granted(self) -> None:
        """Learn that the client may send what was asked for."""

    @abstractmethod
    def sent(self) -> None:
        """Learn that what was waiting has been written."""

    @abstractmethod
    def drain(self) -> None:
        """End soon: the server is going away."""

    @abstractmethod
    def cut_off(self) -> None:
        """End now: the server is gone in a moment."""
