"""Accept late frames of streams that we ended before the client did."""

from inference.gateway.http2.limits import MAX_STREAMS


class Leftovers:
    """Frames of one connection that may still arrive for closed streams.

    A client counts a stream among its MAX_STREAMS until it reads that we ended it, and
    it reads this in the order in which we ended them. So at most the last MAX_STREAMS
    can have frames under way; older ones need not be remembered.
    """

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        # Bytes that may still come on each stream, the oldest first.
        self._windows: dict[int, int] = {}

    def add(self, stream_id: int, window: int) -> None:
        if len(self._windows) >= MAX_STREAMS:
            del self._windows[next(iter(self._windows))]
        self._windows[stream_id] = window

    def take(self, stream_id: int, size: int, *, ended: bool) -> bool:
        """Accept DATA; return False if the client had no reason to send it."""
        window = self._windows.get(stream_id)
        if window is None or size > window:
            return False
        if ended:
            del self._windows[stream_id]
        else:
            self._windows[stream_id] = window - size
        return ended or size > 0

    def end(self, stream_id: int) -> bool:
        """Accept a reset or trailers; return False as `take` does."""
        return self._windows.pop(stream_id, None) is not None
