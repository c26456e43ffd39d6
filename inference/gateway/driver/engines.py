"""Call the engines that this gateway knows, and ask for their status."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from inference.engine.clients.socket_client import PendingCall, Waiter
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    EngineStatus,
    Explained,
    OutputTensor,
    VersionKey,
)
from inference.gateway.driver.absences import MAX_WAITING, Absences
from inference.gateway.driver.tries import GatewayEngineClient, Tries
from inference.prediction.effects import EngineCall, ExplainCall, OpenStream
from inference.prediction.stages import quarantined
from inference.snapshot.tables import Tables

logger = structlog.get_logger(__name__)

_POLL_S = 1.0
# At first, when people wait until models answer; each pause is longer than the last.
_FIRST_POLL_S = 0.1
_LONGER = 1.05
# Calls wait for a version that was ready within this time.
_MOMENT_S = 60.0


class UnderWay(Protocol):
    """A call that an engine works on."""

    def abandon(self) -> None:
        """Cancel the call: nobody waits for it any more."""


class Engines:
    """Hold a client for each engine of the snapshot, and each engine's last status."""

    def __init__(
        self,
        connect: Callable[[str], GatewayEngineClient],
        tables: Tables,
        *,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._connect = connect
        self._tables = tables
        self._addresses: dict[str, str] = {}
        self._clients: dict[str, GatewayEngineClient] = {}
        self._retired: list[GatewayEngineClient] = []
        self._turn = 0
        self.reports: dict[str, EngineStatus] = {}
        # The versions that each engine reported as ready, but for those that it has
        # refused since then.
        self._ready: dict[str, set[VersionKey]] = {}
        # When a version was last reported as ready, in the loop's time.
        self._ready_at: dict[VersionKey, float] = {}
        # How many reports were asked for.
        self.asked = 0
        self.absences = Absences(
            tables, ask=self._ask, ready=self._ready, most=max_waiting
        )

    def replace(self, addresses: Mapping[str, str]) -> None:
        """Use these engines from now on; keep the clients whose addresses stay."""
        before = self._clients
        self._clients = {
            name: before[name]
            if self._addresses.get(name) == address
            else self._connect(address)
            for name, address in addresses.items()
        }
        self._addresses = dict(addresses)
        # Calls may still be in flight there; `ask` closes these once there are none.
        self._retired += [
            client
            for name, client in before.items()
            if self._clients.get(name) is not client
        ]
        for gone in before.keys() - self._clients.keys():
            self.reports.pop(gone, None)
            self._ready.pop(gone, None)

    def begin(self, call: EngineCall, waiter: Waiter) -> UnderWay:
        """Ask for a prediction; the waiter gets it after this function returned.

        If it gets an error, `again` may ask for the prediction once more. Raises
        EngineError.
        """
        names = call.engines
        if len(names) == 1:
            client = self._clients.get(names[0])
        else:
            found = self.choose(call.key, names)
            client = None if found is None else found[1]
        if client is None or not client.connected:
            deadline = asyncio.get_running_loop().time() + call.timeout_s
            return _Asking(call, self._tries(call, deadline), waiter)
        return client.begin(call, waiter)

    def begin_at_once(self, call: EngineCall, waiter: Waiter) -> bool:
        """Ask for a prediction if an engine has the version ready; never try again."""
        found = self.choose(call.key, call.engines)
        if found is None or not found[1].connected:
            return False
        found[1].begin(call, waiter)
        return True

    def again(
        self, call: EngineCall, begun: UnderWay, error: Exception, waiter: Waiter
    ) -> UnderWay:
        """Ask for a prediction that failed on another engine, or the restarted one.

        Raises the error that is final.
        """
        if not isinstance(begun, PendingCall) or not isinstance(error, EngineError):
            # It was tried by `_Asking`, which knows when to give up.
            raise error
        if error.code is EngineErrorCode.OVERLOADED and len(call.engines) == 1:
            # Refusals must stay cheap.
            raise error
        tries = self._tries(call, begun.deadline)
        for name in call.engines:
            if self._clients.get(name) is begun.client:
                tries.failed(name, error)
                break
        else:
            tries.failed("", error)
        return _Asking(call, tries, waiter)

    async def explain(self, call: ExplainCall) -> Explained:
        deadline = asyncio.get_running_loop().time() + call.timeout_s
        tries = self._tries(call, deadline)
        while True:
            name, client = await tries.next()
            try:
                return await client.explain(_shortened(call, tries))
            except EngineError as error:
                tries.failed(name, error)

    async def stream(self, call: OpenStream) -> AsyncGenerator[Any]:
        """Yield the chunks of the first engine that begins; raises EngineError."""
        deadline = asyncio.get_running_loop().time() + call.timeout_s
        tries = self._tries(call, deadline)
        while True:
            name, client = await tries.next()
            chunks = client.stream(_shortened(call, tries))
            begun = False
            try:
                async for chunk in chunks:
                    begun = True
                    yield chunk
                return
            except EngineError as error:
                tries.failed(name, error, begun=begun)
            finally:
                await chunks.aclose()

    # Status

    async def keep_asking(self) -> None:
        """Ask every engine for its status, once a second and more often at first."""
        pause_s = _FIRST_POLL_S
        while True:
            await self.ask()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * _LONGER, _POLL_S)

    async def ask(self) -> None:
        await asyncio.gather(*(self._ask(name) for name in list(self._clients)))
        before = asyncio.get_running_loop().time() - _MOMENT_S
        for key in [key for key, at in self._ready_at.items() if at < before]:
            del self._ready_at[key]
        idle = [client for client in self._retired if not client.in_flight]
        for client in idle:
            self._retired.remove(client)
            await client.close()

    async def close(self) -> None:
        for client in (*self._clients.values(), *self._retired):
            await client.close()

    def is_ready(self, key: VersionKey, *, on: Sequence[str]) -> bool:
        """Return whether one of these engines reported the version as ready."""
        return any(key in self._ready.get(name, ()) for name in on)

    def outputs(
        self, key: VersionKey, *, on: Sequence[str]
    ) -> tuple[OutputTensor, ...]:
        """Return a version's outputs, as one of these engines observed them."""
        reports = [self.reports[name] for name in on if name in self.reports]
        versions = (version for report in reports for version in report.versions)
        return next((v.outputs for v in versions if v.key == key and v.outputs), ())

    def has_failed(self, model: str) -> bool:
        """Return whether a version of the model cannot load, so waiting is no use."""
        return any(
            version.key.model == model and version.has_failed
            for report in self.reports.values()
            for version in report.versions
        )

    async def _ask(self, name: str) -> None:
        """Ask one engine for its status, and keep what it says."""
        client = self._clients.get(name)
        status = None
        if client is not None:
            with contextlib.suppress(EngineError, TimeoutError):
                status = await asyncio.wait_for(client.status(), _POLL_S)
        if self._clients.get(name) is not client:
            return
        self.asked += 1
        if status is None:
            self.reports.pop(name, None)
            self._ready.pop(name, None)
            return
        self.reports[name] = status
        ready = {v.key for v in status.versions if v.state == "ready"}
        self._ready[name] = ready
        self._ready_at |= dict.fromkeys(ready, asyncio.get_running_loop().time())

    # The choice of an engine

    def choose(
        self,
        key: VersionKey,
        names: tuple[str, ...],
        *,
        but: frozenset[str] | set[str] = frozenset(),
    ) -> tuple[str, GatewayEngineClient] | None:
        """Return the engine with the fewest of our calls, among equals in turn.

        Engines that have the version ready come first, then those that are connected.
        """
        self._turn += 1
        best, least = None, (3, 0)
        for number in range(len(names)):
            name = names[(self._turn + number) % len(names)]
            client = self._clients.get(name)
            if client is None or name in but:
                continue
            if not client.connected:
                rank = 2
            else:
                rank = 0 if key in self._ready.get(name, ()) else 1
            load = (rank, client.in_flight)
            if load < least:
                best, least = (name, client), load
        return best

    def engines_of(self, key: VersionKey) -> tuple[str, ...]:
        """Return the engines that have a version now; raises EngineError."""
        target = self._tables.find_target(key)
        if target is None:
            return ()
        if target.quarantined:
            raise quarantined(key)
        return target.engines

    def is_repeatable(self, key: VersionKey) -> bool:
        target = self._tables.find_target(key)
        return target is None or target.repeatable

    def not_ready(self, key: VersionKey, *, on: str) -> None:
        self._ready.get(on, set()).discard(key)

    def was_ready(self, key: VersionKey) -> bool:
        at = self._ready_at.get(key)
        return at is not None and asyncio.get_running_loop().time() - at < _MOMENT_S

    def longest_wait_s(self, key: VersionKey, remaining_s: float) -> float:
        return self.absences.longest_wait_s(key, remaining_s)

    async def wait(self, key: VersionKey, *, customer_id: int, until: float) -> bool:
        return await self.absences.wait(key, customer_id=customer_id, until=until)

    def _tries(
        self, call: EngineCall | ExplainCall | OpenStream, deadline: float
    ) -> Tries:
        return Tries(self, call.key, customer_id=call.customer_id, deadline=deadline)


class _Asking:
    """Ask one engine after the other in a task, on behalf of a waiter."""

    def __init__(self, call: EngineCall, tries: Tries, waiter: Waiter) -> None:
        self._waiter = waiter
        self._task = asyncio.get_running_loop().create_task(self._predict(call, tries))

    def abandon(self) -> None:
        self._task.cancel()

    async def _predict(self, call: EngineCall, tries: Tries) -> None:
        try:
            prediction = await _predict(call, tries)
        except Exception as error:
            # Also unexpected errors: the waiter is the edge of the process.
            self._waiter.fail(error)
        else:
            self._waiter.resume(prediction)


async def _predict(call: EngineCall, tries: Tries) -> Any:
    while True:
        name, client = await tries.next()
        try:
            return await client.predict(_shortened(call, tries))
        except EngineError as error:
            tries.failed(name, error)


def _shortened(call: Any, tries: Tries) -> Any:
    """Return the call with the time that is left for it; raises EngineError."""
    return msgspec.structs.replace(call, timeout_s=tries.remaining_s)
