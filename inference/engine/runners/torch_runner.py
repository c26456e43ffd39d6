"""Run the torch module of any torch artifact.

A loader puts the module on `opening.open_device(device).torch_device` and returns a
`TorchRunner`. The device handles copies, compilation and graphs.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import structlog

from inference.engine.devices import opening
from inference.engine.runners.outputs import finish
from inference.engine.signatures import padding
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.tensors import Array, Tensor

if TYPE_CHECKING:
    import torch

    from inference.engine.devices.forward import Forward

logger = structlog.get_logger()

# Neither torch's compiler nor the capture of a graph is made for several threads.
_warming_up = threading.Lock()


class TorchRunner:
    """The runner of a torch module; calls `after_first_run` after its example ran."""

    torch_function: "Callable[[torch.Tensor], torch.Tensor] | None"

    def __init__(
        self,
        module: "torch.nn.Module",
        device: str,
        signature: Signature,
        *,
        after_first_run: Callable[[], None] = lambda: None,
    ) -> None:
        # Deferred: torch takes a second to import, and the engine listens before that.
        from inference.engine.devices import forward

        self._device = opening.open_device(device)
        self._module = module
        self._signature = signature
        self._after_first_run = after_first_run
        self._forward: Forward = forward.on(self._device, module)
        self._precision = "float32"
        # Names of the inputs if there are several, in the order of the arguments.
        self._names = (
            tuple([each.name for each in signature.inputs])
            if signature.layout is Layout.TENSORS
            else ()
        )
        # Batches that may run at once, each in its own thread.
        self.depth = self._device.depth
        self.torch_function = self._differentiable

    def warm_up(self, tensors: Sequence[Tensor]) -> None:
        """Run the example, choose the precision, and prepare for other batch sizes."""
        device = self._device
        with _warming_up if device.staged or device.compiles else nullcontext():
            self._warm_up(tensors)

    def _warm_up(self, tensors: Sequence[Tensor]) -> None:
        arrays = self._arrays(tensors)
        exact = self._forward.run(arrays)
        if self._signature.padding is not None:
            # Fails now, with torch's checks still on, if the longest rows are too long.
            self._forward.run(self._sized(arrays, self._shapes(arrays)[-1]))
        self._after_first_run()
        self._choose_precision(arrays, exact)
        self._forward.prepare(self._samples(arrays))
        self._forward.run(arrays)
        if self._forward.reason:
            logger.warning("slower_than_possible", reason=self._forward.reason)

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs = self._forward.run(self._arrays(tensors))
        return finish(
            tuple([Tensor(name, array) for name, array in outputs]), self._signature
        )

    def _arrays(self, tensors: Sequence[Tensor]) -> list[Array]:
        if not self._names:
            return [tensors[0].data]
        by_name = {tensor.name: tensor.data for tensor in tensors}
        return [by_name[name] for name in self._names]

    @property
    def notes(self) -> tuple[str, ...]:
        """The precision, and why the model is slower than it could be, for people."""
        notes = [f"precision {self._precision}"]
        if self._forward.reason:
            notes.append(self._forward.reason)
        return tuple(notes)

    def unload(self) -> None:
        self.torch_function = None
        del self._module, self._forward
        self._device.free_cached()

    def _choose_precision(
        self, arrays: Sequence[Array], exact: Sequence[tuple[str, Array]]
    ) -> None:
        from inference.engine.devices import forward

        wanted = self._signature.precision
        if wanted == "float32" or not self._device.fast_bfloat16:
            return
        half = forward.on(self._device, self._module, bfloat16=True)
        if wanted == "auto":
            try:
                rounded = half.run(arrays)
            # An exported program may require its own dtypes.
            except RuntimeError as error:
                logger.info("kept_float32", reason=str(error)[:200])
                return
            if not _close(exact, rounded, self._signature.example_tolerance):
                logger.info("kept_float32", reason="the example's outputs differ")
                return
        self._forward = half
        self._precision = "bfloat16"

    def _samples(self, arrays: Sequence[Array]) -> list[list[Array]]:
        """Make batches from the example's rows, in all sizes to prepare for."""
        options = self._device.options
        if not self._device.staged:
            return [_tiled(arrays, rows) for rows in (1, 2, options.max_batch_rows)]
        if options.max_graphs < 1:
            return []
        shapes = self._shapes(arrays)[: options.max_graphs]
        if not shapes:
            return []
        count = options.max_graphs // len(shapes)
        return [
            _tiled(self._sized(arrays, each), rows)
            for each in shapes
            for rows in padding.row_buckets(options.max_batch_rows, count)
        ]

    def _sized(
        self, arrays: Sequence[Array], shapes: Sequence[tuple[int, ...]]
    ) -> list[Array]:
        return [
            _resized(array, shape) for array, shape in zip(arrays, shapes, strict=True)
        ]

    def _shapes(self, arrays: Sequence[Array]) -> list[list[tuple[int, ...]]]:
        """Return the shapes per row that batches will have, one for each length."""
        declared = self._signature.row_shapes
        known = self._signature.padding
        if not any(-1 in shape for shape in declared):
            return [[array.shape[1:] for array in arrays]]
        lengths = known.buckets if known else ()
        # Without buckets any length may come, so prepare for none.
        return [
            [
                tuple([length if size == -1 else size for size in shape])
                for shape in declared
            ]
            for length in lengths
        ]

    def _differentiable(self, rows: "torch.Tensor") -> "torch.Tensor":
        from inference.engine.devices import forward

        outputs = self._module(rows.to(self._device.torch_device))
        first: torch.Tensor = forward.named(outputs)[0][1]
        return first


def _tiled(arrays: Sequence[Array], rows: int) -> list[Array]:
    indexes = np.arange(rows) % len(arrays[0])
    return [array[indexes] for array in arrays]


def _resized(array: Array, shape: tuple[int, ...]) -> Array:
    """Repeat or cut an example's values to a shape; they are valid in any place."""
    for axis, size in enumerate(shape, start=1):
        array = array.take(np.arange(size) % array.shape[axis], axis)
    return array


def _close(
    exact: Sequence[tuple[str, Array]],
    rounded: Sequence[tuple[str, Array]],
    tolerance: float,
) -> bool:
    return all(
        wanted.shape == got.shape and np.allclose(got, wanted, rtol=0, atol=tolerance)
        for (_, wanted), (_, got) in zip(exact, rounded, strict=True)
    )
