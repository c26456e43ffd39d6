"""Compile a signature to msgspec types of one instance.

So parsing and validating a request are one pass in C.
"""

import math
import re
from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from inference.codecs.rows.nested import read_value
from inference.codecs.rows.times import is_in_range
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.signature import Column, Signature, TensorInput
from inference.engine.wire.dtypes import BYTES, DATETIME, JSON, MAX_WHOLE_FLOAT, TEXT

MAX_TEXT_LENGTH = 100_000
_INT64_MAX = 2**63 - 1


class Kind(msgspec.Struct, frozen=True):
    """How values of a dtype are written in JSON, and their range."""

    python: type
    minimum: float | int | None = None
    maximum: float | int | None = None
    # Code of the `struct` module; None if the values are not numbers.
    code: str | None = None


def _integers(bits: int, code: str, *, signed: bool = True) -> Kind:
    if signed:
        return Kind(int, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, code)
    return Kind(int, 0, 2**bits - 1, code.upper())


def _floats(dtype: type[np.floating[Any]], code: str) -> Kind:
    greatest = float(np.finfo(dtype).max)
    return Kind(float, -greatest, greatest, code)


KINDS = {
    "float64": _floats(np.float64, "d"),
    "float32": _floats(np.float32, "f"),
    "float16": _floats(np.float16, "e"),
    "int64": _integers(64, "q"),
    "int32": _integers(32, "i"),
    "int16": _integers(16, "h"),
    "int8": _integers(8, "b"),
    "uint64": _integers(64, "q", signed=False),
    "uint32": _integers(32, "i", signed=False),
    "uint16": _integers(16, "h", signed=False),
    "uint8": _integers(8, "b", signed=False),
    "bool": Kind(bool, code="?"),
    TEXT: Kind(str),
    # As base64.
    BYTES: Kind(bytes),
    # ISO 8601.
    DATETIME: Kind(datetime),
    JSON: Kind(object),
}
# Types of values that a list of choices may limit.
_CHOOSABLE = (int, str, float, bool)

# msgspec cannot read a field whose name JSON has to escape.
_NOT_IN_STRUCTS = re.compile(r'[\\"\x00-\x1f]')

# Returns whether a value keeps a rule.
Allows = Callable[[Any], bool]


def has_whole_floats(column: Column) -> bool:
    """Return whether the engine gets the column's integers as floats."""
    return KINDS[column.dtype].python is int and column.carrier == "float64"


def bounds(column: Column) -> tuple[float | int | None, float | int | None]:
    """Combine a column's rules with the range of its dtype."""
    kind = KINDS[column.dtype]
    low, high = kind.minimum, kind.maximum
    if has_whole_floats(column) and low is not None and high is not None:
        low, high = max(low, -MAX_WHOLE_FLOAT), min(high, MAX_WHOLE_FLOAT)
    if low is not None and column.minimum is not None:
        low = max(low, column.minimum)
    if high is not None and column.maximum is not None:
        high = min(high, column.maximum)
    if kind.python is int and low is not None and high is not None:
        return math.ceil(low), math.floor(high)
    return low, high


def text_limit(column: Column) -> int:
    return MAX_TEXT_LENGTH if column.max_length is None else column.max_length


def choices(column: Column) -> tuple[str | int | float, ...]:
    """Return the values that are allowed; empty means all."""
    return (column.enum or ()) if KINDS[column.dtype].python in _CHOOSABLE else ()


def column_type(column: Column) -> Any:
    """Return the type of one value, with its rules."""
    kind = KINDS[column.dtype]
    annotated: Any = kind.python
    if choices(column) and kind.python in (int, str):
        annotated = Literal[choices(column)]
    elif kind.python is str:
        annotated = Annotated[str, msgspec.Meta(max_length=text_limit(column))]
    elif kind.python is bytes and column.max_length is not None:
        annotated = Annotated[bytes, msgspec.Meta(max_length=column.max_length)]
    elif kind.python is object:
        return Any
    elif kind.python is int:
        annotated = Annotated[int, within(*bounds(column))]
    elif kind.python is float:
        # Without a rule no check is needed: packing refuses numbers beyond float32, and
        # the parser numbers beyond float64.
        low, high = column.minimum, column.maximum
        if low is not None or high is not None:
            annotated = Annotated[float, msgspec.Meta(ge=low, le=high)]
    return annotated if column.required else annotated | None


def has_struct_names(signature: Signature) -> bool:
    """Return whether a Struct's fields may have the names of the columns or tensors."""
    named: tuple[Column | TensorInput, ...] = signature.columns or signature.inputs
    return not any(_NOT_IN_STRUCTS.search(each.name) for each in named)


def named_row(
    columns: tuple[Column, ...], *, array_like: bool = False, renamed: bool = True
) -> Any:
    """Make the Struct of one instance: an object by column names, or an array.

    Without `renamed` the members are called f0, f1 and so on.
    """
    fields: list[Any] = []
    for index, column in enumerate(columns):
        name = f"f{index}"
        # An array must have all values: otherwise a shifted row could pass.
        if column.required or array_like:
            fields.append((name, column_type(column)))
        else:
            fields.append((name, column_type(column), None))
    return msgspec.defstruct(
        "Row",
        fields,
        # Required fields may follow optional ones.
        kw_only=True,
        rename={f"f{index}": column.name for index, column in enumerate(columns)}
        if renamed and not array_like
        else None,
        forbid_unknown_fields=True,
        array_like=array_like,
        gc=False,
    )


def tensors_row(inputs: tuple[TensorInput, ...], padding: Padding | None) -> Any:
    """Make the Struct of one instance with several named tensors."""
    return msgspec.defstruct(
        "Row",
        [
            (f"f{index}", nested_type(given.dtype, given.shape, padding))
            for index, given in enumerate(inputs)
        ],
        rename={f"f{index}": given.name for index, given in enumerate(inputs)},
        forbid_unknown_fields=True,
        gc=False,
    )


def tensor_row(signature: Signature) -> Any:
    """Make the type of one instance of a single unnamed tensor."""
    return nested_type(signature.dtype, signature.shape, signature.padding)


def nested_type(dtype: str, shape: tuple[int, ...], padding: Padding | None) -> Any:
    """Make the type of nested lists; size -1 is any from 1 to the padding's longest."""
    kind = KINDS[dtype]
    row: Any = kind.python
    if kind.minimum is not None:
        row = Annotated[row, within(kind.minimum, kind.maximum)]
    elif kind.python is str:
        row = Annotated[row, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]
    for size in reversed(shape):
        length = (
            msgspec.Meta(min_length=1, max_length=padding.longest if padding else None)
            if size < 0
            else msgspec.Meta(min_length=size, max_length=size)
        )
        row = Annotated[list[row], length]
    return row


def within(low: float | None, high: float | None) -> msgspec.Meta:
    """Bound a number as far as msgspec can; packing and `LateSteps` check the rest."""
    if isinstance(low, int):
        low = min(low, _INT64_MAX)
    if isinstance(high, int) and high > _INT64_MAX:
        high = None
    return msgspec.Meta(ge=low, le=high)


class LateSteps:
    """Checks and conversions of a row's values that msgspec's types cannot express."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        # By the column's position. Only `_reads` change a value.
        self._rules: list[tuple[int, Allows]] = []
        self._reads: list[tuple[int, Callable[[Any], Any]]] = []
        for index, column in enumerate(columns):
            if KINDS[column.dtype].python is object:
                self._reads.append((index, _json_reader(column)))
            elif (allows := _rule(column)) is not None:
                self._rules.append((index, allows))

    def __bool__(self) -> bool:
        return bool(self._rules or self._reads)

    def finish(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return the rows as the model gets them; raise ValueError for a bad value."""
        for index, allows in self._rules:
            if not all(map(allows, map(itemgetter(index), rows))):
                raise ValueError("a rule is broken")
        return [self._read(row) for row in rows] if self._reads else rows

    def _read(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for index, read in self._reads:
            values[index] = read(values[index])
        return tuple(values)


def _rule(column: Column) -> Allows | None:
    kind = KINDS[column.dtype].python
    if kind is datetime:
        return lambda value: value is None or is_in_range(value)
    if choices(column) and kind in (float, bool):
        nothing = () if column.required else (None,)
        return frozenset((*choices(column), *nothing)).__contains__
    if column.dtype == "uint64" and (column.minimum, column.maximum) != (None, None):
        low, high = bounds(column)
        assert low is not None
        assert high is not None
        # msgspec has no bounds beyond signed 64-bit integers.
        return lambda value: value is None or low <= value <= high
    return None


def _json_reader(column: Column) -> Callable[[Any], Any]:
    schema = column.json_schema or {}

    def read(value: Any) -> Any:
        if value is not None:
            return read_value(value, schema)
        if column.required:
            raise ValueError("a required column is null")
        return None

    return read
