"""Choose which output of a model to explain; arrange outputs as a column per class."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from explain import features
from explain.question import Floats
from inference.engine.signatures.signature import Signature, Task
from inference.engine.wire.tensors import Array

if TYPE_CHECKING:
    import torch

_NAMED_CLASSES = 20


def as_columns(outputs: Array, signature: Signature) -> Floats:
    columns: Floats = np.asarray(outputs, dtype=np.float64)
    if columns.ndim == 1:
        columns = columns[:, None]
    if columns.ndim != 2:
        raise features.not_explainable(
            "Only models with one number or one score per class can be explained."
        )
    if _is_score_of_second(signature, columns.shape[1]):
        columns = np.concatenate([1 - columns, columns], axis=1)
    return columns


def differentiable(
    function: "Callable[[torch.Tensor], torch.Tensor] | None", signature: Signature
) -> "Callable[[torch.Tensor], torch.Tensor] | None":
    """Wrap the model's torch function so that its outputs are as in `as_columns`."""
    if function is None:
        return None

    def columns(rows: "torch.Tensor") -> "torch.Tensor":
        outputs = function(rows)
        if outputs.ndim == 1:
            outputs = outputs[:, None]
        if _is_score_of_second(signature, outputs.shape[1]):
            scores = outputs.new_tensor([[-1.0, 1.0]])
            outputs = outputs * scores + outputs.new_tensor([[1.0, 0.0]])
        return outputs

    return columns


def _is_score_of_second(signature: Signature, columns: int) -> bool:
    return (
        signature.task is Task.CLASSIFICATION
        and columns == 1
        and len(signature.labels) in (0, 2)
    )


def choose(
    outputs: Floats, signature: Signature, target: str | int | None
) -> NDArray[np.intp]:
    """Return each row's output column: the requested one, or the predicted class."""
    rows, columns = outputs.shape
    if target is not None:
        index = _index(target, signature, columns)
        return np.full(rows, index, dtype=np.intp)
    if signature.task is Task.CLASSIFICATION:
        threshold = signature.decision_threshold
        if columns == 2 and threshold is not None:
            return (outputs[:, 1] >= threshold).astype(np.intp)
        best: NDArray[np.intp] = outputs.argmax(axis=1)
        return best
    if columns > 1:
        raise features.bad_option(
            "target", f"The model has {columns} outputs; say which by its index."
        )
    return np.zeros(rows, dtype=np.intp)


def _index(target: str | int, signature: Signature, columns: int) -> int:
    if columns == 1:
        raise features.bad_option("target", "The model has one output; leave it out.")
    if isinstance(target, int) and 0 <= target < columns:
        return target
    if target in signature.labels:
        return signature.labels.index(str(target))
    names = ", ".join(signature.labels[:_NAMED_CLASSES])
    known = f"its classes are {names}" if names else f"it has {columns} outputs"
    raise features.bad_option(
        "target", f"The model has no class {str(target)[:80]!r}; {known}."
    )


def label(signature: Signature, target: int) -> str | int | None:
    if signature.labels and target < len(signature.labels):
        return signature.labels[target]
    return target if signature.task is Task.CLASSIFICATION else None


def title(signature: Signature, target: int) -> str:
    name = label(signature, target)
    return "Output" if name is None else f"Score of {name}"
