"""Measure how much memory each load takes, also if several loads overlap."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Load = TypeVar("Load", bound=Hashable)


class Growth(Generic[Load]):
    """Share the memory that was taken while loads overlapped among them.

    Nobody can tell whose a page is. So the growth from the first load's begin to the
    last one's end is shared by the loads' estimates. Loads call from their threads.
    """

    def __init__(self, used: Callable[[], int]) -> None:
        self._used = used
        self._lock = threading.Lock()
        self._running = 0
        self._before = 0
        self._estimates: dict[Load, int] = {}

    def begin(self) -> None:
        with self._lock:
            if not self._running:
                self._before = self._used()
                self._estimates.clear()
            self._running += 1

    def end(self, load: Load | None, estimate: int = 0) -> dict[Load, int]:
        """Return the bytes of all loads that overlapped, if this was the last one.

        A load that failed is None: it keeps nothing. None takes less than estimated.
        """
        with self._lock:
            self._running -= 1
            if load is not None:
                self._estimates[load] = estimate
            if self._running or not self._estimates:
                return {}
            grown = self._used() - self._before
            total = sum(self._estimates.values())
            equal = 1 / len(self._estimates)
            return {
                each: max(size, int(grown * (size / total if total else equal)))
                for each, size in self._estimates.items()
            }
