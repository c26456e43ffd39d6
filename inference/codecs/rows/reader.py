"""Convert parsed rows to tensors, and judge each row on its own.

msgspec reads a row in a fraction of the time that it takes to name its problems. So
only rows that it refuses are inspected, and only until the answer has problems enough.
"""

import math
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from inference.codecs.rows.nested import exact_integer
from inference.codecs.rows.problems import inspector_of
from inference.codecs.rows.stacking import UNFIT, Stack, Uneven, stack_values
from inference.codecs.rows.types import (
    KINDS,
    LateSteps,
    bounds,
    column_type,
    has_struct_names,
    named_row,
)
from inference.codecs.rows.values import check_type, invalid
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.dtypes import DATETIME, MAX_WHOLE_FLOAT
from inference.engine.wire.tensors import Tensor
from inference.errors.api_error import ErrorCode, Problem
from inference.errors.problems import MAX_PROBLEMS

# A job reports all bad rows in a file, so each row may have only a few problems.
_MAX_PROBLEMS_PER_JOB_ROW = 10
_UNEVEN = "must be as long as the other rows: shorter rows cannot be padded"
_UNTOLD = "is invalid; details are given for the first problems of a request only"


class DecodedRows(msgspec.Struct, frozen=True):
    """Tensors of the good rows, their positions, and the problems of the bad rows."""

    tensors: tuple[Tensor, ...]
    indexes: list[int]
    problems: list[Problem]
    # Reading stopped before the last row, so there may be more problems.
    cut_off: bool = False


class _RowTypes:
    """The types by which msgspec reads rows of one set of columns."""

    def __init__(self, columns: tuple[Column, ...], *, renamed: bool) -> None:
        self.objects = named_row(columns, renamed=renamed)
        self.arrays = named_row(columns, array_like=True)
        self.single = column_type(columns[0]) if len(columns) == 1 else None


class RowReader:
    """Reads the parsed rows of one model version."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._stack: Stack = stack_values(signature)
        self._nested = signature.layout in (Layout.TENSOR, Layout.TENSORS)
        self._inspector = inspector_of(signature, max_problems=MAX_PROBLEMS)
        self._late = LateSteps(signature.columns)
        self._times = [
            column.name for column in signature.columns if column.dtype == DATETIME
        ]
        self._all_required = all(column.required for column in signature.columns)
        if self._nested:
            return
        renamed = has_struct_names(signature)
        self._fields = (
            None
            if renamed
            else {column.name: f"f{i}" for i, column in enumerate(signature.columns)}
        )
        self._types = _RowTypes(signature.columns, renamed=renamed)
        self._text_types = _RowTypes(
            tuple(map(_exact_as_text, signature.columns)), renamed=renamed
        )

    def read(
        self,
        rows: Sequence[Any],
        *,
        from_text: bool = False,
        max_told: int | None = None,
        max_seconds: float | None = None,
    ) -> DecodedRows:
        """Check parsed rows.

        With `from_text`, strings are read as the types of their columns (CSV). After
        `max_told` problems a bad row only gets one general problem. With `max_seconds`
        reading stops at `max_told` problems, or when the search for problems took so
        long.
        """
        seconds = 0.0
        cut_off = False
        good: list[Any] = []
        indexes: list[int] = []
        problems: list[Problem] = []
        for index, row in enumerate(rows):
            values = None
            if not self._nested:
                values = self._convert_text(row) if from_text else self._convert(row)
            if values is None:
                all_told = max_told is not None and len(problems) >= max_told
                if all_told and max_seconds is not None:
                    cut_off = True
                    break
                if all_told and self._is_bad(row):
                    problems.append(_untold(index))
                    continue
                started_at = time.perf_counter()
                values, found = self._inspector.inspect(row, index, from_text=from_text)
                seconds += time.perf_counter() - started_at
                if found and max_told is None:
                    found = found[:_MAX_PROBLEMS_PER_JOB_ROW]
                if found:
                    problems += found
                    if max_seconds is not None and seconds > max_seconds:
                        cut_off = True
                        break
                    continue
            good.append(values)
            indexes.append(index)
        if self._nested and good:
            self._drop_uneven(good, indexes, problems)
        tensors = self._stack_fit(good) if good else ()
        if tensors is None:
            self._drop_unfit(good, indexes, problems, max_told=max_told)
            tensors = self._stack(good) if good else ()
        return DecodedRows(tensors, indexes, problems, cut_off)

    def _convert_text(self, row: Any) -> Any:
        """Return the values of a row in which text may stand for other types."""
        if self._times:
            if not isinstance(row, dict):
                return None
            # Not strict, msgspec would read "20261120" as seconds since 1970.
            row = dict(row)
            for name in self._times:
                moment = row.get(name)
                if moment is None or moment == "":
                    row[name] = None
                    continue
                row[name], issue = check_type(moment, datetime)
                if issue:
                    return None
        return self._convert(row, strict=False)

    def _convert(self, row: Any, *, strict: bool = True) -> Any:
        """Return the row's values; None if the row does not fit msgspec's types."""
        for read in (self._named, self._bare):
            try:
                values = read(row, strict)
                return self._late.finish([values])[0] if self._late else values
            # msgspec's errors are ValueErrors.
            except (ValueError, RecursionError):
                continue
        return None

    def _named(self, row: Any, strict: bool) -> tuple[Any, ...]:
        """Read an object or an array of values."""
        types = self._types if strict else self._text_types
        kind = types.objects if isinstance(row, dict) else types.arrays
        if self._fields is not None and isinstance(row, dict):
            if not row.keys() <= self._fields.keys():
                raise ValueError("a column is unknown")
            row = {self._fields[name]: value for name, value in row.items()}
        return msgspec.structs.astuple(msgspec.convert(row, kind, strict=strict))

    def _bare(self, row: Any, strict: bool) -> tuple[Any, ...]:
        """Read the value of the only column."""
        single = (self._types if strict else self._text_types).single
        if single is None:
            raise ValueError("there are several columns")
        return (msgspec.convert(row, single, strict=strict),)

    def _is_bad(self, row: Any) -> bool:
        """Return whether a row is bad, without a search for all its problems."""
        if self._nested:
            return bool(self._inspector.inspect(row, 0)[1])
        return self._convert(_whole(row)) is None

    def _stack_fit(self, good: list[Any]) -> tuple[Tensor, ...] | None:
        """Stack; return None if a value is not finite or beyond its dtype's range."""
        try:
            tensors = self._stack(good)
        except UNFIT:
            return None
        # In tensors of optional columns NaN means a missing value, so check the rows.
        fit = (
            all_finite(tensors)
            if self._all_required
            else all(map(_row_is_finite, good))
        )
        return tensors if fit else None

    def _drop_uneven(
        self, good: list[Any], indexes: list[int], problems: list[Problem]
    ) -> None:
        """If rows cannot be padded, keep only those that are as long as the first."""
        try:
            self._stack(good)
        except Uneven:
            pass
        except UNFIT:
            return
        else:
            return
        several = self._signature.layout is Layout.TENSORS
        kept: list[tuple[int, Any]] = []
        first: list[tuple[int, ...]] = []
        for index, values in zip(indexes, good, strict=True):
            shapes = [np.shape(value) for value in (values if several else [values])]
            first = first or shapes
            if shapes == first:
                kept.append((index, values))
                continue
            unlike = [a != b for a, b in zip(shapes, first, strict=True)].index(True)
            field = self._signature.inputs[unlike].name if several else None
            problems.append(invalid(index, field, _UNEVEN))
        problems.sort(key=lambda problem: problem.index or 0)
        indexes[:] = [index for index, _ in kept]
        good[:] = [values for _, values in kept]

    def _drop_unfit(
        self,
        good: list[Any],
        indexes: list[int],
        problems: list[Problem],
        *,
        max_told: int | None,
    ) -> None:
        kept: list[tuple[int, Any]] = []
        for index, values in zip(indexes, good, strict=True):
            if self._stack_fit([values]) is not None:
                kept.append((index, values))
            elif max_told is not None and len(problems) >= max_told:
                problems.append(_untold(index))
            else:
                problems += self._inspector.inspect(values, index)[1]
        problems.sort(key=lambda problem: problem.index or 0)
        indexes[:] = [index for index, _ in kept]
        good[:] = [values for _, values in kept]


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether tensors hold neither NaN nor infinity."""
    return all(
        bool(np.isfinite(tensor.data).all())
        for tensor in tensors
        if tensor.data.dtype.kind == "f"
    )


def _row_is_finite(values: Sequence[Any]) -> bool:
    return all(math.isfinite(value) for value in values if isinstance(value, float))


def _whole(row: Any) -> Any:
    """Write 3.0 as 3: JSON takes both as integers, msgspec in parsed rows does not."""
    if type(row) is dict:
        return {name: exact_integer(value) for name, value in row.items()}
    if type(row) is list:
        return [exact_integer(value) for value in row]
    return row


def _exact_as_text(column: Column) -> Column:
    """Narrow a column's integers to those that msgspec reads exactly from any text.

    It would round "9007199254740993.0". Rows that it refuses are inspected instead.
    """
    if KINDS[column.dtype].python is not int:
        return column
    low, high = bounds(column)
    assert low is not None
    assert high is not None
    most = MAX_WHOLE_FLOAT - 1
    return msgspec.structs.replace(
        column, minimum=max(low, -most), maximum=min(high, most)
    )


def _untold(index: int) -> Problem:
    return Problem(issue=_UNTOLD, index=index, code=ErrorCode.INVALID_INPUT)
