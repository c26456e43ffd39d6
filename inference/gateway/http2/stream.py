"""One HTTP/2 stream: its state, and what the protocol above must implement."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable
from typing import Protocol

from inference.gateway.http2.frames import Code, StreamFault
from inference.gateway.http2.limits import STREAM_WINDOW


class Granting(Protocol):
    """Grants for messages that are larger than a stream's window."""

    def ask(self, stream: "Stream", count: int) -> None: ...

    def give_back(self, stream: "Stream") -> None: ...


class Carrier(Protocol):
    """What a stream may do with its connection."""

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
    """Answers one request; its connection calls these methods."""

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
        # Ended: the client has sent its last frame. Closed: neither side sends more.
        self.ended = self.closed = False
        # Bytes still to come of the content-length, if the client sent one.
        self.body_left: int | None = None
        # Bytes that the client may still send, and those granted for a large message.
        self.window = STREAM_WINDOW
        self.granted_bytes = 0
        self.asking = False
        # The customer, or a stranger's address, whose share of all calls it uses.
        self.owner: Hashable | None = None
        # The client showed a valid key.
        self.known = False
        # What reading its header block cost, if the block was new. A known client gets
        # it back with the answer.
        self.unseen_bytes = 0
        # Bytes that we may send beyond the window of the client's settings, or short of
        # it if negative.
        self.extra_window = 0
        # The head of the answer was sent.
        self.begun = False
        # What waits of the answer's body and its end; since when nothing of it left.
        self.outgoing: deque[memoryview] | None = None
        self.trailers: bytes | None = None
        self.stuck_since = 0.0

    def count_body(self, size: int) -> None:
        """Check the body against content-length (RFC 9113, section 8.1.1)."""
        if self.body_left is None:
            return
        self.body_left -= size
        if self.body_left < 0 or (self.ended and self.body_left):
            raise StreamFault(Code.PROTOCOL_ERROR, "DATA is not of its content-length")

    @abstractmethod
    def opened(self) -> None:
        """Begin; unless `ended`, the client will send more."""

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Take bytes of the body; the last if `ended`."""

    @abstractmethod
    def client_left(self) -> None:
        """Give up: the client has left, or the stream was reset."""

    @abstractmethod
    def sweep(self, now: float) -> None:
        """End the stream if its client is too slow; `now` is the listener's time."""

    @abstractmethod
    def granted(self) -> None:
        """Note that the client may now send the large message."""

    @abstractmethod
    def sent(self) -> None:
        """Note that all of the answer given so far has been written."""

    @abstractmethod
    def drain(self) -> None:
        """End soon: the server is going away."""

    @abstractmethod
    def cut_off(self) -> None:
        """End now: the server is gone in a moment."""
