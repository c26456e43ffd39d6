"""Bounds on slow clients, without a timer per request."""

import asyncio
from collections.abc import Callable
from typing import Any

from inference.errors import ApiError, ErrorCode
from inference.gateway.asgi import Message, Receive

_SWEEP_S = 1.0


class SlowBodies:
    """Cancels the reading of bodies that take too long."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()

    def deadline(self, timeout_s: float) -> float:
        return self._clock() + timeout_s

    async def receive(self, receive: Receive, deadline: float) -> Message:
        """Receive one message in time; raises ApiError REQUEST_TIMEOUT."""
        task = asyncio.current_task()
        assert task is not None
        self._deadlines[task] = deadline
        try:
            return await receive()
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            self._late.discard(task)
            task.uncancel()
            message = "The request's body did not arrive in time."
            raise ApiError(ErrorCode.REQUEST_TIMEOUT, message) from None
        finally:
            del self._deadlines[task]

    def sweep(self) -> None:
        now = self._clock()
        for task, deadline in list(self._deadlines.items()):
            if deadline <= now and task not in self._late:
                self._late.add(task)
                task.cancel()

    async def keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep()


class ClientLeft(Exception):
    """The connection closed before the request was complete."""
