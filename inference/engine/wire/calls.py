"""Define the calls to an engine: predictions, streams and explanations."""

from collections.abc import Sequence

import msgspec

from inference.engine.wire.messages import ExplainOptions, Params, Priority, VersionKey
from inference.engine.wire.tensors import Tensor


class PredictionCall(msgspec.Struct, frozen=True, gc=False):
    """Predict rows: all tensors have the same first dimension."""

    key: VersionKey
    tensors: Sequence[Tensor]
    # Seconds from the call on, including the time in the queue.
    timeout_s: float
    # Most rows in one forward pass; 0: the engine's own limit.
    max_batch_rows: int = 0
    params: Params | None = None
    # Customers take turns and share the queue; 0: unknown.
    customer_id: int = 0
    priority: Priority = "interactive"
    # The request's id, as its caller knows it; empty: unknown.
    request_id: str = ""


class StreamCall(msgspec.Struct, frozen=True):
    """Answer one row in chunks; `timeout_s` is for the whole stream."""

    key: VersionKey
    tensors: Sequence[Tensor]
    timeout_s: float
    params: Params | None = None
    customer_id: int = 0
    request_id: str = ""


class ExplanationCall(msgspec.Struct, frozen=True):
    """Explain the prediction of each row."""

    key: VersionKey
    tensors: Sequence[Tensor]
    timeout_s: float
    options: ExplainOptions
    customer_id: int = 0
    priority: Priority = "interactive"
    request_id: str = ""
