"""Bounds on what clients have wait in a gateway, with a share for each of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable
from typing import NamedTuple, Protocol

from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.http1.asgi import ClientLeft
from inference.gateway.owners import Owner
from inference.installation.shares import FairQueue, Shares

_RETRY_S = 5.0
# Parts of all bytes that one client may have.
_OF_A_CUSTOMER = 4
_OF_AN_ADDRESS = 32


class Bytes:
    """Counts bytes that wait.

    A client has a part of all, or more for one thing where it has nothing else, and
    strangers half of all together: customers find room whatever these do.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = self._of_strangers = 0
        self.refused = 0
        self._by_client: dict[Owner, int] = {}

    def take(self, client: Owner, size: int, *, already: int = 0) -> None:
        """Count more of a thing that has `already` some; raises ApiError OVERLOADED."""
        own = self._by_client.get(client, 0)
        full = self.used + size > self.most or (
            not client.is_customer and self._of_strangers + size > self.most // 2
        )
        part = _OF_A_CUSTOMER if client.is_customer else _OF_AN_ADDRESS
        if full or (own > already and own + size > self.most // part):
            self.refused += 1
            whose = "Too much" if full else "Too much of yours"
            message = f"{whose} is on its way to or from the site. Try again."
            raise ApiError(ErrorCode.OVERLOADED, message, retry_after_s=_RETRY_S)
        self._add(client, size)

    def give_back(self, client: Owner, size: int) -> None:
        self._add(client, -size)

    def _add(self, client: Owner, size: int) -> None:
        self.used += size
        if not client.is_customer:
            self._of_strangers += size
        own = self._by_client.pop(client, 0) + size
        if own:
            self._by_client[client] = own


class RoomSeeker(Protocol):
    """Who waits for room."""

    def room_made(self) -> None: ...


class BodyRoom:
    """Counts bytes of large bodies; those that do not fit wait for others to end.

    Customers share it. The bodies of one that wait have it in their order.
    """

    def __init__(self, most: int) -> None:
        self.shares = Shares(most)
        self._waiting: dict[Hashable, dict[RoomSeeker, int]] = {}

    def take(self, owner: Hashable, size: int, asker: RoomSeeker) -> bool:
        """Take room for a body; False: `asker` is told once it has it."""
        if owner not in self._waiting and size <= self.shares.room(owner):
            return self.shares.take(owner, size)
        self._waiting.setdefault(owner, {})[asker] = size
        return False

    def give_back(self, owner: Hashable, size: int) -> None:
        self.shares.give_back(owner, size)
        self._let_in()

    def stop_waiting(
        self, owner: Hashable, asker: RoomSeeker, *, refused: bool
    ) -> None:
        """Forget a body that got no room; `refused` because it waited for too long."""
        del self._waiting[owner][asker]
        self.shares.refused += refused
        # Those behind it may be smaller.
        self._let_in()

    def _let_in(self) -> None:
        let_in = []
        for owner, waiting in list(self._waiting.items()):
            for asker, size in list(waiting.items()):
                if size > self.shares.room(owner):
                    break
                self.shares.take(owner, size)
                del waiting[asker]
                let_in.append(asker)
            if not waiting:
                del self._waiting[owner]
        # They may give back at once what they had waited for.
        for asker in let_in:
            asker.room_made()


class UploadSlots:
    """Lets some requests at a time have a thread of the site, and others wait.

    Clients take turns, and a customer has half of the threads at most, an address
    without a key a quarter, so that a client with many requests waits for itself. Pages
    cost the processor, so that two threads for all people behind one address do not
    slow them down, and others' pages have half of the processor beside them.
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
        self, client: Owner, *, timeout_s: float, has_left: Callable[[], bool]
    ) -> AsyncIterator[None]:
        """Hold a thread; raises ApiError OVERLOADED and ClientLeft."""
        if self._may_run(client) and not self._waiting.shares.held(client):
            self._start(client)
        else:
            await self._wait(client, timeout_s, has_left)
        try:
            yield
        finally:
            self._stop(client)
            self._let_run()

    async def _wait(
        self, client: Owner, timeout_s: float, has_left: Callable[[], bool]
    ) -> None:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), client, has_left)
        if not self._waiting.put(client, waiter):
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

    def _may_run(self, client: Owner) -> bool:
        share = self._at_once // 2
        if not client.is_customer:
            # One slow page of somebody holds up nobody else behind the same address.
            share = min(share, max(2, self._at_once // 4))
        return self._free > 0 and self._running.get(client, 0) < max(1, share)

    def _start(self, client: Owner) -> None:
        self._free -= 1
        self._running[client] = self._running.get(client, 0) + 1

    def _stop(self, client: Owner) -> None:
        self._free += 1
        running = self._running.pop(client) - 1
        if running:
            self._running[client] = running

    def _let_run(self) -> None:
        while self._free and (waiter := self._waiting.take(self._may_run)):
            if waiter.called.done():
                continue
            if waiter.has_left():
                waiter.called.set_exception(ClientLeft())
                continue
            self._start(waiter.client)
            waiter.called.set_result(None)

    def _give_up(self, waiter: "_Waiter") -> None:
        called = waiter.called
        if called.done() and not called.cancelled() and called.exception() is None:
            # Its turn came just now.
            self._stop(waiter.client)
            self._let_run()
            return
        self._waiting.remove(waiter.client, waiter)


class _Waiter(NamedTuple):
    called: "asyncio.Future[None]"
    client: Owner
    has_left: Callable[[], bool]


def _too_many() -> ApiError:
    message = "Too many requests wait for the site. Try again."
    return ApiError(ErrorCode.OVERLOADED, message, retry_after_s=_RETRY_S)
