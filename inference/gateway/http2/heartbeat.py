"""Decide whether the client of a connection is still there."""

from enum import Enum, auto

from inference.gateway.http2 import limits


class Pulse(Enum):
    FINE = auto()
    # The client should be pinged.
    SILENT = auto()
    # It did not answer a ping.
    GONE = auto()
    # It has had no stream and sent nothing for long.
    IDLE = auto()


class Heartbeat:
    """Watch one client; the connection sets `heard` and calls `look` now and then."""

    __slots__ = ("_asked_at", "_since", "heard")

    def __init__(self, now: float) -> None:
        self.heard = True
        self._since = now
        self._asked_at: float | None = None

    def asked(self, now: float) -> None:
        """Expect an answer to a ping sent now."""
        self._asked_at = now

    def look(self, now: float, *, busy: bool) -> Pulse:
        """Return the client's state; `busy` if it waits for answers."""
        if self.heard:
            self.heard = False
            self._since = now
            self._asked_at = None
        elif self._asked_at is not None:
            if now - self._asked_at > limits.PING_S:
                return Pulse.GONE
        elif not busy:
            if now - self._since > limits.IDLE_S:
                return Pulse.IDLE
        elif now - self._since > limits.SILENT_S:
            return Pulse.SILENT
        return Pulse.FINE
