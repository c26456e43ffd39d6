"""Join the outputs of several runs, and make them fit for JSON. Pure."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from inference.engine.wire.tensors import Array, Tensor, exceeds_floats, object_array

# What runners call the output of a model that has one and no name for it.
ONLY_OUTPUT = "output"


def with_nulls(value: Any) -> Any:
    """Write None for the numbers that JSON does not have, as answers do."""
    if isinstance(value, dict):
        return {name: with_nulls(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def join_outputs(pieces: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Join the rows of answers, which may be of several layouts.

    A Python model names outputs by what it gave for a piece. Where the names differ,
    each row becomes one object, as it is where the pieces are predicted together.
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
        rows = [row for piece in pieces for row in _as_objects(piece)]
        return (Tensor(ONLY_OUTPUT, object_array(rows)),)
    return tuple(
        Tensor(column[0].name, _join([tensor.data for tensor in column]))
        for column in columns
    )


def _as_objects(outputs: Sequence[Tensor]) -> list[Any]:
    if len(outputs) == 1 and outputs[0].name == ONLY_OUTPUT:
        values: list[Any] = outputs[0].data.tolist()
        return values
    names = [tensor.name for tensor in outputs]
    columns = [tensor.data.tolist() for tensor in outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _join(arrays: Sequence[Any]) -> Array:
    """Join the rows of arrays; as objects where numpy would make others of some.

    Beside a float it makes a large integer another, and beside a number a truth value;
    rows of several shapes it does not join.
    """
    kinds = {array.dtype.kind for array in arrays}
    is_even = len({array.shape[1:] for array in arrays}) == 1
    would_change = len(kinds) > 1 and (
        not kinds.isdisjoint("Ob")
        or any(exceeds_floats(array) for array in arrays if array.dtype.kind in "iu")
    )
    if is_even and not would_change:
        return np.concatenate(arrays)
    return object_array([row for array in arrays for row in array.tolist()])
