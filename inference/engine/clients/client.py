"""How drivers and the controller talk to an engine."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from inference.engine.wire.messages import (
    EngineStatus,
    Explained,
    ExplainOptions,
    Params,
    Priority,
    VersionKey,
    VersionToLoad,
)
from inference.engine.wire.tensors import Prediction, Tensor


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
        priority: Priority = "interactive",
        params: Params | None = None,
        customer_id: int = 0,
    ) -> Prediction: ...

    def stream(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        timeout_s: float,
        params: Params | None = None,
        customer_id: int = 0,
    ) -> AsyncGenerator[Any, None]:
        """Give the chunks that answer one row, each a JSON value.

        The model makes few more than are read. Closing the generator ends the stream;
        nothing is asked before its first chunk is. `timeout_s` is for all of it.
        """

    async def explain(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        options: ExplainOptions,
        timeout_s: float,
        priority: Priority = "interactive",
        customer_id: int = 0,
    ) -> Explained: ...

    async def load(self, version: VersionToLoad) -> None: ...

    async def unload(self, key: VersionKey) -> None: ...

    async def status(self) -> EngineStatus: ...
