"""The messages between an engine and its callers.

A frame is `<u32 length of the rest> <u32 length of the header> <header> <buffers>`,
little-endian. The header is one of these Structs in MessagePack; the buffers are the
raw C-contiguous bytes of its tensors, one after another. No pickle crosses, in either
direction. A tensor of dtype `str` has a MessagePack array of strings as its buffer.
"""

import hashlib
from typing import Any, Literal

import msgspec

MAX_FRAME_BYTES = 128 * 1024 * 1024
# What the smallest chunk of a stream counts.
MIN_CHUNK_CREDITS = 2048

Params = dict[str, Any]

# Jobs wait while interactive requests do, short of a small share of the device.
Priority = Literal["interactive", "job"]


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


class Batching(msgspec.Struct, frozen=True):
    """What a version sets about its batches; None: the engine's own."""

    # Time that the first request of a batch waits for company.
    max_wait_ms: float | None = None
    max_batch_rows: int | None = None
    max_batch_bytes: int | None = None


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
    batching: Batching = Batching()
    # In a route: it never leaves the device's memory for others.
    pinned: bool = True

    def form(self) -> str:
        """Return a digest of what cannot change while the version is loaded."""
        fixed = (self.path, self.flavors, self.signature, self.trusted)
        return hashlib.sha256(msgspec.json.encode(fixed, order="sorted")).hexdigest()


class Predict(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="predict"):
    id: int
    key: VersionKey
    rows: int
    tensors: tuple[TensorHeader, ...]
    timeout_ms: int
    # Rows per forward pass at most; 0: the engine's own limit.
    max_batch_rows: int = 0
    priority: Priority = "interactive"
    # What the caller sets of the signature's parameters, as JSON values.
    params: Params | None = None
    # Customers take turns and share what may wait; 0: unknown.
    customer_id: int = 0


class Predicted(
    msgspec.Struct, frozen=True, array_like=True, gc=False, tag="predicted"
):
    id: int
    tensors: tuple[TensorHeader, ...]
    # Wait in the queue, time on the device, and rows that shared the batch.
    queue_us: int
    compute_us: int
    batch_rows: int


class StreamRequest(msgspec.Struct, frozen=True, array_like=True, tag="stream"):
    """Ask for the answer to one row in chunks.

    Answered by StreamChunks, as many as there are credits, then StreamEnd or Failed.
    """

    id: int
    key: VersionKey
    tensors: tuple[TensorHeader, ...]
    timeout_ms: int
    # What may be sent before the first Credit.
    credits: int
    params: Params | None = None
    # Customers share what an engine can stream at once; 0: unknown.
    customer_id: int = 0


class Credit(msgspec.Struct, frozen=True, array_like=True, tag="credit"):
    """Allow more of stream `id`; nothing is answered.

    A chunk takes the credits that `credits_of` tells.
    """

    id: int
    credits: int


def credits_of(chunk: bytes | msgspec.Raw) -> int:
    """Return what a chunk takes of a stream's credits: its bytes, at least 2048.

    So many small chunks as few large ones are made ahead of a slow reader.
    """
    return max(len(chunk), MIN_CHUNK_CREDITS)


class StreamChunk(msgspec.Struct, frozen=True, array_like=True, tag="stream_chunk"):
    id: int
    # A JSON value.
    chunk: msgspec.Raw


class StreamEnd(msgspec.Struct, frozen=True, array_like=True, tag="stream_end"):
    id: int
    chunks: int


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
    priority: Priority = "interactive"
    # Customers take turns; 0: unknown.
    customer_id: int = 0


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
    # Time of the work, without what it waited for the device.
    compute_us: int
    # Forward passes spent, summed over the instances.
    samples: int
    svg: str | None = None
    # Wait in the queue, and for the device.
    queue_us: int = 0


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    id: int
    code: str
    message: str
    retry_after_ms: int | None = None
    # What the message is about, if it is for the caller.
    option: str = ""
    of_customer: bool = False


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


class OutputTensor(msgspec.Struct, frozen=True):
    """An output as a version gave it for its own example."""

    name: str
    dtype: str
    # Per row; -1 where its length varies.
    shape: tuple[int, ...]


class VersionStatus(msgspec.Struct, frozen=True):
    key: VersionKey
    # "evicted": others needed its memory, and it loads again when it is called.
    state: Literal["loading", "ready", "failed", "evicted"]
    # Of one that is loading: it failed before, and is tried again as it was.
    error: str = ""
    load_ms: int | None = None
    queued_rows: int = 0
    queued_bytes: int = 0
    # Measured when it was loaded.
    memory_bytes: int = 0
    # As the engine was last told.
    pinned: bool = True
    batching: Batching = Batching()
    # How it runs, in a few words each: its precision, why it has no graphs.
    notes: tuple[str, ...] = ()
    # Empty before it was loaded for the first time, and where it has no example.
    outputs: tuple[OutputTensor, ...] = ()
    # `VersionToLoad.form` as the engine was last told; empty from engines before it.
    form: str = ""
    # It failed, and will until it is described otherwise, such as trusted.
    refused: bool = False

    @property
    def has_failed(self) -> bool:
        """Tell whether waiting does not help, though another try may be running."""
        return self.state == "failed" or (self.state == "loading" and bool(self.error))


class DeviceStatus(msgspec.Struct, frozen=True):
    """A device's name and memory: all, in use by anybody, and this engine's own."""

    title: str
    total_bytes: int
    used_bytes: int
    reserved_bytes: int


class EngineStatus(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    id: int
    device: str
    pid: int
    memory_bytes: int
    versions: tuple[VersionStatus, ...]
    # Engine counters by name, e.g. {"batches": 12, "malformed_frames": 0}.
    counters: dict[str, int]
    # None until the device is open.
    device_status: DeviceStatus | None = None


Request = (
    Predict | Explain | StreamRequest | Credit | Load | Unload | Cancel | GetStatus
)
Reply = (
    Predicted | Explained | StreamChunk | StreamEnd | Failed | Accepted | EngineStatus
)
