"""Count lines of one kind that come too often, instead of writing each.

Of each kind the first lines within a window are written. One line then says how many
more there were.
"""

from collections.abc import Hashable
from dataclasses import dataclass

MOST = 20
WINDOW_S = 10.0
# Lines of more kinds than these count as of one kind.
_MOST_KINDS = 200


@dataclass(slots=True)
class _Window:
    began: float
    lines: int = 1


class RepeatedLines:
    """Decide which lines of a process are written."""

    def __init__(self, *, most: int = MOST, window_s: float = WINDOW_S) -> None:
        self._most = most
        self._window_s = window_s
        self._windows: dict[Hashable, _Window] = {}

    def admits(self, kind: Hashable, *, other: Hashable, now: float) -> bool:
        """Return whether to write a line; `other` is its kind if there are too many."""
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= _MOST_KINDS:
                self._forget(now)
            if len(self._windows) >= _MOST_KINDS and kind != other:
                return self.admits(other, other=other, now=now)
            self._windows[kind] = _Window(now)
            return True
        if now - window.began >= self._window_s and window.lines <= self._most:
            window.began, window.lines = now, 1
            return True
        window.lines += 1
        return window.lines <= self._most

    def sums(self, now: float) -> list[tuple[Hashable, int]]:
        """Return the kinds whose window is over, and how many lines were left out."""
        over = [
            (kind, window.lines - self._most)
            for kind, window in self._windows.items()
            if window.lines > self._most and now - window.began >= self._window_s
        ]
        for kind, _ in over:
            del self._windows[kind]
        return over

    def rest(self) -> list[tuple[Hashable, int]]:
        """Return what `sums` has not returned yet, at the end of the process."""
        return self.sums(float("inf"))

    def _forget(self, now: float) -> None:
        self._windows = {
            kind: window
            for kind, window in self._windows.items()
            if window.lines > self._most or now - window.began < self._window_s
        }
