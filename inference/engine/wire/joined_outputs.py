"""Join the outputs of several forward passes, and make outputs fit for JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Array, Tensor, exceeds_floats, object_array

# Name of the output of a model that has only one and does not name it.
ONLY_OUTPUT = "output"


def with_nulls(value: Any) -> Any:
    """Replace numbers that JSON lacks (NaN, infinity) by None, as answers do."""
    if isinstance(value, dict):
        return {name: with_nulls(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def join_outputs(pieces: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Join the rows of several answers, even if their output names differ.

    A Python model may name its outputs differently for each piece. Then each row
    becomes one object, as if the pieces had been predicted together. Raises EngineError
    MODEL_ERROR for an output that is a time in one piece and no time in another.
    """
    if len(pieces) == 1:
        return tuple(pieces[0])
    names = [[tensor.name for tensor in piece] for piece in pieces]
    if all(each == names[0] for each in names):
        columns = zip(*pieces, strict=True)
    elif all(sorted(each) == sorted(names[0]) for each in names):
        place = names[0].index
        ordered = [sorted(piece, key=lambda one: place(one.name)) for piece in pieces]
        columns = zip(*ordered, strict=True)
    else:
        rows = [row for piece in pieces for row in rows_as_objects(piece)]
        return (Tensor(ONLY_OUTPUT, object_array(rows)),)
    return tuple(
        Tensor(column[0].name, _join(column[0].name, [one.data for one in column]))
        for column in columns
    )


def rows_as_objects(outputs: Sequence[Tensor]) -> list[Any]:
    """Return each row as one object, or as the plain value of an unnamed output."""
    if len(outputs) == 1 and outputs[0].name == ONLY_OUTPUT:
        values: list[Any] = outputs[0].data.tolist()
        return values
    names = [tensor.name for tensor in outputs]
    columns = [tensor.data.tolist() for tensor in outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _join(name: str, arrays: Sequence[Any]) -> Array:
    """Join the rows of arrays; use an array of objects if numpy would change a value.

    Beside floats numpy rounds large integers, beside numbers it turns booleans into
    numbers, and it does not join rows of different shapes.
    """
    kinds = {array.dtype.kind for array in arrays}
    if "M" in kinds and len(kinds) > 1:
        # numpy cannot join them, and as objects the times would become numbers.
        raise EngineError(
            EngineErrorCode.MODEL_ERROR,
            f"the model gave times for some rows and other values for others in its "
            f"output {name[:80]!r}",
        )
    is_even = len({array.shape[1:] for array in arrays}) == 1
    would_change = len(kinds) > 1 and (
        not kinds.isdisjoint("Ob")
        or any(exceeds_floats(array) for array in arrays if array.dtype.kind in "iu")
    )
    if is_even and not would_change:
        return np.concatenate(arrays)
    return object_array([row for array in arrays for row in array.tolist()])
