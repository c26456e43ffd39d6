"""Large messages in their turns: what clients may send beyond a stream's window."""

from collections.abc import Callable

from inference.gateway.http2 import limits
from inference.gateway.http2.stream import Stream
from inference.installation.shares import Shares


class LargeMessages:
    """Bytes of the large messages of all connections, which customers share."""

    def __init__(self, most_bytes: int) -> None:
        self.shares = Shares(most_bytes)
        # Connections with a message that has no room, in their order.
        self._waiting: dict[Grants, None] = {}

    def take(self, grants: "Grants", stream: Stream, count: int) -> bool:
        """Make room for a message; False: `grants` is told when there may be some."""
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
    """Large messages of one connection; `open_window` tells the client of a grant."""

    __slots__ = ("_asking", "_granted_bytes", "_large", "_open_window")

    def __init__(
        self, open_window: Callable[[Stream, int], None], large: LargeMessages
    ) -> None:
        self._open_window = open_window
        self._large = large
        self._granted_bytes = 0
        self._asking: dict[Stream, int] = {}

    def ask(self, stream: Stream, count: int) -> None:
        """Let the client send so many bytes more of a message, when it is its turn."""
        if not stream.asking:
            stream.asking = True
            self._asking[stream] = count
            self.go_on()

    def give_back(self, stream: Stream) -> None:
        """Learn that a large message is worked on no more."""
        if stream.granted_bytes:
            self._granted_bytes -= stream.granted_bytes
            self._large.give_back(stream)
            stream.granted_bytes = 0
            self.go_on()

    def forget(self, stream: Stream) -> None:
        """Learn that a stream is over: it asks for nothing, and gives back all."""
        if stream.asking:
            stream.asking = False
            del self._asking[stream]
            self.go_on()
        self.give_back(stream)

    def go_on(self) -> None:
        """Grant what there is room for."""
        for stream, count in list(self._asking.items()):
            together = self._granted_bytes + count
            # One always may, however large messages may be.
            if self._granted_bytes and together > limits.MAX_LARGE_BYTES:
                return
            if not self._large.take(self, stream, count):
                # Behind it may be messages of others: proxies share connections.
                continue
            del self._asking[stream]
            stream.asking = False
            self._granted_bytes = together
            stream.granted_bytes += count
            self._open_window(stream, count)
            stream.granted()
