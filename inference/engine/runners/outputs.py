"""Name, check and describe a model's outputs, for all runners."""

from collections.abc import Sequence

import numpy as np

from inference.engine.signatures.signature import Signature, Task
from inference.engine.wire.messages import OutputTensor
from inference.engine.wire.tensors import Array, Tensor, dtype_name

# Shorter vectors have no direction and are not scaled.
_MIN_LENGTH = 1e-12


def finish(outputs: tuple[Tensor, ...], signature: Signature) -> tuple[Tensor, ...]:
    """Name several outputs as in the signature; check and normalize embeddings.

    A single output keeps the runner's name for it. Raises ValueError if a model of the
    task embedding returns anything but one vector of numbers per row.
    """
    if signature.task is Task.EMBEDDING:
        return _embedding(outputs, normalize=signature.normalize)
    if len(outputs) > 1 and len(outputs) == len(signature.outputs):
        return _named(outputs, signature.outputs)
    return outputs


def described(
    runs: Sequence[Sequence[Tensor]], signature: Signature
) -> tuple[OutputTensor, ...]:
    """Describe the outputs of several runs; a size that differs between runs is -1."""
    first, declared = runs[0], signature.output_shapes
    found = []
    for index, output in enumerate(first):
        shapes = [run[index].data.shape[1:] for run in runs if index < len(run)]
        if len(declared) == len(first):
            shapes.append(declared[index])
        sizes = zip(*shapes, strict=False)
        shape = tuple(size[0] if len(set(size)) == 1 else -1 for size in sizes)
        found.append(OutputTensor(output.name, dtype_name(output.data), shape))
    return tuple(found)


def _named(outputs: tuple[Tensor, ...], names: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Name the outputs in their order, unless they already have these names."""
    if {output.name for output in outputs} == set(names):
        return outputs
    return tuple(
        Tensor(name, output.data) for name, output in zip(names, outputs, strict=True)
    )


def _embedding(outputs: tuple[Tensor, ...], *, normalize: bool) -> tuple[Tensor, ...]:
    data = outputs[0].data if len(outputs) == 1 else None
    if data is None or data.ndim != 2 or data.dtype.kind != "f":
        got = ", ".join(f"{one.data.dtype} {list(one.data.shape)}" for one in outputs)
        raise ValueError(
            "An embedding is one vector of floating-point numbers per row; the model "
            f"gave {got or 'nothing'}."
        )
    return (Tensor(outputs[0].name, _unit(data)),) if normalize else outputs


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors.astype("float64"), axis=1, keepdims=True)
    scaled: Array = vectors / np.where(lengths < _MIN_LENGTH, 1.0, lengths)
    return scaled.astype(vectors.dtype)
