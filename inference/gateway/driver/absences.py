"""Let calls wait for an engine that restarts, instead of failing at once."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from inference.engine.wire.messages import VersionKey
from inference.installation.shares import Shares
from inference.snapshot.tables import Tables

# Calls of one gateway that wait at once; customers share them.
MAX_WAITING = 1024
# A call waits at most this long: a process that is forked is back sooner. With a
# fallback it waits less, and half of its time is for the fallback.
_MAX_WAIT_S = 30.0
_MAX_WAIT_BEFORE_FALLBACK_S = 1.0
# A call gives up this long before its deadline.
_ANSWERING_S = 0.05
# How often an engine is asked while calls wait for it: at first, and in the end.
_FIRST_ASK_S = 0.02
_LAST_ASK_S = 0.25
# How often a waiting call looks whether its version is still served, and where.
_LOOK_S = 0.5

Waiting = dict[VersionKey, set["asyncio.Future[None]"]]


class Absences:
    """Hold calls until an engine reports their version as ready.

    `ask` asks an engine for its status; `ready` has what each engine reported.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        ask: Callable[[str], Awaitable[None]],
        ready: Mapping[str, Collection[VersionKey]],
        most: int = MAX_WAITING,
    ) -> None:
        self.shares = Shares(most)
        self._tables = tables
        self._ask = ask
        self._ready = ready
        # Calls by the engines that they wait for.
        self._waiting: dict[str, Waiting] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}

    def longest_wait_s(self, key: VersionKey, remaining_s: float) -> float:
        """Return how long a call with so much time may wait for an engine."""
        model = self._tables.models.get(key.model)
        if model is None or model.model.fallback is None:
            return _MAX_WAIT_S
        return min(_MAX_WAIT_BEFORE_FALLBACK_S, remaining_s / 2)

    async def wait(self, key: VersionKey, *, customer_id: int, until: float) -> bool:
        """Wait until an engine has the version ready; False: give up.

        `until` is the deadline of the call, in the loop's time.
        """
        if not self.shares.take(customer_id):
            return False
        try:
            return await self._wait(key, until - _ANSWERING_S)
        finally:
            self.shares.give_back(customer_id)

    async def _wait(self, key: VersionKey, until: float) -> bool:
        loop = asyncio.get_running_loop()
        while (left_s := until - loop.time()) > 0:
            target = self._tables.find_target(key)
            if target is None or target.quarantined or self._tables.is_broken(key):
                return False
            ready = loop.create_future()
            for name in target.engines:
                self._await(name, key, ready)
            try:
                await asyncio.wait((ready,), timeout=min(left_s, _LOOK_S))
            finally:
                for name in target.engines:
                    self._forget(name, key, ready)
            if ready.done():
                return True
        return False

    def _await(self, name: str, key: VersionKey, ready: "asyncio.Future[None]") -> None:
        self._waiting.setdefault(name, {}).setdefault(key, set()).add(ready)
        if name not in self._watching:
            self._watching[name] = asyncio.get_running_loop().create_task(
                self._watch(name)
            )

    def _forget(
        self, name: str, key: VersionKey, ready: "asyncio.Future[None]"
    ) -> None:
        waiting = self._waiting[name]
        waiting[key].discard(ready)
        if not waiting[key]:
            del waiting[key]
        if not waiting:
            del self._waiting[name]

    async def _watch(self, name: str) -> None:
        """Ask an engine for its status, and wake the calls whose version is ready."""
        every_s = _FIRST_ASK_S
        try:
            while name in self._waiting:
                await self._ask(name)
                for key, calls in self._waiting.get(name, {}).items():
                    if key in self._ready.get(name, ()):
                        for ready in calls:
                            if not ready.done():
                                ready.set_result(None)
                await asyncio.sleep(every_s)
                every_s = min(every_s * 1.2, _LAST_ASK_S)
        finally:
            del self._watching[name]
