"""Fake a device with its own streams, on the CPU.

Copies and forward passes run in threads and finish late, staging buffers and outputs of
graphs are reused, and freed memory is overwritten with garbage. So code that reads too
early or too late gets wrong numbers.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import torch

from inference.engine.devices.device import (
    CaptureFailed,
    DeviceOptions,
    MemoryUse,
    new_counters,
)

RUBBISH = 77
_OPTIONS = DeviceOptions(max_batch_rows=8, max_graphs=8)


class FakeDevice:
    staged = True
    title = "Fake accelerator"
    fast_bfloat16 = True
    torch_device = torch.device("cpu")

    def __init__(
        self,
        name="fake:0",
        *,
        depth=2,
        options=_OPTIONS,
        compiles=False,
        capture_error=None,
        most_rows=None,
        step_s=0.0,
        copy_s=0.0,
        waits_for_copies=True,
    ):
        self.name = name
        self.depth = depth
        self.options = options
        self.compiles = compiles
        self.capture_error = capture_error
        # More rows than this do not fit into its memory.
        self.most_rows = most_rows
        self.step_s = step_s
        self.copy_s = copy_s
        self.waits_for_copies = waits_for_copies
        # Steps of the streams, in order: ("copy_in", 4, "begin") and so on.
        self.events = []
        self.counters = new_counters()
        self.last_replay = None
        self.captured = []
        self.replayed = []
        self.called = []
        self.freed = 0
        self.error = None
        self._launching = threading.Lock()
        self._inward = ThreadPoolExecutor(1)
        self._compute = ThreadPoolExecutor(1)
        self._slots = SimpleQueue()
        for _ in range(depth):
            self._slots.put(_FakeSlot(self))

    def close(self):
        self._inward.shutdown()
        self._compute.shutdown()

    @contextmanager
    def slot(self):
        slot = self._slots.get(timeout=10)
        try:
            yield slot
        finally:
            slot.settle()
            self._slots.put(slot)

    @contextmanager
    def launching(self):
        with self._launching:
            yield

    def call(self, function, inputs):
        rows = len(inputs[0])
        self.called.append(rows)
        return self.compute("call", rows, lambda: function(*inputs)).result(10)

    def capture(self, function, inputs, shared):
        assert shared is self
        if self.capture_error is not None:
            raise CaptureFailed(self.capture_error)
        self.captured.append(tuple(inputs[0].shape))
        kept = tuple(tensor.clone() for tensor in inputs)
        with torch.inference_mode():
            outputs = function(*kept)
        return _FakeGraph(self, function, kept, outputs)

    def graph_memory(self):
        return self

    def memory(self):
        return MemoryUse(1000, 600, 500)

    def free_cached(self):
        self.freed += 1

    # The streams

    def copy_in(self, rows, work):
        return self._inward.submit(self._timed, "copy_in", rows, work)

    def compute(self, kind, rows, work):
        return self._compute.submit(self._timed, kind, rows, work)

    def _timed(self, kind, rows, work):
        self.events.append((kind, rows, "begin"))
        time.sleep(self.copy_s if kind == "copy_in" else self.step_s)
        try:
            if kind in ("call", "replay"):
                self._maybe_fail(rows)
            with torch.inference_mode():
                return work()
        finally:
            self.events.append((kind, rows, "end"))

    def _maybe_fail(self, rows):
        if self.error is not None:
            raise self.error
        if self.most_rows is not None and rows > self.most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")


class _FakeGraph:
    def __init__(self, device, function, inputs, outputs):
        self._device = device
        self._function = function
        self._inputs = inputs
        self._outputs = outputs

    def replay(self, inputs):
        rows = len(inputs[0])
        self._device.replayed.append(rows)

        def work():
            for kept, given in zip(self._inputs, inputs, strict=True):
                kept.copy_(given)
            for old, new in zip(
                _tensors(self._outputs),
                _tensors(self._function(*self._inputs)),
                strict=True,
            ):
                old.copy_(new)

        self._device.last_replay = self._device.compute("replay", rows, work)
        return self._outputs


class _FakeSlot:
    def __init__(self, device):
        self._device = device
        self._host = {}
        self._busy = []
        self._copied = None

    def copy_in(self, arrays, *, rows):
        hosts, tensors = [], []
        for index, array in enumerate(arrays):
            host = self._host_buffer(index, array, rows)
            host[: len(array)] = array
            host[len(array) :] = array[:1]
            hosts.append(host)
            # Nothing sensible is there until the copy is done.
            tensors.append(torch.full(host.shape, RUBBISH, dtype=_dtype(array)))

        def work():
            for host, tensor in zip(hosts, tensors, strict=True):
                tensor.copy_(torch.from_numpy(host.copy()))

        self._copied = self._device.copy_in(rows, work)
        self._busy.append(self._copied)
        return tuple(tensors)

    def await_inputs(self):
        copied = self._copied
        if not self._device.waits_for_copies:
            return
        self._device.compute("wait", 0, lambda: copied.result(10))

    def copy_out(self, outputs):
        arrays = []
        replay, self._device.last_replay = self._device.last_replay, None

        def work():
            # As on a real device, an error shows only when somebody waits for it.
            if replay is not None:
                replay.result(0)
            arrays.extend(_array(output) for output in outputs)

        self._returned = self._device.compute("copy_out", 0, work)
        self._arrays = arrays
        self._busy.append(self._returned)

    def collect(self):
        self._returned.result(10)
        self._busy = []
        return self._arrays

    def settle(self):
        for each in self._busy:
            each.exception(10)
        self._busy = []

    def _host_buffer(self, index, array, rows):
        shape = (rows, *array.shape[1:])
        key = (index, array.dtype.str, shape)
        if key not in self._host:
            self._host[key] = np.full(shape, RUBBISH, array.dtype)
        return self._host[key]


def _dtype(array):
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def _array(tensor):
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    return tensor.numpy().copy()


def _tensors(outputs):
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]
