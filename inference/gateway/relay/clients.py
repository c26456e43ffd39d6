"""Find the owner of a relayed request, and cut off bodies that are too slow."""

import asyncio
from collections.abc import Callable
from typing import Any

from accounts.admission.networks import Networks, client_address
from inference.dialects.call_headers import Head
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.http1.asgi import Message, Receive
from inference.gateway.owners import Owner, customer, stranger
from inference.prediction.callers import find_caller, require_network
from inference.snapshot.tables import Tables

_SWEEP_S = 1.0


class SlowBodies:
    """Cancel the reading of bodies that take too long, without a timer for each."""

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


class Clients:
    """Find the customer or address whose share a relayed request uses."""

    def __init__(
        self, tables: Tables, trusted_proxies: Networks, clock: Callable[[], float]
    ) -> None:
        self._tables = tables
        self._trusted_proxies = trusted_proxies
        self._clock = clock

    def find(self, head: Head, peer: str) -> Owner:
        try:
            entry = find_caller(self._tables, head.token, self._clock())
            require_network(entry, peer, head.forwarded_for, self._trusted_proxies)
        except ApiError:
            address = client_address(peer, head.forwarded_for, self._trusted_proxies)
            return stranger(address)
        return customer(entry.key.customer_id)
