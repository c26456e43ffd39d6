"""The messages between an engine and its callers.

A frame is `<u32 length of the rest> <u32 length of the header> <header> <buffers>`,
little-endian. The header is one of these Structs in MessagePack; the buffers are the
raw C-contiguous bytes of its tensors, one after another. No pickle crosses, in either
direction. A tensor of dtype `str` has a MessagePack array of strings as its buffer.
"""

from typing import Any, Literal

import msgspec

MAX_FRAME_BYTES = 128 * 1024 * 1024


class TensorHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Name, dtype and full shape of one buffer, and its length in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class VersionKey(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One model version."""

    model: str
    version: int

    def __str__(self) -> str:
        return f"{self.model} v{self.version}"


class VersionToLoad(msgspec.Struct, frozen=True):
    """All that an engine needs to load one version."""

    key: VersionKey
    # Folder with the MLmodel file.
    path: str
    # Names of the MLflow flavors, e.g. ("python_function", "pytorch").
    flavors: tuple[str, ...]
    # The engine's Signature as plain data (msgspec.to_builtins).
    signature: dict[str, Any]
    # May code inside the artifact run (pickle, Python functions)?
    trusted: bool = False


class Predict(msgspec.Struct, frozen=True, array_like=True, tag="predict"):
    id: int
    key: VersionKey
    rows: int
    tensors: tuple[TensorHeader, ...]
    timeout_ms: int
    # Rows per forward pass at most; 0: the engine's own limit.
    max_batch_rows: int = 0


class Predicted(msgspec.Struct, frozen=True, array_like=True, tag="predicted"):
    id: int
    tensors: tuple[TensorHeader, ...]
    # Wait in the queue, time on the device, and rows that shared the batch.
    queue_us: int
    compute_us: int
    batch_rows: int


class ExplainOptions(msgspec.Struct, frozen=True):
    method: str = "auto"
    # "simple": the five largest attributions; "full": all.
    level: Literal["simple", "full"] = "simple"
    # Forward passes per instance at most; 0: the method's default.
    samples: int = 0
    # Label or index of the class to explain; None: the predicted one.
    target: str | int | None = None
    seed: int = 0
    # Also draw the first instance as an SVG waterfall.
    plot: bool = False


class Explain(msgspec.Struct, frozen=True, array_like=True, tag="explain"):
    id: int
    key: VersionKey
    rows: int
    tensors: tuple[TensorHeader, ...]
    timeout_ms: int
    options: ExplainOptions


class Attribution(msgspec.Struct, frozen=True):
    feature: str
    value: float | str | bool | None
    attribution: float


class Explanation(msgspec.Struct, frozen=True):
    """The SHAP values of one instance; in its public shape."""

    method: str
    level: str
    base_value: float
    target: str | int | None
    samples: int
    features: tuple[Attribution, ...]
    additivity_residual: float


class Explained(msgspec.Struct, frozen=True, array_like=True, tag="explained"):
    id: int
    explanations: tuple[Explanation, ...]
    compute_us: int
    # Forward passes spent, summed over the instances.
    samples: int
    svg: str | None = None


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    id: int
    code: str
    message: str
    retry_after_ms: int | None = None


class Load(msgspec.Struct, frozen=True, array_like=True, tag="load"):
    """Ask for a version; answered by Accepted at once, loading goes on after it."""

    id: int
    version: VersionToLoad


class Unload(msgspec.Struct, frozen=True, array_like=True, tag="unload"):
    id: int
    key: VersionKey


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """The caller of request `id` left; nothing is answered."""

    id: int


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="accepted"):
    id: int


class GetStatus(msgspec.Struct, frozen=True, array_like=True, tag="get_status"):
    id: int


class VersionStatus(msgspec.Struct, frozen=True):
    key: VersionKey
    state: Literal["loading", "ready", "failed"]
    error: str = ""
    load_ms: int | None = None
    queued_rows: int = 0


class EngineStatus(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    id: int
    device: str
    pid: int
    memory_bytes: int
    versions: tuple[VersionStatus, ...]
    # Engine counters by name, e.g. {"batches": 12, "malformed_frames": 0}.
    counters: dict[str, int]


Request = Predict | Explain | Load | Unload | Cancel | GetStatus
Reply = Predicted | Explained | Failed | Accepted | EngineStatus
