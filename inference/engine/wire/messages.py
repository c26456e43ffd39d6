"""Define the messages between an engine and its callers.

A frame is `<u32 length of the rest> <u8 format> <u32 length of the header> <header>
<buffers>`, little-endian. The header is one of these Structs in MessagePack; the
buffers are the raw C-contiguous bytes of its tensors, one after another. The buffer of
a tensor of dtype `str` or `json` is a MessagePack array. No pickle crosses in either
direction.
"""

import hashlib
from typing import Any, Literal

import msgspec

# It grows when an older reader would misunderstand a message.
FORMAT = 1
MAX_FRAME_BYTES = 128 * 1024 * 1024
# Credits that the smallest chunk of a stream takes.
MIN_CHUNK_CREDITS = 2048

Params = dict[str, Any]

# Interactive requests go first; jobs still get a small share of the device.
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
    """How a version forms its batches; None: the engine's own setting."""

    # Time that the first request of a batch waits for others.
    max_wait_ms: float | None = None
    max_batch_rows: int | None = None
    max_batch_bytes: int | None = None
    # Whether requests share batches; None: if the version answers rows independently.
    join: bool | None = None


class ProcessRules(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a version's process is run and held within bounds.

    Said in the version's metadata as `process`, and overridden in the admin.
    """

    # "own", "shared" or "group NAME"; empty: by the kind of artifact.
    isolation: str = ""
    # Processes that hold the version at the same time.
    replicas: int = 1
    # A piece of a batch that runs longer ends with its process.
    max_run_s: float = 60.0
    # Memory beyond that of an empty process; 0: measured at load, with room.
    memory_mb: int = 0
    # A fresh process takes over after so many calls, or so much growth; 0: never.
    recycle_after_calls: int = 0
    recycle_after_mb: int = 0
    # false: a prediction whose process died is not repeated.
    repeatable: bool = True
    # Whether the model may open connections; only with an administrator's consent.
    network: bool = False
    # Whether logs of failed batches may hold values of rows.
    log_values: bool = False


# The environment that the engine itself was installed in.
BASE_ENVIRONMENT = "base"


class VersionToLoad(msgspec.Struct, frozen=True):
    """Everything that an engine needs to load one version."""

    key: VersionKey
    # Folder with the MLmodel file.
    path: str
    # Names of the MLflow flavors, e.g. ("python_function", "pytorch").
    flavors: tuple[str, ...]
    # The engine's Signature as plain data (msgspec.to_builtins).
    signature: dict[str, Any]
    # Whether code inside the artifact may run (pickle, Python functions).
    trusted: bool = False
    batching: Batching = Batching()
    # A route uses it, so it never leaves the device's memory for other versions.
    pinned: bool = True
    process: ProcessRules = ProcessRules()
    # Digest of the Python environment that it needs, or `BASE_ENVIRONMENT`.
    environment: str = BASE_ENVIRONMENT
    # Whether the same row always gets the same answer; checked when it is loaded.
    deterministic: bool = True
    # Its process died while it loaded, so only rows of its example are tried.
    fragile: bool = False

    def form(self) -> str:
        """Return a digest of the fields that cannot change without a new load."""
        fixed = (
            self.path,
            self.flavors,
            self.signature,
            self.trusted,
            self.deterministic,
        )
        return hashlib.sha256(msgspec.json.encode(fixed, order="sorted")).hexdigest()


class Predict(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="predict"):
    id: int
    key: VersionKey
    rows: int
    tensors: tuple[TensorHeader, ...]
    timeout_ms: int
    # Most rows in one forward pass; 0: the engine's own limit.
    max_batch_rows: int = 0
    priority: Priority = "interactive"
    # The signature's parameters that the caller sets, as JSON values.
    params: Params | None = None
    # Customers take turns and share the queue; 0: unknown.
    customer_id: int = 0
    # The request's id, as its caller knows it; empty: unknown.
    request_id: str = ""


class Predicted(
    msgspec.Struct, frozen=True, array_like=True, gc=False, tag="predicted"
):
    id: int
    tensors: tuple[TensorHeader, ...]
    # Time in the queue, time on the device, and rows in the whole batch.
    queue_us: int
    compute_us: int
    batch_rows: int


class StreamRequest(msgspec.Struct, frozen=True, array_like=True, tag="stream"):
    """Ask for the answer to one row in chunks.

    The engine sends StreamChunks while there are credits, then StreamEnd or Failed.
    """

    id: int
    key: VersionKey
    tensors: tuple[TensorHeader, ...]
    timeout_ms: int
    # Credits to start with, before the first Credit message.
    credits: int
    params: Params | None = None
    # Customers share the engine's streams; 0: unknown.
    customer_id: int = 0
    # The request's id, as its caller knows it; empty: unknown.
    request_id: str = ""


class Credit(msgspec.Struct, frozen=True, array_like=True, tag="credit"):
    """Grant more credits to stream `id`; the engine does not answer.

    `credits_of` says how many credits a chunk takes.
    """

    id: int
    credits: int


def credits_of(chunk: bytes | msgspec.Raw) -> int:
    """Return how many credits a chunk takes: its size in bytes, at least 2048.

    The minimum limits how many tiny chunks are made ahead of a slow reader.
    """
    return max(len(chunk), MIN_CHUNK_CREDITS)


class StreamChunk(msgspec.Struct, frozen=True, array_like=True, tag="stream_chunk"):
    id: int
    # A JSON value in MessagePack.
    chunk: msgspec.Raw


class StreamEnd(msgspec.Struct, frozen=True, array_like=True, tag="stream_end"):
    id: int
    chunks: int


class ExplainOptions(msgspec.Struct, frozen=True):
    method: str = "auto"
    # "simple": the five largest attributions; "full": all.
    level: Literal["simple", "full"] = "simple"
    # Most rows given to the model per instance; 0: the method's default.
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
    # The request's id, as its caller knows it; empty: unknown.
    request_id: str = ""


class Attribution(msgspec.Struct, frozen=True):
    feature: str
    value: float | str | bool | None
    attribution: float


class Explanation(msgspec.Struct, frozen=True):
    """The SHAP values of one instance, in the shape of the public API."""

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
    # Time of the work itself, without waiting for the device.
    compute_us: int
    # Rows given to the model, summed over the instances.
    samples: int
    svg: str | None = None
    # Time waiting in the queue and for the device.
    queue_us: int = 0


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    id: int
    code: str
    message: str
    retry_after_ms: int | None = None
    # Option that the message is about, if the message is for the caller.
    option: str = ""
    of_customer: bool = False


class Load(msgspec.Struct, frozen=True, array_like=True, tag="load"):
    """Ask the engine to load a version; it answers Accepted at once, then loads."""

    id: int
    version: VersionToLoad


class Unload(msgspec.Struct, frozen=True, array_like=True, tag="unload"):
    id: int
    key: VersionKey


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Drop request `id`, because its caller left; the engine does not answer."""

    id: int


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="accepted"):
    id: int


class GetStatus(msgspec.Struct, frozen=True, array_like=True, tag="get_status"):
    id: int


class OutputTensor(msgspec.Struct, frozen=True):
    """An output as the version returned it for its own example."""

    name: str
    dtype: str
    # Shape per row; -1 where the length varies.
    shape: tuple[int, ...]


class BatchFailure(msgspec.Struct, frozen=True):
    """A batch on which a model failed, for its data scientists."""

    # Seconds since the epoch.
    at: float
    code: str
    # Type of the exception, and what it says; values of rows are redacted.
    exception: str
    message: str
    trace: str = ""
    rows: int = 0
    # Ids of the requests in the batch, as their callers know them.
    request_ids: tuple[str, ...] = ()


class VersionStatus(msgspec.Struct, frozen=True):
    key: VersionKey
    # "evicted": others needed its memory; it loads again when somebody calls it.
    state: Literal["loading", "ready", "failed", "evicted"]
    # With state "loading": why the previous attempt failed.
    error: str = ""
    load_ms: int | None = None
    queued_rows: int = 0
    queued_bytes: int = 0
    # Measured when it was loaded.
    memory_bytes: int = 0
    # As in the last Load.
    pinned: bool = True
    batching: Batching = Batching()
    # How it runs, in a few words each: its precision, why it has no graphs.
    notes: tuple[str, ...] = ()
    # Empty before the first load, and if the version has no example.
    outputs: tuple[OutputTensor, ...] = ()
    # `VersionToLoad.form` of the last Load; empty from older engines.
    form: str = ""
    # It cannot load until its description changes, for example to trusted.
    refused: bool = False
    # Why its requests share no batches; empty: they do.
    apart: str = ""
    # Requests answered, and rows in them, since it was loaded.
    calls: int = 0
    rows: int = 0
    # Forward passes since then.
    batches: int = 0
    # Measured seconds for a batch of one row; 0: not known yet.
    single_row_s: float = 0.0
    # Seconds since the epoch; 0: not ready yet.
    ready_at: float = 0.0
    # The last batches on which it failed, the newest last.
    failures: tuple[BatchFailure, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether loading failed, even if another attempt is running now."""
        return self.state == "failed" or (self.state == "loading" and bool(self.error))


class DeviceStatus(msgspec.Struct, frozen=True):
    """A device's name and memory: all of it, used by all, and kept by this engine."""

    title: str
    total_bytes: int
    used_bytes: int
    reserved_bytes: int


class Spread(msgspec.Struct, frozen=True):
    """How many values lie in each bucket of a metric, and their sum."""

    buckets: tuple[int, ...]
    total: float


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
    # By name, with the buckets of the metrics of the same name.
    distributions: dict[str, Spread] = {}


Request = (
    Predict | Explain | StreamRequest | Credit | Load | Unload | Cancel | GetStatus
)
Reply = (
    Predicted | Explained | StreamChunk | StreamEnd | Failed | Accepted | EngineStatus
)
