"""Why instances are refused: the slow pass that names every bad field. Pure.

It runs only after the compiled decoder refused, or over rows that are parsed already.
Problems name fields and types, never values.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from inference.engine.signature import Column, Layout, Signature
from inference.errors import ErrorCode, Problem
from inference.row_types import KINDS, bounds, text_limit

_MAX_NAME_LENGTH = 100
_SURROGATES = re.compile("[\ud800-\udfff]")
_EXPECTED = {
    float: "must be a number",
    int: "must be an integer",
    bool: "must be true or false",
    str: "must be a string",
}


class RowInspector:
    """Check parsed rows one by one against a signature."""

    def __init__(self, signature: Signature, *, max_problems: int = 100) -> None:
        self._signature = signature
        self._columns = signature.columns
        self._names = {column.name for column in signature.columns}
        self._max_problems = max_problems

    def inspect(
        self, row: Any, index: int, *, from_text: bool = False
    ) -> tuple[Any, list[Problem]]:
        """Give the row's values in the order of the columns, or its problems.

        With `from_text` strings are read as what their column holds (CSV).
        """
        problems: list[Problem] = []
        if self._signature.layout is Layout.TENSOR:
            values = self._nested(row, self._signature.shape, "", index, problems)
            return values, problems
        if isinstance(row, Mapping):
            self._refuse_unknown(row, index, problems)
            given = row
        elif isinstance(row, list | tuple):
            if len(row) != len(self._columns):
                issue = f"must have {len(self._columns)} values"
                received = f"{len(row)} values"
                return None, [_invalid(index, None, issue, received=received)]
            given = {
                column.name: value
                for column, value in zip(self._columns, row, strict=True)
            }
        elif len(self._columns) == 1:
            given = {self._columns[0].name: row}
        else:
            issue = f"must be an object, or an array of {len(self._columns)} values"
            return None, [_invalid(index, None, issue, received=_type_name(row))]
        checked = []
        for column in self._columns:
            if len(problems) >= self._max_problems:
                break
            checked.append(self._value(given, column, index, problems, from_text))
        return tuple(checked), problems

    def _refuse_unknown(
        self, row: Mapping[Any, Any], index: int, problems: list[Problem]
    ) -> None:
        for name in row:
            if name not in self._names and len(problems) < self._max_problems:
                issue = "is not a column of this model"
                problems.append(_invalid(index, readable_name(name), issue))

    def _value(
        self,
        given: Mapping[Any, Any],
        column: Column,
        index: int,
        problems: list[Problem],
        from_text: bool,
    ) -> Any:
        value = given.get(column.name)
        kind = KINDS[column.dtype]
        if from_text and isinstance(value, str):
            value = _read_text(value, kind.python)
        if value is None:
            if column.required and column.name in given:
                issue = _EXPECTED[kind.python]
                problems.append(_invalid(index, column.name, issue, received="null"))
            elif column.required:
                problems.append(_invalid(index, column.name, "is required"))
            return None
        value, issue = check_type(value, kind.python)
        if issue:
            received = _type_name(value)
            problems.append(_invalid(index, column.name, issue, received=received))
        elif issue := broken_rule(value, column):
            problems.append(_unprocessable(index, column.name, issue))
        return value

    def _nested(
        self,
        value: Any,
        shape: tuple[int, ...],
        path: str,
        index: int,
        problems: list[Problem],
    ) -> Any:
        if len(problems) >= self._max_problems:
            return None
        if shape:
            if not isinstance(value, list | tuple) or len(value) != shape[0]:
                issue = f"must be an array of shape {list(shape)}"
                problems.append(
                    _invalid(index, path or None, issue, received=_size_name(value))
                )
                return None
            return [
                self._nested(item, shape[1:], f"{path}[{position}]", index, problems)
                for position, item in enumerate(value)
            ]
        dtype = self._signature.dtype
        value, issue = check_type(value, KINDS[dtype].python)
        if issue:
            received = _type_name(value)
            problems.append(_invalid(index, path or None, issue, received=received))
        elif issue := broken_rule(value, Column(name="", dtype=dtype)):
            problems.append(_unprocessable(index, path or None, issue))
        return value


def check_type(value: Any, wanted: type) -> tuple[Any, str]:
    """Give the value as the wanted type, and what is wrong with it if it is not."""
    if wanted is bool or wanted is str:
        ok = isinstance(value, wanted)
    elif isinstance(value, bool):
        ok = False
    elif wanted is float:
        ok = isinstance(value, int | float)
        if ok:
            value = _as_float(value)
    else:
        # 3.0 is an integer in JSON, which has but one kind of number.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        ok = isinstance(value, int) or (
            isinstance(value, float) and not math.isfinite(value)
        )
    return value, "" if ok else _EXPECTED[wanted]


def broken_rule(value: Any, column: Column) -> str:
    """Say which rule the value breaks; its type is right already."""
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    if isinstance(value, str):
        if len(value) > text_limit(column):
            return f"must have at most {text_limit(column)} characters"
    elif not isinstance(value, bool):
        low, high = bounds(column)
        if low is not None and value < low:
            return f"must be at least {low:g}" if column.minimum else _too_small(low)
        if high is not None and value > high:
            return f"must be at most {high:g}"
    if column.enum and value not in column.enum:
        return "must be one of " + ", ".join(str(choice) for choice in column.enum)
    return ""


def readable_name(name: object) -> str:
    """Give a caller's own member name back in a form that is safe to show."""
    return _SURROGATES.sub("\ufffd", str(name))[:_MAX_NAME_LENGTH]


def _too_small(low: float) -> str:
    return f"must be at least {low:g}"


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _read_text(value: str, wanted: type) -> Any:
    if wanted is str:
        return value
    text = value.strip()
    if not text:
        return None
    if wanted is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(
            text.lower(), value
        )
    try:
        return int(text) if wanted is int else float(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return value


def _invalid(
    index: int, field: str | None, issue: str, *, received: str | None = None
) -> Problem:
    return Problem(
        issue=issue,
        index=index,
        field=field,
        code=ErrorCode.INVALID_INPUT,
        received=received,
    )


def _unprocessable(index: int, field: str | None, issue: str) -> Problem:
    return Problem(issue=issue, index=index, field=field, code=ErrorCode.UNPROCESSABLE)


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "array"


def _size_name(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"array of {len(value)}"
    return _type_name(value)
