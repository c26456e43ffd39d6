"""The engines that this gateway talks to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from inference.engine.client import EngineClient, Prediction, SocketEngineClient
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import EngineStatus, Explained, VersionKey
from inference.prediction import EngineCall, ExplainCall
from inference.tables import Tables

logger = structlog.get_logger(__name__)

_POLL_S = 1.0
# Another engine may answer what this one cannot; nothing was computed yet.
_ELSEWHERE = frozenset(
    {
        EngineErrorCode.NOT_LOADED,
        EngineErrorCode.LOADING,
        EngineErrorCode.CONNECTION_LOST,
        EngineErrorCode.DRAINING,
        EngineErrorCode.OVERLOADED,
    }
)


class Engines:
    """One client per engine of the snapshot, and what each reports."""

    def __init__(self, connect: Callable[[str], EngineClient]) -> None:
        self._connect = connect
        self._addresses: dict[str, str] = {}
        self._clients: dict[str, EngineClient] = {}
        self._retired: list[EngineClient] = []
        self._turn = 0
        self.reports: dict[str, EngineStatus] = {}

    def replace(self, addresses: Mapping[str, str]) -> None:
        """Keep the clients whose addresses stay."""
        before = self._clients
        self._clients = {
            name: before[name]
            if self._addresses.get(name) == address
            else self._connect(address)
            for name, address in addresses.items()
        }
        self._addresses = dict(addresses)
        # Calls may be in flight there still; closed with the process.
        self._retired += [
            client
            for name, client in before.items()
            if self._clients.get(name) is not client
        ]

    def predict(self, call: EngineCall) -> Awaitable[Prediction]:
        names = call.engines
        if len(names) == 1 and (client := self._clients.get(names[0])) is not None:
            # The only engine is asked without a coroutine in between.
            return client.predict(
                call.key,
                call.tensors,
                timeout_s=call.timeout_s,
                max_batch_rows=call.max_batch_rows,
            )
        return self._predict_on_any(call)

    async def _predict_on_any(self, call: EngineCall) -> Prediction:
        failure = _no_engine()
        for client in self._in_turn(call.engines):
            try:
                return await client.predict(
                    call.key,
                    call.tensors,
                    timeout_s=call.timeout_s,
                    max_batch_rows=call.max_batch_rows,
                )
            except EngineError as error:
                if error.code not in _ELSEWHERE:
                    raise
                failure = error
        raise failure

    async def explain(self, call: ExplainCall) -> Explained:
        failure = _no_engine()
        for client in self._in_turn(call.engines):
            try:
                return await client.explain(
                    call.key,
                    call.tensors,
                    options=call.options,
                    timeout_s=call.timeout_s,
                )
            except EngineError as error:
                if error.code not in _ELSEWHERE:
                    raise
                failure = error
        raise failure

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

    async def close(self) -> None:
        for client in (*self._clients.values(), *self._retired):
            if isinstance(client, SocketEngineClient):
                await client.close()

    def waiting_for(self, tables: Tables) -> list[str]:
        """Say what keeps the defaults of the routes from answering."""
        if not tables.snapshot.sequence and not tables.models:
            return ["no snapshot was published yet"]
        waiting = []
        for entry in tables.models.values():
            model = entry.model
            default = next((v for v in model.variants if v.role == "default"), None)
            if default is None:
                if model.routed and not self._failed(model.name):
                    waiting.append(f"{model.name} has no default that is served yet")
                continue
            key = VersionKey(model.name, default.version)
            if not any(self._has(name, key) for name in model.engines):
                waiting.append(f"{key} is ready on no engine")
        return waiting

    def _has(self, name: str, key: VersionKey) -> bool:
        report = self.reports.get(name)
        return report is not None and any(
            version.key == key and version.state == "ready"
            for version in report.versions
        )

    def _failed(self, model: str) -> bool:
        """Tell whether a version cannot load: then waiting for it is no use."""
        return any(
            version.key.model == model and version.state == "failed"
            for report in self.reports.values()
            for version in report.versions
        )

    def _in_turn(self, names: Sequence[str]) -> list[EngineClient]:
        """Start with another engine each time."""
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


def _no_engine() -> EngineError:
    return EngineError(EngineErrorCode.CONNECTION_LOST, "no engine is known")
