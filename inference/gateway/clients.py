"""Bounds on slow clients, without a timer per request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from inference import refusals
from inference.errors import ApiError, ErrorCode

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

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


async def read_body(
    receive: Receive,
    bodies: SlowBodies,
    *,
    max_bytes: int,
    timeout_s: float,
    content_length: bytes | None,
) -> bytes:
    """Read a whole body, and stop as soon as it is too large."""
    if content_length is not None and int(content_length) > max_bytes:
        raise refusals.body_too_large(max_bytes)
    # For all of it: a byte now and then is no progress.
    deadline = bodies.deadline(timeout_s)
    message = await bodies.receive(receive, deadline)
    if message["type"] == "http.disconnect":
        raise ClientLeft
    body: bytes = message.get("body", b"")
    if len(body) > max_bytes:
        raise refusals.body_too_large(max_bytes)
    if not message.get("more_body"):
        return body
    chunks, size = [body], len(body)
    while message.get("more_body"):
        message = await bodies.receive(receive, deadline)
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > max_bytes:
            raise refusals.body_too_large(max_bytes)
    return b"".join(chunks)


class ClientLeft(Exception):
    """The connection closed before the request was complete."""


class SlowHeaders:
    """Closes connections that do not finish their headers.

    uvicorn bounds idle connections between requests, but not the first request nor
    headers that trickle in. Looking at each connection once a second costs requests
    nothing.
    """

    def __init__(self, clock: Callable[[], float], timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        # Connection → the headers it was reading, and since when.
        self._reading: dict[Any, tuple[object, float]] = {}

    def sweep(self, connections: Iterable[Any]) -> None:
        now = self._clock()
        reading = {}
        for connection in connections:
            headers = connection.headers
            cycle = connection.cycle
            if cycle is not None and cycle.scope["headers"] is headers:
                continue
            before = self._reading.get(connection)
            if before is None or before[0] is not headers:
                reading[connection] = (headers, now)
            elif now - before[1] > self._timeout_s:
                connection.transport.close()
            else:
                reading[connection] = before
        self._reading = reading

    async def keep_sweeping(self, connections: Callable[[], Iterable[Any]]) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep(list(connections()))
