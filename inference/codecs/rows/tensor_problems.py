"""Find the first problem in nested lists, without a loop over them in Python.

A row may hold a million values. msgspec checks them in C and reports the place of the
first bad value, so only that value is inspected here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from inference.codecs.rows.nested import exact_integer
from inference.codecs.rows.types import KINDS, nested_type
from inference.codecs.rows.values import (
    broken_rule,
    check_type,
    invalid,
    readable_name,
    size_name,
    type_name,
    unprocessable,
)
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.signature import Column, TensorInput
from inference.engine.wire.tensors import numpy_dtype
from inference.errors.api_error import Problem

_POSITIONS = re.compile(r"\[(\d+)\]")


class TensorInspector:
    """Checks the parsed value of one input of one row."""

    def __init__(
        self, given: TensorInput, padding: Padding | None, *, named: bool
    ) -> None:
        self._type = nested_type(given.dtype, given.shape, padding)
        self._shape = given.shape
        self._name = given.name if named else ""
        self._column = Column(name=given.name, dtype=given.dtype)
        self._longest = padding.longest if padding else None
        self._uneven = -1 in given.shape[1:]

    def inspect(self, value: Any, index: int) -> tuple[Any, list[Problem]]:
        """Return the nested lists, or the first problem in them."""
        try:
            checked = self._convert(value)
        except msgspec.ValidationError as error:
            return None, [self._explain(value, _positions(error), index)]
        except RecursionError:
            return None, [invalid(index, self._name or None, "is nested too deeply")]
        issue = self._misfit(checked)
        if issue:
            return None, [unprocessable(index, self._name or None, issue)]
        return checked, []

    def _convert(self, value: Any) -> Any:
        try:
            return msgspec.convert(value, self._type)
        except msgspec.ValidationError as error:
            positions = _positions(error)
            # 3.0 is an integer in JSON, but msgspec accepts it only while parsing.
            bad = _descend(value, positions)
            if exact_integer(bad) is bad:
                raise
        return msgspec.convert(_whole(value, len(self._shape)), self._type)

    def _misfit(self, value: Any) -> str:
        """Name a rule that msgspec's types cannot check: "" if none is broken."""
        kind = KINDS[self._column.dtype]
        is_checked = kind.python is not float and self._column.dtype != "uint64"
        if is_checked and not self._uneven:
            return ""
        try:
            array = np.array(value, numpy_dtype(self._column.dtype))
        except ValueError:
            return "must have inner arrays of equal length"
        except OverflowError:
            return f"must have no number beyond {kind.maximum}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return "must be finite"
        return ""

    def _explain(self, value: Any, positions: list[int], index: int) -> Problem:
        bad = _descend(value, positions)
        field = self._name + "".join(f"[{position}]" for position in positions)
        shape = self._shape[len(positions) :]
        if shape:
            if isinstance(bad, list | tuple) and self._is_too_long(bad, shape[0]):
                issue = f"must have at most {self._longest} values"
                return unprocessable(index, field or None, issue)
            sizes = ", ".join("any" if size < 0 else str(size) for size in shape)
            issue = f"must be an array of shape [{sizes}]"
            if isinstance(bad, list | tuple) and shape[0] >= 0:
                field += f"[{min(len(bad), shape[0])}]"
            return invalid(index, field or None, issue, received=size_name(bad))
        checked, issue = check_type(bad, KINDS[self._column.dtype].python)
        if issue:
            return invalid(index, field or None, issue, received=type_name(bad))
        issue = broken_rule(checked, self._column) or "is invalid"
        return unprocessable(index, field or None, issue)

    def _is_too_long(self, value: Sequence[Any], size: int) -> bool:
        return size < 0 and self._longest is not None and len(value) > self._longest


class TensorRowInspector:
    """Checks parsed rows of one or several input tensors."""

    def __init__(
        self,
        inputs: tuple[TensorInput, ...],
        padding: Padding | None,
        *,
        named: bool,
        max_problems: int,
    ) -> None:
        self._inspectors = {
            given.name: TensorInspector(given, padding, named=named) for given in inputs
        }
        self._named = named
        self._max_problems = max_problems

    def inspect(
        self, row: Any, index: int, *, from_text: bool = False
    ) -> tuple[Any, list[Problem]]:
        """Return the row, ready to be stacked, or its problems.

        `from_text` changes nothing: nested lists cannot be written as text.
        """
        if not self._named:
            [only] = self._inspectors.values()
            return only.inspect(row, index)
        if not isinstance(row, Mapping):
            names = ", ".join(self._inspectors)
            issue = f"must be an object with the inputs {names}"
            return None, [invalid(index, None, issue, received=type_name(row))]
        problems: list[Problem] = []
        for name in row:
            if name not in self._inspectors and len(problems) < self._max_problems:
                issue = "is not an input of this model"
                problems.append(invalid(index, readable_name(name), issue))
        values = []
        for name, inspector in self._inspectors.items():
            if len(problems) >= self._max_problems:
                break
            if name not in row:
                problems.append(invalid(index, name, "is required"))
                continue
            value, found = inspector.inspect(row[name], index)
            problems += found
            values.append(value)
        return tuple(values), problems


def _positions(error: msgspec.ValidationError) -> list[int]:
    _, _, path = str(error).rpartition("`$")
    return [int(position) for position in _POSITIONS.findall(path)]


def _descend(value: Any, positions: list[int]) -> Any:
    for position in positions:
        value = value[position]
    return value


def _whole(value: Any, depth: int) -> Any:
    if depth > 0 and isinstance(value, list | tuple):
        return [_whole(item, depth - 1) for item in value]
    return exact_integer(value)
