"""Bodies on their way to the site.

A thread of the site waits for as long as a body takes to arrive, and it has few. So
the site is asked once a body is here, or as much of it as is held, and of longer ones
only so many are passed on at once: slow clients do not take the site from the others.
"""

from collections.abc import AsyncIterator

import httpx

from inference.errors import ApiError, ErrorCode
from inference.gateway.asgi import Receive
from inference.gateway.clients import ClientLeft, SlowBodies

HELD_BYTES = 256 * 1024
# Half of the threads that one process of the site has.
MAX_AT_ONCE = 4
# What a client must send on average once its body is passed on.
MIN_BYTES_PER_S = 16 * 1024
_BUSY_RETRY_S = 5.0


class Upload(httpx.AsyncByteStream):
    """One body; `failure` says why it ended before its time."""

    def __init__(
        self,
        receive: Receive,
        bodies: SlowBodies,
        *,
        max_bytes: int,
        idle_timeout_s: float,
        min_bytes_per_s: float = MIN_BYTES_PER_S,
    ) -> None:
        self._receive = receive
        self._bodies = bodies
        self._max_bytes = max_bytes
        self._idle_timeout_s = idle_timeout_s
        self._min_bytes_per_s = min_bytes_per_s
        self._held: list[bytes] = []
        self._size = 0
        self.more = True
        self.failure: ApiError | ClientLeft | None = None

    async def hold(self) -> None:
        """Read to the end or to what is held at most; raises ApiError, ClientLeft."""
        # For all of it: a byte now and then is no progress.
        deadline = self._bodies.deadline(self._idle_timeout_s)
        while self.more and self._size < HELD_BYTES:
            self._held.append(await self._next(deadline))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held, self._held = self._held, []
        for chunk in held:
            if chunk:
                yield chunk
        del held
        passed_on = self._size
        # Only the time that the client takes counts, not the site's.
        waited_s = 0.0
        while self.more:
            left_s = self._idle_timeout_s
            if self._min_bytes_per_s:
                earned_s = (self._size - passed_on) / self._min_bytes_per_s
                left_s = min(left_s, left_s + earned_s - waited_s)
            asked_s = self._bodies.deadline(0)
            try:
                chunk = await self._next(asked_s + left_s)
                waited_s += self._bodies.deadline(0) - asked_s
            except (ApiError, ClientLeft) as error:
                self.failure = error
                raise
            if chunk:
                yield chunk

    async def _next(self, deadline: float) -> bytes:
        message = await self._bodies.receive(self._receive, deadline)
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunk: bytes = message.get("body", b"")
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise too_large(self._max_bytes)
        self.more = message.get("more_body", False)
        return chunk


class Turns:
    """Counts the long bodies under way."""

    def __init__(self) -> None:
        self._taken = 0

    def __enter__(self) -> None:
        if self._taken >= MAX_AT_ONCE:
            raise ApiError(
                ErrorCode.OVERLOADED,
                "Too many uploads are under way. Try again.",
                retry_after_s=_BUSY_RETRY_S,
            )
        self._taken += 1

    def __exit__(self, *_: object) -> None:
        self._taken -= 1


def too_large(max_bytes: int) -> ApiError:
    return ApiError(
        ErrorCode.TOO_LARGE,
        f"The body may have at most {max_bytes} bytes.",
        facts={"limit": "upload_bytes", "maximum": max_bytes},
    )
