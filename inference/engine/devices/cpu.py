"""Run models on the CPU, which mostly reads the request's arrays without copies.

torch is imported only when a torch model is loaded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import psutil

from inference.engine.devices.device import (
    CaptureFailed,
    DeviceOptions,
    Function,
    Graph,
    MemoryUse,
    Slot,
)
from inference.engine.wire.tensors import Array

if TYPE_CHECKING:
    import torch


class CpuDevice:
    name = "cpu"
    title = "processor"
    staged = False
    depth = 1
    # Most CPUs only emulate it.
    fast_bfloat16 = False

    def __init__(self, options: DeviceOptions) -> None:
        self.options = options
        self.counters: dict[str, int] = {}
        self.compiles = options.compile == "on"

    @property
    def torch_device(self) -> "torch.device":
        import torch

        return torch.device("cpu")

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        yield _Slot()

    def launching(self) -> nullcontext[None]:
        return nullcontext()

    def call(self, function: Function, inputs: "Sequence[torch.Tensor]") -> Any:
        return function(*inputs)

    def capture(
        self, function: Function, inputs: "Sequence[torch.Tensor]", shared: Any
    ) -> Graph:
        raise CaptureFailed("The processor has no graphs.")

    def graph_memory(self) -> None:
        return None

    def memory(self) -> MemoryUse:
        machine = psutil.virtual_memory()
        own = psutil.Process().memory_info().rss
        return MemoryUse(machine.total, machine.total - machine.available, own)

    def free_cached(self) -> None:
        pass


class _Slot:
    def __init__(self) -> None:
        self._outputs: list[Array] = []

    def copy_in(
        self, arrays: Sequence[Array], *, rows: int
    ) -> "tuple[torch.Tensor, ...]":
        from inference.engine.devices.arrays import as_tensors

        return as_tensors(arrays)

    def await_inputs(self) -> None:
        pass

    def copy_out(self, outputs: "Sequence[torch.Tensor]") -> None:
        from inference.engine.devices.arrays import as_array

        self._outputs = [as_array(output) for output in outputs]

    def collect(self) -> list[Array]:
        return self._outputs
