"""What the torch runners ask of a device, whatever it is.

A batch passes a device in four steps, of which those of two batches overlap:

1. `slot()` waits for staging buffers, one pair per batch in flight;
2. `Slot.copy_in` starts the copies to the device;
3. under `launching()`, one batch at a time: the forward pass is put behind the copies
   and `Slot.copy_out` behind it;
4. `Slot.collect` waits for the outputs.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from inference.engine.wire.tensors import Array

if TYPE_CHECKING:
    import torch

# Takes tensors on the device; gives whatever the model does.
Function = Callable[..., Any]


class MemoryUse(NamedTuple):
    """Bytes of the device: all, those in use by anybody, and those this engine has.

    `reserved_bytes` are the engine's own, the part that it keeps for later included.
    """

    total_bytes: int
    used_bytes: int
    reserved_bytes: int


class DeviceOptions(msgspec.Struct, frozen=True):
    """What the settings of an engine say about its device."""

    # The largest batch that is prepared for.
    max_batch_rows: int = 256
    # "auto": on CUDA.
    compile: str = "auto"
    # Graphs captured per version at most; 0: none.
    max_graphs: int = 8


def new_counters() -> dict[str, int]:
    """Make the counters of a device whose batches are staged."""
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
        """Put it on the device; the outputs are overwritten by the next replay."""


class Slot(Protocol):
    """Staging buffers of one batch."""

    def copy_in(
        self, arrays: Sequence[Array], *, rows: int
    ) -> "tuple[torch.Tensor, ...]":
        """Start copying; rows that `arrays` lack are copies of the first."""

    def await_inputs(self) -> None:
        """Put what is launched from now on behind the copies."""

    def copy_out(self, outputs: "Sequence[torch.Tensor]") -> None:
        """Start copying back what was launched, behind it."""

    def collect(self) -> list[Array]:
        """Wait for the outputs; they are the caller's own."""


class Device(Protocol):
    """One device of this process; used from the device threads and the loading thread.

    `staged`: batches pass it in the four steps above. Otherwise runners call the model
    on the arrays themselves.
    """

    name: str
    title: str
    options: DeviceOptions
    staged: bool
    # Batches that it can take in at once.
    depth: int
    # Is half precision worth it here?
    fast_bfloat16: bool
    compiles: bool
    # Numbers by name, for the status of the engine; changed under `launching()`.
    counters: dict[str, int]

    @property
    def torch_device(self) -> "torch.device": ...

    def slot(self) -> AbstractContextManager[Slot]: ...

    def launching(self) -> AbstractContextManager[None]: ...

    def call(self, function: Function, inputs: "Sequence[torch.Tensor]") -> Any:
        """Run a forward pass; only under `launching()`."""

    def capture(
        self, function: Function, inputs: "Sequence[torch.Tensor]", shared: Any
    ) -> Graph:
        """Capture a forward pass that ran before; raise CaptureFailed.

        Graphs with the same `shared`, from `graph_memory()`, share their memory: they
        are replayed one after another. Only under `launching()`.
        """

    def graph_memory(self) -> Any: ...

    def memory(self) -> MemoryUse: ...

    def free_cached(self) -> None:
        """Give memory back that is kept for later."""
