"""Stack decoded rows into tensors, by functions compiled from a signature.

Numbers are packed straight into the tensor's memory. For 100 rows of 30 columns this
takes less than half the time of `np.array`.
"""

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from inference.codecs.rows import times
from inference.codecs.rows.types import KINDS, LateSteps
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.padding import stack as fill_up
from inference.engine.signatures.signature import (
    ONLY_INPUT,
    Column,
    Layout,
    Signature,
    TensorInput,
)
from inference.engine.wire.dtypes import DATETIME, OBJECT_DTYPES
from inference.engine.wire.tensors import Array, Tensor, numpy_dtype, object_array

Stack = Callable[[Sequence[Any]], tuple[Tensor, ...]]

# Exceptions of packing for values that a dtype cannot hold.
UNFIT = (ValueError, OverflowError, struct.error)

# Padding must not turn a small request into a large tensor.
_MAX_PADDED_VALUES = 4_000_000


class Uneven(ValueError):
    """Rows of different lengths have no padding value, or would grow too large."""


def stack_values(signature: Signature) -> Stack:
    """Return the function that stacks rows, each a sequence of values."""
    if signature.layout is Layout.TENSOR:
        [only] = signature.engine_inputs
        stack_only = _stack_nested(only, signature.padding)
        return lambda rows: (Tensor(ONLY_INPUT, stack_only(rows)),)
    if signature.layout is Layout.TENSORS:
        return _stack_each(
            [
                (given.name, _stack_nested(given, signature.padding))
                for given in signature.inputs
            ]
        )
    if signature.layout is Layout.TABLE:
        return _stack_each(
            [(column.name, _stack_column(column)) for column in signature.columns]
        )
    fill = _filler(signature.columns)
    stack = _stack_packed(signature) or _stack_objects(signature)
    if fill is None:
        return stack
    return lambda rows: stack([fill(row) for row in rows])


def stack_structs(signature: Signature) -> Stack:
    """Return the function that stacks decoded Structs."""
    stack, as_tuple = stack_values(signature), msgspec.structs.astuple
    late = LateSteps(signature.columns)

    def stack_checked(rows: Sequence[Any]) -> tuple[Tensor, ...]:
        return stack(late.finish([as_tuple(row) for row in rows]))

    if late or _filler(signature.columns) or signature.layout is not Layout.MATRIX:
        return stack_checked
    packed = _stack_packed(signature)
    return stack_checked if packed is None else lambda rows: packed(map(as_tuple, rows))


def stack_bare(signature: Signature) -> Stack:
    """Return the function that stacks bare values of a single column."""
    stack, late = stack_values(signature), LateSteps(signature.columns)
    return lambda values: stack(late.finish([(value,) for value in values]))


def _stack_packed(
    signature: Signature,
) -> Callable[[Iterable[Any]], tuple[Tensor, ...]] | None:
    """Return the function that packs rows of a matrix; None for objects.

    It raises OverflowError or struct.error.
    """
    kind = KINDS.get(signature.dtype)
    code, width = kind and kind.code, len(signature.columns)
    if code is None:
        return None
    pack, dtype = struct.Struct(f"={width}{code}").pack, np.dtype(signature.dtype)

    def stack(rows: Iterable[Any]) -> tuple[Tensor, ...]:
        packed = [pack(*row) for row in rows]
        memory = bytearray().join(packed)
        return (Tensor(ONLY_INPUT, np.ndarray((len(packed), width), dtype, memory)),)

    return stack


def _stack_objects(signature: Signature) -> Stack:
    width = len(signature.columns)
    return lambda rows: (Tensor(ONLY_INPUT, np.array(rows, object).reshape(-1, width)),)


def _stack_each(stackers: list[tuple[str, Callable[[Any], Array]]]) -> Stack:
    """Return the function that stacks the values of each input on their own."""

    def stack(rows: Sequence[Any]) -> tuple[Tensor, ...]:
        by_input = zip(*rows, strict=True)
        return tuple(
            Tensor(name, stack_one(values))
            for (name, stack_one), values in zip(stackers, by_input, strict=True)
        )

    return stack


def _stack_column(column: Column) -> Callable[[tuple[Any, ...]], Array]:
    """Return the function that makes `[rows]` of a column's values.

    A missing value becomes NaN in floats, NaT in times, and else None. The dtype does
    not depend on the values: see `Column.carrier`.
    """
    dtype = column.carrier
    if dtype in OBJECT_DTYPES:
        return object_array
    if dtype == DATETIME:
        return times.to_array
    if KINDS[dtype].python is float:
        return lambda values: _floats(values, dtype)
    return lambda values: np.array(values, dtype)


def _floats(values: tuple[Any, ...], dtype: str) -> Array:
    """Make floats, NaN of None; raise OverflowError if the dtype is too narrow."""
    wide = np.array(values, np.float64)
    if dtype == "float64":
        return wide
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    if np.isinf(narrow).any():
        raise OverflowError("a number is too great for its dtype")
    return narrow


def _stack_nested(
    given: TensorInput, padding: Padding | None
) -> Callable[[Sequence[Any]], Array]:
    """Return the function that makes `[rows, *shape]`, padded to the longest row."""
    dtype: Any = numpy_dtype(given.dtype)
    if -1 not in given.shape:
        return lambda rows: np.array(rows, dtype)
    value = None if padding is None else padding.fill(given.name)

    def stack(rows: Sequence[Any]) -> Array:
        # One row at a time, so that lists of unequal length within a row are refused.
        arrays: list[Any] = [np.array(row, dtype) for row in rows]
        shapes = {array.shape for array in arrays}
        if len(shapes) == 1:
            return np.stack(arrays)
        longest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        if value is None or len(rows) * math.prod(longest) > _MAX_PADDED_VALUES:
            raise Uneven(given.name)
        return fill_up(arrays, value)

    return stack


def _filler(
    columns: tuple[Column, ...],
) -> Callable[[Sequence[Any]], tuple[Any, ...]] | None:
    """Return the function that fills in a row's missing values; None if none can be."""
    if all(column.required for column in columns):
        return None
    # Dtypes other than floats have no value that means "missing", so they get 0.
    absent = [
        math.nan if KINDS[column.dtype].python is float else 0 for column in columns
    ]
    return lambda row: tuple(
        other if value is None else value
        for value, other in zip(row, absent, strict=True)
    )
