"""Let connections read in turns when they have more data than one turn is for."""

import asyncio
from collections.abc import Callable


class ReadingTurns:
    """Let one connection of a listener read on in each turn of the event loop.

    All other work then waits for one of them only, however many have data.
    """

    def __init__(self) -> None:
        # In the order they came.
        self._waiting: dict[Callable[[], None], None] = {}

    def wait(self, read_on: Callable[[], None]) -> None:
        """Call `read_on` once, at its turn; if it waits already, it keeps its place."""
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
