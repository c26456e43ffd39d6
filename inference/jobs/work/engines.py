"""Find an engine for a job's rows, and connect to it."""

from pathlib import Path
from types import TracebackType
from typing import Self

from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.wire.messages import VersionKey
from inference.jobs.work.row_predictor import JobEngine
from inference.models import Engine, LoadedVersion


class LoadedEngines:
    """Clients of the engines that have a version, as the controller reports them.

    They take turns. One that evicted the version loads it again when it is called.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._clients: dict[str, BlockingEngineClient] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            client.close()

    def find(self, key: VersionKey) -> JobEngine | None:
        rows = (
            LoadedVersion.objects.filter(
                model=key.model,
                version=key.version,
                state__in=(LoadedVersion.State.READY, LoadedVersion.State.EVICTED),
                engine__state=Engine.State.RUNNING,
            )
            .order_by("engine__name")
            .values_list("state", "engine__address")
        )
        found: dict[str, list[str]] = {}
        for state, address in rows:
            found.setdefault(state, []).append(address)
        addresses = found.get(LoadedVersion.State.READY) or found.get(
            LoadedVersion.State.EVICTED
        )
        if not addresses:
            return None
        self._turn += 1
        address = addresses[self._turn % len(addresses)]
        if address not in self._clients:
            self._clients[address] = BlockingEngineClient(Path(address))
        return self._clients[address]
