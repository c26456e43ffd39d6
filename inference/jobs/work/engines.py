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

    An engine that evicted the version loads it again when it is called.
    """

    def __init__(self) -> None:
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
        address = (
            LoadedVersion.objects.filter(
                model=key.model,
                version=key.version,
                state__in=(LoadedVersion.State.READY, LoadedVersion.State.EVICTED),
                engine__state=Engine.State.RUNNING,
            )
            # "ready" comes after "evicted" in the alphabet.
            .order_by("-state", "engine__name")
            .values_list("engine__address", flat=True)
            .first()
        )
        if address is None:
            return None
        if address not in self._clients:
            self._clients[address] = BlockingEngineClient(Path(address))
        return self._clients[address]
