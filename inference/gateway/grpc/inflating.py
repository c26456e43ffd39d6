"""Compressed messages, inflated in few threads and within a bound on their bytes.

A few bytes may become the largest message there is. So one that waits for a thread
needs room for that, and keeps what it became until it is answered. Customers take
turns, and share the room.
"""

import asyncio
import functools
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from inference.gateway.grpc.messages import inflate
from inference.gateway.http2 import limits
from inference.installation.shares import FairQueue, Shares

# zlib lets go of the interpreter; more threads would take the processor from the loop.
_THREADS = 2


class InflatingCall(Protocol):
    """Whoever waits for a message."""

    @property
    def owner(self) -> Hashable: ...

    def inflated(self, body: bytes) -> None: ...

    def not_inflated(self, error: BaseException) -> None: ...


class Inflators:
    """The threads and the room of one server."""

    def __init__(self, most_bytes: int, *, message_bytes: int) -> None:
        self.shares = Shares(most_bytes)
        self._message_bytes = message_bytes
        # Twice as many as there are calls: no share of it is too small for all of them.
        self._waiting: FairQueue[Inflating] = FairQueue(2 * limits.MAX_ALL_CALLS)
        self._busy = 0
        self._closed = False
        # Threads start with the first messages.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="inflate")

    def begin(
        self, asker: InflatingCall, body: bytes | memoryview, inflator: int
    ) -> "Inflating":
        """Inflate a message in its turn; `asker` is told what it became."""
        work = Inflating(self, asker, body, inflator)
        self._waiting.put(asker.owner, work)
        self._go_on()
        return work

    def give_back(self, owner: Hashable, size: int) -> None:
        """Learn that a message is answered."""
        self.shares.give_back(owner, size)
        self._go_on()

    def withdraw(self, work: "Inflating") -> None:
        self._waiting.remove(work.owner, work)

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _go_on(self) -> None:
        while self._busy < _THREADS and not self._closed:
            work = self._waiting.take(self._has_room)
            if work is None:
                return
            self._busy += 1
            self.shares.take(work.owner, self._message_bytes)
            future = asyncio.get_running_loop().run_in_executor(
                self._threads,
                functools.partial(
                    inflate, work.body, work.inflator, max_bytes=self._message_bytes
                ),
            )
            future.add_done_callback(functools.partial(self._done, work))

    def _has_room(self, owner: Hashable) -> bool:
        return self.shares.room(owner) >= self._message_bytes

    def _done(self, work: "Inflating", future: "asyncio.Future[bytes]") -> None:
        self._busy -= 1
        asker = work.finish()
        if future.cancelled():
            # The server is gone.
            return
        error = future.exception()
        kept = len(future.result()) if asker is not None and error is None else 0
        if kept < self._message_bytes:
            self.shares.give_back(work.owner, self._message_bytes - kept)
        if asker is not None and error is not None:
            asker.not_inflated(error)
        elif asker is not None:
            asker.inflated(future.result())
        self._go_on()


class Inflating:
    """One message, which waits for a thread or is in one."""

    __slots__ = ("_asker", "_inflators", "body", "inflator", "owner")

    def __init__(
        self,
        inflators: Inflators,
        asker: InflatingCall,
        body: bytes | memoryview,
        inflator: int,
    ) -> None:
        self._inflators = inflators
        self._asker: InflatingCall | None = asker
        self.body = body
        self.inflator = inflator
        self.owner = asker.owner

    def abandon(self) -> None:
        """Say that nobody waits for it any more; a thread that has it goes on."""
        self._asker = None
        self._inflators.withdraw(self)

    def finish(self) -> InflatingCall | None:
        """Return who is to be told, once."""
        asker, self._asker = self._asker, None
        return asker
