"""Whether the client of a connection is still there."""

from enum import Enum, auto

from inference.gateway.http2 import limits


class Pulse(Enum):
    FINE = auto()
    # It should be asked for a sign of life.
    SILENT = auto()
    # It gave none.
    GONE = auto()
    # It has asked for nothing for long.
    IDLE = auto()


class Heartbeat:
    """Told by its connection what is heard; looked at now and then."""

    __slots__ = ("_asked_at", "_since", "heard")

    def __init__(self, now: float) -> None:
        self.heard = True
        self._since = now
        self._asked_at: float | None = None

    def asked(self, now: float) -> None:
        """Wait for an answer from now on."""
        self._asked_at = now

    def look(self, now: float, *, busy: bool) -> Pulse:
        """Tell how the client is; `busy`: it waits for answers."""
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
