"""How the fronts and the controller talk to an engine."""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.engine.messages import (
    EngineStatus,
    Explained,
    ExplainOptions,
    VersionKey,
    VersionToLoad,
)

# dtype `object` holds Python strings only.
Array = NDArray[np.generic] | NDArray[np.object_]


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """A named array whose first axis is the rows."""

    name: str
    data: Array


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """Outputs of one request, rows in its order, and where its time went."""

    tensors: tuple[Tensor, ...]
    queue_us: int
    compute_us: int
    batch_rows: int


class EngineClient(Protocol):
    """Every method raises EngineError; `timeout_s` counts from the call."""

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
