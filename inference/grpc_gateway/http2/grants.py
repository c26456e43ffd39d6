"""Large messages in their turns: what clients may send beyond a stream's window."""

from collections.abc import Callable

from inference.grpc_gateway.http2 import limits
from inference.grpc_gateway.http2.stream import Stream


class Grants:
    """Those of one connection; `open_window` tells the client of one."""

    __slots__ = ("_asking", "_granted_bytes", "_open_window")

    def __init__(self, open_window: Callable[[Stream, int], None]) -> None:
        self._open_window = open_window
        self._granted_bytes = 0
        self._asking: dict[Stream, int] = {}

    def ask(self, stream: Stream, count: int) -> None:
        """Let the client send so many bytes more of a message, when it is its turn."""
        if not stream.asking:
            stream.asking = True
            self._asking[stream] = count
            self._go_on()

    def give_back(self, stream: Stream) -> None:
        """Learn that a large message is worked on no more."""
        if stream.granted_bytes:
            self._granted_bytes -= stream.granted_bytes
            stream.granted_bytes = 0
            self._go_on()

    def forget(self, stream: Stream) -> None:
        """Learn that a stream is over: it asks for nothing, and gives back all."""
        if stream.asking:
            stream.asking = False
            del self._asking[stream]
            self._go_on()
        self.give_back(stream)

    def _go_on(self) -> None:
        while self._asking:
            stream, count = next(iter(self._asking.items()))
            together = self._granted_bytes + count
            # One always may, however large messages may be.
            if self._granted_bytes and together > limits.MAX_LARGE_BYTES:
                return
            del self._asking[stream]
            stream.asking = False
            self._granted_bytes = together
            stream.granted_bytes += count
            self._open_window(stream, count)
            stream.granted()
