"""Decompress messages in two threads, within a bound on their bytes.

A few bytes may decompress to the largest message allowed. So a message reserves room
for that before it gets a thread, and keeps the part that it fills until it is answered.
Customers take turns, and share the room.
"""

import asyncio
import functools
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from inference.gateway.grpc.messages import inflate
from inference.gateway.http2 import limits
from inference.installation.shares import FairQueue, Shares

# zlib releases the GIL; more threads would take the processor from the event loop.
_THREADS = 2


class InflatingCall(Protocol):
    """A call that waits for its decompressed message."""

    @property
    def owner(self) -> Hashable: ...

    def inflated(self, body: bytes) -> None: ...

    def not_inflated(self, error: BaseException) -> None: ...


class Inflators:
    """The threads of one server, and the room for decompressed messages."""

    def __init__(self, most_bytes: int, *, message_bytes: int) -> None:
        self.shares = Shares(most_bytes)
        self._message_bytes = message_bytes
        # At twice the number of calls, no customer's share is too small for its calls.
        self._waiting: FairQueue[Inflating] = FairQueue(2 * limits.MAX_ALL_CALLS)
        self._busy = 0
        self._closed = False
        # Threads start with the first messages.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="inflate")

    def begin(
        self, call: InflatingCall, body: bytes | memoryview, inflator: int
    ) -> "Inflating":
        """Decompress a message in its turn, and hand the result to `call`."""
        work = Inflating(self, call, body, inflator)
        self._waiting.put(call.owner, work)
        self._go_on()
        return work

    def give_back(self, owner: Hashable, size: int) -> None:
        """Free the room of a message that is answered."""
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
        call = work.finish()
        if future.cancelled():
            # The server has stopped.
            return
        error = future.exception()
        kept = len(future.result()) if call is not None and error is None else 0
        if kept < self._message_bytes:
            self.shares.give_back(work.owner, self._message_bytes - kept)
        if call is not None and error is not None:
            call.not_inflated(error)
        elif call is not None:
            call.inflated(future.result())
        self._go_on()


class Inflating:
    """One message that waits for a thread or is in one."""

    __slots__ = ("_call", "_inflators", "body", "inflator", "owner")

    def __init__(
        self,
        inflators: Inflators,
        call: InflatingCall,
        body: bytes | memoryview,
        inflator: int,
    ) -> None:
        self._inflators = inflators
        self._call: InflatingCall | None = call
        self.body = body
        self.inflator = inflator
        self.owner = call.owner

    def abandon(self) -> None:
        """Drop the message; a thread that works on it goes on."""
        self._call = None
        self._inflators.withdraw(self)

    def finish(self) -> InflatingCall | None:
        """Return the call that waits, once; None if it was abandoned."""
        call, self._call = self._call, None
        return call
