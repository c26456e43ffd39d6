"""Define what torch runners need from a device of any kind.

A batch passes a device in four steps; the steps of two batches overlap:

1. `slot()` waits for staging buffers, one set per batch in flight;
2. `Slot.copy_in` starts the copies to the device;
3. under `launching()`, one batch at a time queues its forward pass behind the copies,
   and `Slot.copy_out` behind the forward pass;
4. `Slot.collect` waits for the outputs.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from inference.engine.wire.tensors import Array

if TYPE_CHECKING:
    import torch

# Takes tensors on the device; returns what the model returns.
Function = Callable[..., Any]


class MemoryUse(NamedTuple):
    """Bytes of a device's memory: all, in use by all processes, held by this engine.

    `reserved_bytes` includes free memory that the engine keeps for later.
    """

    total_bytes: int
    used_bytes: int
    reserved_bytes: int


class DeviceOptions(msgspec.Struct, frozen=True):
    """The part of an engine's settings that concerns its device."""

    # Largest batch to prepare for.
    max_batch_rows: int = 256
    # "auto": only on CUDA.
    compile: str = "auto"
    # Most graphs to capture per version; 0: none.
    max_graphs: int = 8


def new_counters() -> dict[str, int]:
    """Make the counters of a device with staging buffers."""
    return dict.fromkeys(
        (
            "graphs_captured",
            "graph_fallbacks",
            "graph_batches",
            "eager_batches",
            "filled_rows",
        ),
        0,
    )


class CaptureFailed(Exception):
    """A forward pass cannot be captured as a graph; the text says why."""


class Graph(Protocol):
    """A captured forward pass over inputs of one shape."""

    def replay(self, inputs: "Sequence[torch.Tensor]") -> Any:
        """Queue it on the device; the next replay overwrites the outputs."""


class Slot(Protocol):
    """Staging buffers of one batch."""

    def copy_in(
        self, arrays: Sequence[Array], *, rows: int
    ) -> "tuple[torch.Tensor, ...]":
        """Start copying `rows` rows; missing rows are copies of the first."""

    def await_inputs(self) -> None:
        """Make work that is launched from now on wait for the copies."""

    def copy_out(self, outputs: "Sequence[torch.Tensor]") -> None:
        """Start copying the outputs back once they are computed."""

    def collect(self) -> list[Array]:
        """Wait for the outputs and return them; the caller may keep them."""


class Device(Protocol):
    """One device of this process, used by the device threads and the loading thread.

    `staged`: batches pass it in the four steps above. Otherwise runners call the model
    directly on the arrays.
    """

    name: str
    title: str
    options: DeviceOptions
    staged: bool
    # Batches that may be in flight at once.
    depth: int
    # Whether half precision is faster here.
    fast_bfloat16: bool
    compiles: bool
    # Numbers by name, for the status of the engine; changed under `launching()`.
    counters: dict[str, int]

    @property
    def torch_device(self) -> "torch.device": ...

    def slot(self) -> AbstractContextManager[Slot]: ...

    def launching(self) -> AbstractContextManager[None]: ...

    def call(self, function: Function, inputs: "Sequence[torch.Tensor]") -> Any:
        """Run a forward pass; call only under `launching()`."""

    def capture(
        self, function: Function, inputs: "Sequence[torch.Tensor]", shared: Any
    ) -> Graph:
        """Capture a forward pass that ran before; raise CaptureFailed.

        Graphs with the same `shared` (from `graph_memory()`) share memory, as they are
        replayed one after another. Call only under `launching()`.
        """

    def graph_memory(self) -> Any: ...

    def memory(self) -> MemoryUse: ...

    def free_cached(self) -> None:
        """Return memory that is kept for later to the device."""
