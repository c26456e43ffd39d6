"""Define the methods that every client of an engine has."""

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from inference.engine.wire.calls import ExplanationCall, PredictionCall, StreamCall
from inference.engine.wire.messages import (
    EngineStatus,
    Explained,
    VersionKey,
    VersionToLoad,
)
from inference.engine.wire.tensors import Prediction


class EngineClient(Protocol):
    """An engine's methods, as drivers and the controller call them.

    Every method raises EngineError; `timeout_s` counts from the call.
    BlockingEngineClient has the same methods without `async`.
    """

    async def predict(self, call: PredictionCall) -> Prediction: ...

    def stream(self, call: StreamCall) -> AsyncGenerator[Any, None]:
        """Yield the chunks that answer one row, each a JSON value.

        The model makes few chunks ahead of the reader. The request is sent when the
        first chunk is awaited, and closing the generator ends the stream. `timeout_s`
        is for the whole stream.
        """

    async def explain(self, call: ExplanationCall) -> Explained: ...

    async def load(self, version: VersionToLoad) -> None: ...

    async def unload(self, key: VersionKey) -> None: ...

    async def status(self) -> EngineStatus: ...
