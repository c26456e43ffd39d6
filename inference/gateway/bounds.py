"""Bound what waits in a gateway, with a share for each customer or address."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable
from typing import NamedTuple, Protocol

from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.http1.asgi import ClientLeft
from inference.gateway.owners import Owner
from inference.installation.shares import FairQueue, Shares

_RETRY_S = 5.0
# One customer may have a quarter of all bytes, one address a 32nd.
_CUSTOMER_PART = 4
_ADDRESS_PART = 32


class Bytes:
    """Count bytes that wait, for each owner.

    An owner may have its part of all bytes, or more for a single body if it has no
    other. Strangers together may have half of all, so customers always find room.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = self._stranger_bytes = 0
        self.refused = 0
        self._by_owner: dict[Owner, int] = {}

    def take(self, owner: Owner, size: int, *, already: int = 0) -> None:
        """Count more of a body that has `already` bytes; raises ApiError OVERLOADED."""
        own = self._by_owner.get(owner, 0)
        full = self.used + size > self.most or (
            not owner.is_customer and self._stranger_bytes + size > self.most // 2
        )
        part = _CUSTOMER_PART if owner.is_customer else _ADDRESS_PART
        if full or (own > already and own + size > self.most // part):
            self.refused += 1
            whose = "Too much" if full else "Too much of yours"
            message = f"{whose} is on its way to or from the site. Try again."
            raise ApiError(ErrorCode.OVERLOADED, message, retry_after_s=_RETRY_S)
        self._add(owner, size)

    def give_back(self, owner: Owner, size: int) -> None:
        self._add(owner, -size)

    def _add(self, owner: Owner, size: int) -> None:
        self.used += size
        if not owner.is_customer:
            self._stranger_bytes += size
        own = self._by_owner.pop(owner, 0) + size
        if own:
            self._by_owner[owner] = own


class RoomSeeker(Protocol):
    """A request that waits for room for its body."""

    def room_made(self) -> None: ...


class BodyRoom:
    """Count bytes of large bodies; those that do not fit wait until others end.

    Customers share the bytes. One customer's bodies get room in the order they came.
    """

    def __init__(self, most: int) -> None:
        self.shares = Shares(most)
        self._waiting: dict[Hashable, dict[RoomSeeker, int]] = {}

    def take(self, owner: Hashable, size: int, seeker: RoomSeeker) -> bool:
        """Take room for a body; if there is none now, call `seeker` once it has it."""
        if owner not in self._waiting and size <= self.shares.room(owner):
            return self.shares.take(owner, size)
        self._waiting.setdefault(owner, {})[seeker] = size
        return False

    def give_back(self, owner: Hashable, size: int) -> None:
        self.shares.give_back(owner, size)
        self._let_in()

    def stop_waiting(
        self, owner: Hashable, seeker: RoomSeeker, *, refused: bool
    ) -> None:
        """Forget a body that got no room; `refused` if it waited too long."""
        del self._waiting[owner][seeker]
        self.shares.refused += refused
        # Bodies behind it may be smaller, and fit.
        self._let_in()

    def _let_in(self) -> None:
        let_in = []
        for owner, waiting in list(self._waiting.items()):
            for seeker, size in list(waiting.items()):
                if size > self.shares.room(owner):
                    break
                self.shares.take(owner, size)
                del waiting[seeker]
                let_in.append(seeker)
            if not waiting:
                del self._waiting[owner]
        # Call them last: they may give their room back at once.
        for seeker in let_in:
            seeker.room_made()


class UploadSlots:
    """Let some requests at a time use a thread of the site, and queue the others.

    Owners take turns. A customer has at most half of the threads, and an address
    without a key a quarter, but two at least, so an owner with many requests waits for
    itself. Two threads are enough for all people behind one address, because pages cost
    processor time; others' pages still have half of the processor.
    """

    def __init__(
        self, at_once: int, *, most_waiting: int = 1000, most_of_one: int = 100
    ) -> None:
        self._free = self._at_once = at_once
        self._running: dict[Owner, int] = {}
        self._waiting: FairQueue[_Waiter] = FairQueue(
            most_waiting, most_of_one=most_of_one
        )

    @property
    def used(self) -> int:
        return self._waiting.shares.used

    @property
    def refused(self) -> int:
        return self._waiting.shares.refused

    @contextlib.asynccontextmanager
    async def turn(
        self, owner: Owner, *, timeout_s: float, has_left: Callable[[], bool]
    ) -> AsyncIterator[None]:
        """Hold a thread; raises ApiError OVERLOADED and ClientLeft."""
        if self._may_run(owner) and not self._waiting.shares.held(owner):
            self._start(owner)
        else:
            await self._wait(owner, timeout_s, has_left)
        try:
            yield
        finally:
            self._stop(owner)
            self._let_run()

    async def _wait(
        self, owner: Owner, timeout_s: float, has_left: Callable[[], bool]
    ) -> None:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), owner, has_left)
        if not self._waiting.put(owner, waiter):
            raise _too_many()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.called
        except TimeoutError:
            self._give_up(waiter)
            self._waiting.shares.refused += 1
            raise _too_many() from None
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def _may_run(self, owner: Owner) -> bool:
        share = self._at_once // 2
        if not owner.is_customer:
            # Two, so that one slow page does not hold up others at the same address.
            share = min(share, max(2, self._at_once // 4))
        return self._free > 0 and self._running.get(owner, 0) < max(1, share)

    def _start(self, owner: Owner) -> None:
        self._free -= 1
        self._running[owner] = self._running.get(owner, 0) + 1

    def _stop(self, owner: Owner) -> None:
        self._free += 1
        running = self._running.pop(owner) - 1
        if running:
            self._running[owner] = running

    def _let_run(self) -> None:
        while self._free and (waiter := self._waiting.take(self._may_run)):
            if waiter.called.done():
                continue
            if waiter.has_left():
                waiter.called.set_exception(ClientLeft())
                continue
            self._start(waiter.owner)
            waiter.called.set_result(None)

    def _give_up(self, waiter: "_Waiter") -> None:
        called = waiter.called
        if called.done() and not called.cancelled() and called.exception() is None:
            # Its turn came just now.
            self._stop(waiter.owner)
            self._let_run()
            return
        self._waiting.remove(waiter.owner, waiter)


class _Waiter(NamedTuple):
    called: "asyncio.Future[None]"
    owner: Owner
    has_left: Callable[[], bool]


def _too_many() -> ApiError:
    message = "Too many requests wait for the site. Try again."
    return ApiError(ErrorCode.OVERLOADED, message, retry_after_s=_RETRY_S)
