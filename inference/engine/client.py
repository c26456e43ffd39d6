"""How the fronts and the controller talk to an engine."""

from collections.abc import Sequence
from typing import Protocol

from inference.engine.blocking_client import BlockingEngineClient
from inference.engine.in_process_client import InProcessEngineClient
from inference.engine.messages import (
    EngineStatus,
    Explained,
    ExplainOptions,
    VersionKey,
    VersionToLoad,
)
from inference.engine.socket_client import SocketEngineClient
from inference.engine.tensors import Array, Prediction, Tensor

__all__ = [
    "Array",
    "BlockingEngineClient",
    "EngineClient",
    "InProcessEngineClient",
    "Prediction",
    "SocketEngineClient",
    "Tensor",
]


class EngineClient(Protocol):
    """Every method raises EngineError; `timeout_s` counts from the call.

    BlockingEngineClient has the same methods, not awaited.
    """

    async def predict(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        timeout_s: float,
        max_batch_rows: int = 0,
    ) -> Prediction: ...

    async def explain(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        options: ExplainOptions,
        timeout_s: float,
    ) -> Explained: ...

    async def load(self, version: VersionToLoad) -> None: ...

    async def unload(self, key: VersionKey) -> None: ...

    async def status(self) -> EngineStatus: ...
