"""What clients send of streams that we have ended before they did."""

from inference.gateway.http2.limits import MAX_STREAMS


class Leftovers:
    """Those of one connection: what may be on its way, and is let pass.

    A client counts a stream among its MAX_STREAMS until it reads that we ended it, and
    it reads our ends in their order. So those of which it does not know are the latest,
    and never more; older ones need not be remembered.
    """

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        # What may still come of each, the oldest first.
        self._windows: dict[int, int] = {}

    def add(self, stream_id: int, window: int) -> None:
        if len(self._windows) >= MAX_STREAMS:
            del self._windows[next(iter(self._windows))]
        self._windows[stream_id] = window

    def take(self, stream_id: int, size: int, *, ended: bool) -> bool:
        """Take DATA; False: no client had to send this."""
        window = self._windows.get(stream_id)
        if window is None or size > window:
            return False
        if ended:
            del self._windows[stream_id]
        else:
            self._windows[stream_id] = window - size
        return ended or size > 0

    def end(self, stream_id: int) -> bool:
        """Take a reset, or trailers; False: as above."""
        return self._windows.pop(stream_id, None) is not None
