"""Whose turn it is, among connections with more to read than one turn is for."""

import asyncio
from collections.abc import Callable


class ReadingTurns:
    """Those of one listener: in each turn of the loop one connection reads on.

    So all others wait for one of them only, however many they are.
    """

    def __init__(self) -> None:
        # In their order.
        self._waiting: dict[Callable[[], None], None] = {}

    def wait(self, read_on: Callable[[], None]) -> None:
        """Call once, when it is its turn; whoever waits already keeps their place."""
        if not self._waiting:
            self._schedule()
        self._waiting[read_on] = None

    def _schedule(self) -> None:
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        read_on = next(iter(self._waiting))
        del self._waiting[read_on]
        if self._waiting:
            self._schedule()
        read_on()
