"""Call the engines that this gateway knows, and ask for their status."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import structlog

from inference.engine.clients.attempts import Attempts
from inference.engine.clients.client import EngineClient
from inference.engine.clients.socket_client import PendingCall, Waiter
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import (
    EngineStatus,
    Explained,
    OutputTensor,
    VersionKey,
)
from inference.prediction.effects import EngineCall, ExplainCall, OpenStream

logger = structlog.get_logger(__name__)

_POLL_S = 1.0

Answered = TypeVar("Answered")


class UnderWay(Protocol):
    """A call that an engine works on."""

    def abandon(self) -> None:
        """Cancel the call: nobody waits for it any more."""


class GatewayEngineClient(EngineClient, Protocol):
    """An engine's client, with what only the gateway needs."""

    @property
    def connected(self) -> bool: ...

    def begin(self, call: PredictionCall, waiter: Waiter) -> PendingCall: ...

    async def close(self) -> None: ...


class Engines:
    """Hold a client for each engine of the snapshot, and each engine's last status."""

    def __init__(self, connect: Callable[[str], GatewayEngineClient]) -> None:
        self._connect = connect
        self._addresses: dict[str, str] = {}
        self._clients: dict[str, GatewayEngineClient] = {}
        self._retired: list[GatewayEngineClient] = []
        self._turn = 0
        self.reports: dict[str, EngineStatus] = {}
        # The versions that each engine reported as ready.
        self._ready: dict[str, frozenset[VersionKey]] = {}
        # How often all engines were asked.
        self.asked = 0

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
        # Calls may still be in flight there, so these close with the process.
        self._retired += [
            client
            for name, client in before.items()
            if self._clients.get(name) is not client
        ]

    def begin(self, call: EngineCall, waiter: Waiter) -> UnderWay:
        """Ask for a prediction; the waiter gets it after this function returned.

        Raises EngineError.
        """
        clients = self._in_turn(call.engines)
        client = clients[0] if clients else None
        if client is None or not client.connected:
            return _Asking(Attempts(clients), call, waiter)
        if len(clients) == 1:
            return client.begin(call, waiter)
        return _Elsewhere(Attempts(clients), call, waiter)

    async def explain(self, call: ExplainCall) -> Explained:
        attempts = Attempts(self._in_turn(call.engines))
        return await _ask(attempts, lambda client: client.explain(call))

    async def stream(self, call: OpenStream) -> AsyncGenerator[Any]:
        """Yield the chunks of the first engine that begins; raises EngineError."""
        attempts = Attempts(self._in_turn(call.engines))
        while True:
            chunks = attempts.next().stream(call)
            begun = False
            try:
                async for chunk in chunks:
                    begun = True
                    yield chunk
                return
            except EngineError as error:
                attempts.failed(error, begun=begun)
            finally:
                await chunks.aclose()

    async def keep_asking(self) -> None:
        """Ask every engine for its status, once a second."""
        while True:
            await self.ask()
            await asyncio.sleep(_POLL_S)

    async def ask(self) -> None:
        names = list(self._clients)
        found = await asyncio.gather(*(self._status(name) for name in names))
        self.reports = {
            name: status
            for name, status in zip(names, found, strict=True)
            if status is not None
        }
        self._ready = {
            name: frozenset(v.key for v in status.versions if v.state == "ready")
            for name, status in self.reports.items()
        }
        self.asked += 1

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

    def _in_turn(self, names: Sequence[str]) -> list[GatewayEngineClient]:
        """Return the clients of these engines, another one first each time."""
        known = [self._clients[name] for name in names if name in self._clients]
        if len(known) > 1:
            self._turn += 1
            first = self._turn % len(known)
            known = known[first:] + known[:first]
        return known

    async def _status(self, name: str) -> EngineStatus | None:
        try:
            return await asyncio.wait_for(self._clients[name].status(), _POLL_S)
        except (EngineError, TimeoutError):
            return None


class _Asking:
    """Ask one engine after the other in a task, on behalf of a waiter."""

    def __init__(
        self,
        attempts: Attempts[GatewayEngineClient],
        call: EngineCall,
        waiter: Waiter,
    ) -> None:
        self._waiter = waiter
        self._task = asyncio.get_running_loop().create_task(
            self._predict(attempts, call)
        )

    def abandon(self) -> None:
        self._task.cancel()

    async def _predict(
        self, attempts: Attempts[GatewayEngineClient], call: EngineCall
    ) -> None:
        try:
            prediction = await _ask(attempts, lambda client: client.predict(call))
        except Exception as error:
            # Also unexpected errors: the waiter is the edge of the process.
            self._waiter.fail(error)
        else:
            self._waiter.resume(prediction)


class _Elsewhere:
    """Ask one engine without a task, and the others if this one cannot answer."""

    def __init__(
        self,
        attempts: Attempts[GatewayEngineClient],
        call: EngineCall,
        waiter: Waiter,
    ) -> None:
        self._attempts = attempts
        self._call = call
        self._waiter = waiter
        self._under_way: UnderWay = attempts.next().begin(call, self)

    def abandon(self) -> None:
        self._under_way.abandon()

    def resume(self, value: Any) -> None:
        self._waiter.resume(value)

    def fail(self, error: Exception) -> None:
        try:
            if not isinstance(error, EngineError):
                raise error
            self._attempts.failed(error)
        except Exception as final:
            self._waiter.fail(final)
        else:
            self._under_way = _Asking(self._attempts, self._call, self._waiter)


async def _ask(
    attempts: Attempts[GatewayEngineClient],
    ask: Callable[[GatewayEngineClient], Awaitable[Answered]],
) -> Answered:
    """Ask one engine after the other; raises EngineError."""
    while True:
        client = attempts.next()
        try:
            return await ask(client)
        except EngineError as error:
            attempts.failed(error)
