"""Run models on a CUDA device, with pinned staging buffers, streams and graphs.

The forward passes of all versions run one after another on one stream. While one
computes, a second stream copies the next batch in and a third copies the outputs of
the previous batch out.
"""

import gc
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import util
from typing import Any

import numpy as np
import torch

from inference.engine.devices.device import (
    CaptureFailed,
    DeviceOptions,
    Function,
    MemoryUse,
    Slot,
    new_counters,
)
from inference.engine.wire.tensors import Array

_DEPTH = 2


class CudaDevice:
    staged = True
    depth = _DEPTH

    def __init__(self, name: str, options: DeviceOptions) -> None:
        self.name = name
        self.options = options
        self.counters = new_counters()
        self._device = torch.device(name)
        torch.cuda.init()  # type: ignore[no-untyped-call]
        with torch.cuda.device(self._device):
            self.title = torch.cuda.get_device_name(self._device)
            self.fast_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            self._compute, *streams = [_stream(self._device) for _ in range(3)]
        # The compiler's kernels are written in Triton.
        self.compiles = (
            options.compile != "off" and util.find_spec("triton") is not None
        )
        self._launching = threading.Lock()
        self._slots: queue.SimpleQueue[_CudaSlot] = queue.SimpleQueue()
        for _ in range(_DEPTH):
            self._slots.put(_CudaSlot(self._device, self._compute, *streams))

    @property
    def torch_device(self) -> torch.device:
        return self._device

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        slot = self._slots.get()
        try:
            yield slot
        finally:
            # After a failure copies may still be running.
            try:
                slot.settle()
            finally:
                self._slots.put(slot)

    @contextmanager
    def launching(self) -> Iterator[None]:
        with (
            self._launching,
            torch.cuda.device(self._device),
            torch.cuda.stream(self._compute),
        ):
            yield

    def call(self, function: Function, inputs: Sequence[torch.Tensor]) -> Any:
        with torch.cuda.device(self._device), torch.cuda.stream(self._compute):
            return function(*inputs)

    def capture(
        self, function: Function, inputs: Sequence[torch.Tensor], shared: Any
    ) -> "CudaGraph":
        kept = tuple([tensor.clone() for tensor in inputs])
        graph = torch.cuda.CUDAGraph()
        try:
            # "thread_local", because other threads copy meanwhile.
            with (
                _no_garbage_collection(),
                torch.cuda.graph(
                    graph,
                    pool=shared,
                    stream=self._compute,
                    capture_error_mode="thread_local",
                ),
            ):
                outputs = function(*kept)
        except RuntimeError as error:
            # An interrupted capture is not a failure of the device; if the device did
            # fail, this raises.
            torch.cuda.synchronize(self._device)
            raise CaptureFailed(str(error).splitlines()[0]) from error
        return CudaGraph(graph, kept, outputs)

    def graph_memory(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def memory(self) -> MemoryUse:
        free, total = torch.cuda.mem_get_info(self._device)
        reserved = torch.cuda.memory_reserved(self._device)
        return MemoryUse(total, total - free, reserved)

    def free_cached(self) -> None:
        torch.cuda.empty_cache()


class CudaGraph:
    """A captured forward pass with its own input and output tensors."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        inputs: tuple[torch.Tensor, ...],
        outputs: Any,
    ) -> None:
        self._graph = graph
        self._inputs = inputs
        self._outputs = outputs

    def replay(self, inputs: Sequence[torch.Tensor]) -> Any:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._outputs


class _CudaSlot:
    """Pinned buffers for one batch, grown to the largest batch so far."""

    def __init__(
        self,
        device: torch.device,
        compute: torch.cuda.Stream,
        inward: torch.cuda.Stream,
        outward: torch.cuda.Stream,
    ) -> None:
        self._device = device
        self._compute = compute
        self._inward = inward
        self._outward = outward
        self._pinned: dict[tuple[str, int], torch.Tensor] = {}
        self._arrived, self._computed, self._returned = [_event() for _ in range(3)]
        self._busy = False
        # Referenced until their copies are done, so that nobody reuses their memory.
        self._inputs: list[torch.Tensor] = []
        self._sources: list[torch.Tensor] = []
        self._outputs: list[torch.Tensor] = []

    def copy_in(
        self, arrays: Sequence[Array], *, rows: int
    ) -> tuple[torch.Tensor, ...]:
        self._busy = True
        with torch.cuda.device(self._device), torch.cuda.stream(self._inward):
            for index, array in enumerate(arrays):
                host = self._host("in", index, array.dtype, (rows, *array.shape[1:]))
                view = host.numpy()
                count = len(array)
                np.copyto(view[:count], array)
                # Fill up with real values, which every model accepts.
                view[count:] = view[:1]
                self._inputs.append(host.to(self._device, non_blocking=True))
            self._arrived.record(self._inward)
        return tuple(self._inputs)

    def await_inputs(self) -> None:
        self._compute.wait_event(self._arrived)
        for tensor in self._inputs:
            # It was made on another stream; keep its memory until this one is done.
            tensor.record_stream(self._compute)

    def copy_out(self, outputs: Sequence[torch.Tensor]) -> None:
        # Clone them, since the next replay overwrites a graph's outputs.
        self._sources = [
            output.float() if output.dtype is torch.bfloat16 else output.clone()
            for output in outputs
        ]
        self._computed.record(self._compute)
        with torch.cuda.stream(self._outward):
            self._outward.wait_event(self._computed)
            for index, source in enumerate(self._sources):
                host = self._host_like("out", index, source)
                host.copy_(source, non_blocking=True)
                self._outputs.append(host)
            self._returned.record(self._outward)

    def collect(self) -> list[Array]:
        self._returned.synchronize()
        # Copy, since the next batch reuses the buffers.
        arrays = [host.numpy().copy() for host in self._outputs]
        self._done()
        return arrays

    def settle(self) -> None:
        if self._busy:
            self._inward.synchronize()
            self._compute.synchronize()
            self._outward.synchronize()
            self._done()

    def _done(self) -> None:
        self._inputs, self._sources, self._outputs = [], [], []
        self._busy = False

    def _host(
        self, way: str, index: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> torch.Tensor:
        torch_dtype = torch.from_numpy(np.empty(0, dtype)).dtype
        return self._part(way, index, torch_dtype, shape)

    def _host_like(self, way: str, index: int, source: torch.Tensor) -> torch.Tensor:
        return self._part(way, index, source.dtype, tuple(source.shape))

    def _part(
        self, way: str, index: int, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> torch.Tensor:
        size = int(np.prod(shape)) * dtype.itemsize
        buffer = self._pinned.get((way, index))
        if buffer is None or buffer.numel() < size:
            # Pinning is slow; sizes by powers of two make it rare.
            room = 1 << max(size - 1, 4095).bit_length()
            buffer = torch.empty(room, dtype=torch.uint8, pin_memory=True)
            self._pinned[way, index] = buffer
        return buffer[:size].view(dtype).view(shape)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause garbage collection: unloading an old version's kernel ends a capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _event() -> torch.cuda.Event:
    # Blocking: a waiting thread sleeps, so that the event loop can run.
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
