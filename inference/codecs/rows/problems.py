"""Find every bad field in rows that the compiled types refused.

Problems name fields and types, never values.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from inference.codecs.rows.tensor_problems import TensorRowInspector
from inference.codecs.rows.types import KINDS
from inference.codecs.rows.values import (
    EXPECTED,
    check_value,
    invalid,
    read_text,
    readable_name,
    type_name,
    unprocessable,
)
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.dtypes import JSON
from inference.errors.api_error import ErrorCode, Problem


class Inspector(Protocol):
    """Checks parsed rows one by one against a signature."""

    def inspect(
        self, row: Any, index: int, *, from_text: bool = False
    ) -> tuple[Any, list[Problem]]:
        """Return the row's values, ready to be stacked, or its problems."""


def inspector_of(signature: Signature, *, max_problems: int) -> Inspector:
    if signature.layout in (Layout.TENSOR, Layout.TENSORS):
        return TensorRowInspector(
            signature.engine_inputs,
            signature.padding,
            named=signature.layout is Layout.TENSORS,
            max_problems=max_problems,
        )
    return RowInspector(signature, max_problems=max_problems)


class RowInspector:
    """Checks parsed rows of named columns."""

    def __init__(self, signature: Signature, *, max_problems: int) -> None:
        self._columns = signature.columns
        self._names = {column.name for column in signature.columns}
        self._max_problems = max_problems

    def inspect(
        self, row: Any, index: int, *, from_text: bool = False
    ) -> tuple[Any, list[Problem]]:
        """Return the row's values in the order of the columns, or its problems.

        With `from_text`, strings are read as the types of their columns (CSV).
        """
        problems: list[Problem] = []
        if self._is_bare(row):
            given: Mapping[str, Any] = {self._columns[0].name: row}
        elif isinstance(row, Mapping):
            self._refuse_unknown(row, index, problems)
            given = row
        elif isinstance(row, list | tuple):
            if len(row) != len(self._columns):
                received = f"{len(row)} value{'' if len(row) == 1 else 's'}"
                field, issue = self._first_astray(len(row))
                return None, [invalid(index, field, issue, received=received)]
            given = {
                column.name: value
                for column, value in zip(self._columns, row, strict=True)
            }
        else:
            issue = f"must be an object, or an array of {len(self._columns)} values"
            return None, [invalid(index, None, issue, received=type_name(row))]
        checked = []
        for column in self._columns:
            if len(problems) >= self._max_problems:
                break
            checked.append(self._value(given, column, index, problems, from_text))
        return tuple(checked), problems

    def _is_bare(self, row: Any) -> bool:
        """Return whether a row is the only column's value, not an object around it."""
        if len(self._columns) > 1:
            return False
        column = self._columns[0]
        if isinstance(row, Mapping):
            return column.dtype == JSON and column.name not in row
        if isinstance(row, list | tuple):
            return column.dtype == JSON and len(row) != 1
        return True

    def _first_astray(self, length: int) -> tuple[str, str]:
        """Name the first value that is missing in an array, or is one too many."""
        wanted = len(self._columns)
        if length < wanted:
            return self._columns[
                length
            ].name, f"is missing; an array has {wanted} values"
        return f"[{wanted}]", f"is one value too many; an array has {wanted} values"

    def _refuse_unknown(
        self, row: Mapping[Any, Any], index: int, problems: list[Problem]
    ) -> None:
        for name in row:
            if name not in self._names and len(problems) < self._max_problems:
                issue = "is not a column of this model"
                problems.append(invalid(index, readable_name(name), issue))

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
            value = read_text(value, kind.python)
        if value is None:
            if column.required and column.name in given:
                issue = EXPECTED[kind.python]
                problems.append(invalid(index, column.name, issue, received="null"))
            elif column.required:
                problems.append(invalid(index, column.name, "is required"))
            return None
        checked, issue, code = check_value(value, column)
        if issue and code is ErrorCode.INVALID_INPUT:
            received = type_name(value)
            problems.append(invalid(index, column.name, issue, received=received))
        elif issue:
            problems.append(unprocessable(index, column.name, issue))
        return checked
