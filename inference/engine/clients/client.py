"""Define the methods that every client of an engine has."""

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
    """An engine's methods, as drivers and the controller call them.

    Every method raises EngineError; `timeout_s` counts from the call.
    BlockingEngineClient has the same methods without `async`.
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
        """Yield the chunks that answer one row, each a JSON value.

        The model makes few chunks ahead of the reader. The request is sent when the
        first chunk is awaited, and closing the generator ends the stream. `timeout_s`
        is for the whole stream.
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
