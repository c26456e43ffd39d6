"""Bind the tensors of a request to the inputs of a model version.

A matrix is one tensor `[rows, columns]` called `input`, or one tensor per column; a
table is one tensor per column. Columns are `[rows]` or `[rows, 1]`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inference.codecs.rows.types import (
    MAX_TEXT_LENGTH,
    bounds,
    has_whole_floats,
    text_limit,
)
from inference.codecs.rows.values import exactly, not_among, readable_name
from inference.dialects.open_inference import datatypes as data
from inference.dialects.open_inference.datatypes import BF16, InvalidData
from inference.dialects.open_inference.messages import Shape
from inference.engine.signatures.signature import ONLY_INPUT, Column, Layout, Signature
from inference.engine.wire.dtypes import MAX_WHOLE_FLOAT
from inference.engine.wire.tensors import Array, Tensor, exceeds_floats, numpy_dtype
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import MAX_PROBLEMS, with_facts
from inference.snapshot.targets import Target


class SentTensor(NamedTuple):
    """An input of a request; `read` returns its elements in one dimension."""

    name: str
    datatype: str
    shape: Shape
    read: Callable[[str, Shape], Array]


class Expected(msgspec.Struct, frozen=True):
    """An input that a model version takes."""

    name: str
    datatype: str
    dtype: str
    # Shape per row; -1 is any size. () for columns, which may also be [rows, 1].
    shape: tuple[int, ...]
    column: Column | None = None

    @property
    def wire_shape(self) -> tuple[int, ...]:
        return (-1, *self.shape)


class InputBinding:
    """Checks and binds the inputs of one model version.

    Optional columns of types that the protocol cannot write are left out.
    """

    def __init__(self, signature: Signature) -> None:
        """Raise ApiError if the protocol cannot write a required input."""
        self._layout = signature.layout
        self._padding = signature.padding
        # The engine fills in missing values of optional columns.
        columns = [
            column
            for column in signature.columns
            if column.required or data.datatype_of(column.dtype) is not None
        ]
        self._columns = [_expected_column(column) for column in columns]
        whole: tuple[Expected, ...] = ()
        if signature.layout is Layout.MATRIX:
            shape = (len(signature.columns),)
            whole = (_expected(ONLY_INPUT, signature.dtype, shape),)
        elif signature.layout is Layout.TENSOR:
            name = signature.inputs[0].name if signature.inputs else ONLY_INPUT
            whole = (_expected(name, signature.dtype, signature.shape),)
        elif signature.layout is Layout.TENSORS:
            whole = tuple(
                _expected(given.name, given.dtype, given.shape)
                for given in signature.inputs
            )
        self.expected: tuple[Expected, ...] = whole or tuple(self._columns)
        self._whole = {expected.name: expected for expected in whole}
        self._by_column = {expected.name: expected for expected in self._columns}
        # Columns of a table that the engine carries in another dtype.
        self._recast = {
            column.name
            for column in columns
            if signature.layout is Layout.TABLE and column.carrier != column.dtype
        }
        self._rules = [_rule(column) for column in columns]
        optional = [not column.required for column in columns]
        # Whether each column of a matrix is optional.
        self._optional: Any = np.array(optional) if any(optional) else False
        self._has_rules = any(rule is not None for rule in self._rules)

    def bind(self, sent: Sequence[SentTensor], *, max_rows: int) -> tuple[Tensor, ...]:
        """Return the tensors for the engine; raise ApiError."""
        whole = self._whole
        if not self._columns or (len(sent) == len(whole) and sent[0].name in whole):
            return self._bind_whole(sent, max_rows)
        return self._bind_columns(sent, max_rows)

    def _bind_whole(
        self, sent: Sequence[SentTensor], max_rows: int
    ) -> tuple[Tensor, ...]:
        if len(sent) != 1 or len(self._whole) != 1 or sent[0].name not in self._whole:
            self._refuse_names(sent, self._whole)
        rows = _rows(sent, max_rows)
        by_name = {tensor.name: tensor for tensor in sent}
        tensors = []
        for expected in self._whole.values():
            tensor = by_name[expected.name]
            array = _read(tensor, expected).reshape(tensor.shape)
            if self._padding is not None:
                _require_length(tensor, expected, self._padding.longest)
            _require_usable(array, tensor.name, may_be_nan=self._optional)
            name = expected.name if self._layout is Layout.TENSORS else ONLY_INPUT
            tensors.append(Tensor(name, array))
        if self._layout is Layout.MATRIX and self._has_rules:
            matrix: Any = tensors[0].data
            self._check_rules([matrix[:, i] for i in range(len(self._columns))], rows)
        return tuple(tensors)

    def _bind_columns(
        self, sent: Sequence[SentTensor], max_rows: int
    ) -> tuple[Tensor, ...]:
        self._refuse_names(sent, self._by_column)
        rows = _rows(sent, max_rows)
        by_name = {tensor.name: tensor for tensor in sent}
        arrays: list[Array] = []
        for expected in self._columns:
            tensor = by_name.get(expected.name)
            column = expected.column
            assert column is not None
            if tensor is not None:
                array = _read(tensor, expected)
                _require_usable(array, tensor.name, may_be_nan=not column.required)
                if column.name in self._recast:
                    array = _carried(array, column)
            elif column.required:
                raise refusals.invalid(f"The input `{column.name}` is missing.")
            else:
                array = self._absent(column, rows)
            arrays.append(array)
        if self._has_rules:
            self._check_rules(arrays, rows)
        if self._layout is Layout.MATRIX:
            return (Tensor(ONLY_INPUT, np.stack(arrays, axis=1)),)
        return tuple(
            Tensor(expected.name, array)
            for expected, array in zip(self._columns, arrays, strict=True)
        )

    def _absent(self, column: Column, rows: int) -> Array:
        """Make a column without values; in a matrix of integers they are 0."""
        if self._layout is Layout.MATRIX:
            dtype = np.dtype(column.dtype)
            return np.full(rows, np.nan if dtype.kind == "f" else 0, dtype)
        dtype = numpy_dtype(column.carrier)
        return np.full(rows, np.nan if dtype.kind == "f" else None, dtype)

    def _refuse_names(
        self, sent: Sequence[SentTensor], known: dict[str, Expected]
    ) -> None:
        """Refuse unknown inputs, inputs that come twice, and too few inputs."""
        names = [tensor.name for tensor in sent]
        if len(set(names)) != len(names):
            raise refusals.invalid("An input is sent twice.")
        for name in names:
            if name not in known:
                raise refusals.invalid(
                    f"The model has no input `{readable_name(name)}`. "
                    f"Its inputs are {self._names()}."
                )
        if len(names) < len(known) and known is self._whole:
            raise refusals.invalid(
                f"An input is missing. The inputs are {self._names()}."
            )

    def _names(self) -> str:
        names = [f"`{expected.name}`" for expected in self.expected]
        return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")

    def _check_rules(self, arrays: Sequence[Array], rows: int) -> None:
        """Raise ApiError UNPROCESSABLE for values that break a rule of their column."""
        problems: list[Problem] = []
        for expected, rule, array in zip(
            self._columns, self._rules, arrays, strict=True
        ):
            if rule is None or rule.allows(array):
                continue
            for index in range(rows):
                if rule.allows(array[index : index + 1]):
                    continue
                problems.append(
                    Problem(
                        issue=rule.issue,
                        index=index,
                        field=expected.name,
                        code=ErrorCode.UNPROCESSABLE,
                    )
                )
                if len(problems) >= MAX_PROBLEMS:
                    raise with_facts(problems)
        if problems:
            raise with_facts(problems)


class _Rule(NamedTuple):
    """A column's range, choices or length; missing values (NaN, None) keep it."""

    allows: Callable[[Array], bool]
    issue: str


def _rule(column: Column) -> _Rule | None:
    if column.enum:
        choices: Any = np.array(column.enum, object if column.dtype == "str" else None)
        optional = not column.required

        def among(values: Any) -> bool:
            # Choices are rounded as the values are: no float32 equals the double 0.1.
            allowed = (
                choices.astype(values.dtype) if values.dtype.kind == "f" else choices
            )
            found = np.isin(values, allowed)
            return bool((found | _is_absent(values) if optional else found).all())

        return _Rule(among, not_among(column.enum))
    if column.dtype == "str":
        limit = text_limit(column)
        return _Rule(
            lambda values: all(t is None or len(t) <= limit for t in values.tolist()),
            f"must be at most {limit} characters long",
        )
    if column.minimum is None and column.maximum is None:
        return None
    low, high = bounds(column)

    def within(values: Any) -> bool:
        # Written so that NaN, which an optional column may hold, passes.
        return not bool(((values < low) | (values > high)).any())

    parts = []
    if column.minimum is not None:
        parts.append(f"at least {exactly(column.minimum)}")
    if column.maximum is not None:
        parts.append(f"at most {exactly(column.maximum)}")
    return _Rule(within, "must be " + " and ".join(parts))


def _is_absent(values: Any) -> Any:
    if values.dtype == object:
        return np.array([value is None for value in values.tolist()], bool)
    return np.isnan(values) if values.dtype.kind == "f" else False


def _expected_column(column: Column) -> Expected:
    return msgspec.structs.replace(
        _expected(column.name, column.dtype, ()), column=column
    )


def _expected(name: str, dtype: str, shape: tuple[int, ...]) -> Expected:
    datatype = data.datatype_of(dtype)
    if datatype is None:
        raise refusals.invalid(
            f"The input `{name}` is of type {dtype}, which cannot be written in the "
            "Open Inference Protocol. Call the model through /api/v1/."
        )
    return Expected(name, datatype, dtype, shape)


def _rows(sent: Sequence[SentTensor], max_rows: int) -> int:
    """Return the size of the first dimension, which all inputs share."""
    rows = sent[0].shape[0]
    for tensor in sent:
        if tensor.shape[0] != rows:
            raise refusals.invalid(
                "All inputs need the same first dimension, the number of rows."
            )
    if rows < 1:
        raise refusals.invalid(
            "The first dimension of the inputs, the rows, must be 1 or more."
        )
    if rows > max_rows:
        raise ApiError(
            ErrorCode.TOO_LARGE,
            f"{rows} rows are more than the {max_rows} that one request may hold. "
            "Split them up, or submit a job.",
            facts={"limit": "max_batch_rows", "maximum": max_rows, "needed": rows},
        )
    return rows


def _read(tensor: SentTensor, expected: Expected) -> Array:
    name = tensor.name
    if tensor.datatype != expected.datatype and (
        tensor.datatype != BF16 or expected.dtype != "float32"
    ):
        sent = tensor.datatype if len(tensor.datatype) <= 10 else "another datatype"
        raise refusals.invalid(
            f"The input `{name}` takes {expected.datatype}, not {sent}."
        )
    if not _fits(tensor.shape, expected):
        wanted = ", ".join(map(str, expected.wire_shape))
        raise refusals.invalid(f"The input `{name}` takes tensors of shape [{wanted}].")
    try:
        return tensor.read(tensor.datatype, tensor.shape)
    except InvalidData as issue:
        raise refusals.invalid(f"The input `{name}` {issue}.") from None


def _require_length(tensor: SentTensor, expected: Expected, longest: int) -> None:
    for size, wanted in zip(tensor.shape[1:], expected.shape, strict=True):
        if wanted == -1 and size > longest:
            raise refusals.invalid(
                f"The input `{tensor.name}` has {size} values in a row; {longest} are "
                "the most."
            )


def _fits(shape: Shape, expected: Expected) -> bool:
    wanted, given = expected.shape, shape[1:]
    if given == wanted or (expected.column is not None and given == (1,)):
        return True
    return len(given) == len(wanted) and all(
        size == want or (want == -1 and size > 0)
        for size, want in zip(given, wanted, strict=True)
    )


def _require_usable(array: Any, name: str, *, may_be_nan: Any) -> None:
    """Refuse NaN, infinity and texts beyond `MAX_TEXT_LENGTH`.

    In optional columns (`may_be_nan`) NaN means a missing value and is accepted.
    """
    if array.dtype.kind == "f":
        usable = np.isfinite(array)
        if may_be_nan is not False:
            usable |= np.isnan(array) & may_be_nan
        if not usable.all():
            issue = f"The input `{name}` has a value that is NaN or infinite."
            raise ApiError(ErrorCode.UNPROCESSABLE, issue)
    elif array.dtype == object and any(
        len(text) > MAX_TEXT_LENGTH for text in array.ravel().tolist()
    ):
        issue = f"The input `{name}` has a text of over {MAX_TEXT_LENGTH} characters."
        raise ApiError(ErrorCode.UNPROCESSABLE, issue)


def _carried(array: Array, column: Column) -> Array:
    """Cast a column to the dtype that the engine carries it in."""
    if has_whole_floats(column) and exceeds_floats(array):
        raise refusals.invalid(
            f"The input `{column.name}` has a number beyond {MAX_WHOLE_FLOAT}. The "
            "column is optional, so the model gets floats, which would round it."
        )
    return array.astype(numpy_dtype(column.carrier), copy=False)


def input_binding(target: Target) -> InputBinding:
    """Make the binding of a version, for `Target.compiled`."""
    return InputBinding(target.signature)
