"""Run a torch module's forward pass on a device, from numpy arrays to numpy arrays.

This module imports torch, so import it only where a torch model is loaded.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from inference.engine.devices import failures
from inference.engine.devices.arrays import as_array, as_tensors
from inference.engine.devices.device import CaptureFailed, Device, Function, Graph
from inference.engine.wire.joined_outputs import ONLY_OUTPUT
from inference.engine.wire.tensors import Array

# Shapes per row of the inputs; each combination has its own graphs.
Shapes = tuple[tuple[int, ...], ...]

# Example inputs with one number of rows, to prepare for batches of that size.
Sample = Sequence[Array]


class Forward(Protocol):
    def prepare(self, samples: Sequence[Sample]) -> None:
        """Prepare for batches of these sizes; never raise if they just run slower."""

    def run(self, arrays: Sequence[Array]) -> list[tuple[str, Array]]:
        """Run the rows; return the outputs with their names."""

    # Why the model is slower than it could be; empty if it is not.
    reason: str


def on(
    device: Device, module: torch.nn.Module, *, bfloat16: bool = False
) -> "DirectForward | StagedForward":
    """Return the way to run a module on a device."""
    kind = StagedForward if device.staged else DirectForward
    return kind(device, module, bfloat16=bfloat16)


class DirectForward:
    """Run a module on the CPU, without staging copies or padding."""

    def __init__(
        self, device: Device, module: torch.nn.Module, *, bfloat16: bool = False
    ) -> None:
        self._device = device
        self._module: Function = module
        self.reason = ""
        if bfloat16:
            self._module = _autocast(module, device)

    def prepare(self, samples: Sequence[Sample]) -> None:
        if not self._device.compiles:
            return
        # One program for any number of rows; one per size would not pay off here.
        compiled = _compile(self._module, dynamic=True, most=len(samples))
        try:
            with torch.inference_mode():
                for sample in samples:
                    compiled(*as_tensors(sample))
        # The compiler may raise anything; the model itself works.
        except Exception as error:
            self.reason = f"not compiled: {_sentence(error)}"
            return
        self._module = compiled

    def run(self, arrays: Sequence[Array]) -> list[tuple[str, Array]]:
        with torch.inference_mode():
            outputs = self._module(*as_tensors(arrays))
            return [(name, as_array(value)) for name, value in named(outputs)]


class _Captured(NamedTuple):
    rows: int
    graph: Graph


class StagedForward:
    """Run a module on a device with staging buffers, with graphs where possible.

    A batch is filled up to the next captured size; if none fits, it runs as it is,
    without a graph.
    """

    def __init__(
        self, device: Device, module: torch.nn.Module, *, bfloat16: bool = False
    ) -> None:
        self._device = device
        self._function = _autocast(module, device) if bfloat16 else module
        self._captured_function: Function = self._function
        # By shapes per row; ascending by rows.
        self._graphs: dict[Shapes, list[_Captured]] = {}
        self.reason = ""

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Compile and capture, largest first, so that smaller ones reuse its memory."""
        function = self._function
        if self._device.compiles and samples:
            # Compile each size separately, which gives the fastest kernels.
            compiled = _compile(function, dynamic=False, most=len(samples))
            function = self._compiled(compiled, samples)
        # Graphs read constants of the compiled function but do not keep them alive.
        self._captured_function = function
        shared: dict[str, Any] = {}
        for sample in sorted(samples, key=lambda sample: -len(sample[0])):
            try:
                captured = self._capture(function, sample, shared)
            except CaptureFailed as error:
                self._say(f"no graph for {len(sample[0])} rows: {error}")
                self._device.counters["graph_fallbacks"] += 1
                return
            except RuntimeError as error:
                if not failures.is_out_of_memory(error):
                    raise
                self._say(f"no memory for a graph of {len(sample[0])} rows")
                self._device.counters["graph_fallbacks"] += 1
                continue
            shapes = _shapes(sample)
            self._graphs.setdefault(shapes, []).insert(0, captured)
            self._device.counters["graphs_captured"] += 1

    def run(self, arrays: Sequence[Array]) -> list[tuple[str, Array]]:
        device, counters = self._device, self._device.counters
        rows = len(arrays[0])
        captured = self._captured(arrays, rows)
        size = rows if captured is None else captured.rows
        with torch.inference_mode(), device.slot() as slot:
            inputs = slot.copy_in(arrays, rows=size)
            with device.launching():
                slot.await_inputs()
                if captured is None:
                    outputs = device.call(self._function, inputs)
                    counters["eager_batches"] += 1
                else:
                    outputs = captured.graph.replay(inputs)
                    counters["graph_batches"] += 1
                    counters["filled_rows"] += size - rows
                pairs = named(outputs)
                slot.copy_out([_rows(value, size, rows) for _, value in pairs])
            arrays = slot.collect()
        names = [name for name, _ in pairs]
        return list(zip(names, arrays, strict=True))

    def _captured(self, arrays: Sequence[Array], rows: int) -> _Captured | None:
        for captured in self._graphs.get(_shapes(arrays), ()):
            if rows <= captured.rows:
                return captured
        return None

    def _compiled(self, compiled: Function, samples: Sequence[Sample]) -> Function:
        try:
            for sample in samples:
                with torch.inference_mode(), self._device.slot() as slot:
                    inputs = slot.copy_in(sample, rows=len(sample[0]))
                    with self._device.launching():
                        slot.await_inputs()
                        inputs = tuple([tensor.clone() for tensor in inputs])
                # Not under `launching()`: this is slow, and would block other versions.
                with torch.inference_mode():
                    self._device.call(compiled, inputs)
        # The compiler may raise anything; the model itself works.
        except Exception as error:
            self._say(f"not compiled: {_sentence(error)}")
            return self._function
        return compiled

    def _capture(
        self, function: Function, sample: Sample, shared: dict[str, Any]
    ) -> _Captured:
        device = self._device
        rows = len(sample[0])
        with torch.inference_mode(), device.slot() as slot:
            inputs = slot.copy_in(sample, rows=rows)
            with device.launching():
                slot.await_inputs()
                # Libraries choose their kernels in the first forward passes.
                for _ in range(2):
                    outputs = device.call(function, inputs)
                slot.copy_out([value for _, value in named(outputs)])
                slot.collect()
                if "memory" not in shared:
                    shared["memory"] = device.graph_memory()
                return _Captured(
                    rows, device.capture(function, inputs, shared["memory"])
                )

    def _say(self, reason: str) -> None:
        self.reason = f"{self.reason}; {reason}" if self.reason else reason


def _rows(value: torch.Tensor, size: int, rows: int) -> torch.Tensor:
    # Keep outputs of another length: the runner's caller reports them as wrong.
    return value[:rows] if value.ndim and len(value) == size else value


def _shapes(arrays: Sequence[Array]) -> Shapes:
    return tuple([array.shape[1:] for array in arrays])


def _autocast(module: Function, device: Device) -> Function:
    kind = device.torch_device.type

    def function(*inputs: torch.Tensor) -> Any:
        # Without the cache of weights, which is freed while graphs still read it.
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
            return module(*inputs)

    return function


def _compile(function: Function, *, dynamic: bool, most: int) -> Function:
    """Return a function that is compiled at its first calls, for `most` sizes.

    By default the compiler stops after eight sizes of all versions together.
    `options` has no type because torch's types lack these options.
    """
    options: dict[str, Any] = {"recompile_limit": most, "isolate_recompiles": True}
    compiled: Function = torch.compile(function, dynamic=dynamic, **options)
    return compiled


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def named(outputs: Any) -> list[tuple[str, Any]]:
    """Return a model's outputs with names: of a tensor, a sequence or a dict."""
    if isinstance(outputs, dict):
        return [(str(name), value) for name, value in outputs.items()]
    if isinstance(outputs, tuple | list):
        if len(outputs) == 1:
            return [(ONLY_OUTPUT, outputs[0])]
        return [(f"output_{index}", value) for index, value in enumerate(outputs)]
    return [(ONLY_OUTPUT, outputs)]
