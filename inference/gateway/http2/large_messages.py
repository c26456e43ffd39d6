"""Grant flow-control windows for messages that are larger than a stream's window."""

from collections.abc import Callable

from inference.gateway.http2 import limits
from inference.gateway.http2.stream import Stream
from inference.installation.shares import Shares


class LargeMessages:
    """Bound the bytes of large messages on all connections, shared by customers."""

    def __init__(self, most_bytes: int) -> None:
        self.shares = Shares(most_bytes)
        # Connections with a message that found no room, in the order they asked.
        self._waiting: dict[Grants, None] = {}

    def take(self, grants: "Grants", stream: Stream, count: int) -> bool:
        """Reserve room for a message; if there is none, call `grants` when some is."""
        if self.shares.take(stream.owner, count):
            return True
        self._waiting[grants] = None
        return False

    def give_back(self, stream: Stream) -> None:
        self.shares.give_back(stream.owner, stream.granted_bytes)
        waiting, self._waiting = self._waiting, {}
        for grants in waiting:
            grants.go_on()


class Grants:
    """Grant flow-control windows for large messages on one connection."""

    __slots__ = ("_asking", "_granted_bytes", "_large", "_open_window")

    def __init__(
        self, open_window: Callable[[Stream, int], None], large: LargeMessages
    ) -> None:
        self._open_window = open_window
        self._large = large
        self._granted_bytes = 0
        self._asking: dict[Stream, int] = {}

    def ask(self, stream: Stream, count: int) -> None:
        """Let the client send `count` more bytes of a message, once there is room."""
        if not stream.asking:
            stream.asking = True
            self._asking[stream] = count
            self.go_on()

    def give_back(self, stream: Stream) -> None:
        """Release what a large message held, after it was answered."""
        if stream.granted_bytes:
            self._granted_bytes -= stream.granted_bytes
            self._large.give_back(stream)
            stream.granted_bytes = 0
            self.go_on()

    def forget(self, stream: Stream) -> None:
        """Release all that a closed stream held or asked for."""
        if stream.asking:
            stream.asking = False
            del self._asking[stream]
            self.go_on()
        self.give_back(stream)

    def go_on(self) -> None:
        """Grant the messages for which there is room now."""
        for stream, count in list(self._asking.items()):
            together = self._granted_bytes + count
            # A connection may always have one, however large messages may be.
            if self._granted_bytes and together > limits.MAX_LARGE_BYTES:
                return
            if not self._large.take(self, stream, count):
                # Messages of other customers may follow: a proxy sends those of many
                # on one connection.
                continue
            del self._asking[stream]
            stream.asking = False
            self._granted_bytes = together
            stream.granted_bytes += count
            self._open_window(stream, count)
            stream.granted()
