"""Find an engine for a call, then another one, until it is answered or given up."""

import asyncio
from typing import Protocol

from inference.engine.clients.attempts import Attempts
from inference.engine.clients.client import EngineClient
from inference.engine.clients.requests import timed_out
from inference.engine.clients.socket_client import PendingCall, Waiter
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import VersionKey


class GatewayEngineClient(EngineClient, Protocol):
    """An engine's client, with what only the gateway needs."""

    @property
    def connected(self) -> bool: ...

    @property
    def in_flight(self) -> int: ...

    async def reach(self) -> None: ...

    def begin(self, call: PredictionCall, waiter: Waiter) -> PendingCall: ...

    async def close(self) -> None: ...


class Choices(Protocol):
    """The engines among which a call may choose."""

    def choose(
        self, key: VersionKey, names: tuple[str, ...], *, but: set[str]
    ) -> tuple[str, GatewayEngineClient] | None:
        """Return the engine to ask, with its name; None if none is left."""
        ...

    def engines_of(self, key: VersionKey) -> tuple[str, ...]:
        """Return the engines that have a version now; raises EngineError."""
        ...

    def is_repeatable(self, key: VersionKey) -> bool: ...

    def not_ready(self, key: VersionKey, *, on: str) -> None:
        """Note that an engine is away, or does not have the version ready."""
        ...

    def was_ready(self, key: VersionKey) -> bool:
        """Return whether an engine had the version ready a moment ago."""
        ...

    def longest_wait_s(self, key: VersionKey, remaining_s: float) -> float:
        """Return how long a call with so much time may wait for an engine."""
        ...

    async def wait(self, key: VersionKey, *, customer_id: int, until: float) -> bool:
        """Wait until an engine has the version ready; False: give up."""
        ...


class Tries:
    """The engines that one call has asked, and those that it may still ask.

    While all of them are away, it waits for one.
    """

    def __init__(
        self,
        choices: Choices,
        key: VersionKey,
        *,
        customer_id: int,
        deadline: float,
    ) -> None:
        """`deadline` is in the loop's time."""
        self._choices = choices
        self._key = key
        self._customer_id = customer_id
        self._deadline = deadline
        self._attempts = Attempts(repeatable=choices.is_repeatable(key))
        self._asked: set[str] = set()
        self._waits_until: float | None = None

    @property
    def remaining_s(self) -> float:
        """How long the call may still take; raises EngineError when it is over."""
        remaining_s = self._deadline - asyncio.get_running_loop().time()
        if remaining_s <= 0:
            raise timed_out()
        return remaining_s

    async def next(self) -> tuple[str, GatewayEngineClient]:
        """Return a connected engine and its name; raise the last EngineError."""
        while True:
            names = self._choices.engines_of(self._key)
            found = self._choices.choose(self._key, names, but=self._asked)
            if found is None:
                await self._wait()
                continue
            name, client = found
            try:
                if not client.connected:
                    await client.reach()
            except EngineError as error:
                self.failed(name, error)
            else:
                return found

    def failed(self, name: str, error: EngineError, *, begun: bool = False) -> None:
        """Note why an engine did not answer; raise EngineError if this is final."""
        self._attempts.failed(error, begun=begun)
        self._asked.add(name)
        if error.code is not EngineErrorCode.OVERLOADED:
            self._choices.not_ready(self._key, on=name)

    async def _wait(self) -> None:
        """Wait for an engine that was here; raise the last EngineError otherwise."""
        attempts = self._attempts
        if attempts.all_away and (attempts.died or self._choices.was_ready(self._key)):
            if self._waits_until is None:
                longest_s = self._choices.longest_wait_s(self._key, self.remaining_s)
                now = asyncio.get_running_loop().time()
                self._waits_until = min(self._deadline, now + longest_s)
            if await self._choices.wait(
                self._key, customer_id=self._customer_id, until=self._waits_until
            ):
                self._asked.clear()
                attempts.all_away = True
                return
            # It may have been quarantined, which says more.
            self._choices.engines_of(self._key)
        raise attempts.failure
