"""Convert tensors and parameters to the inputs of MLflow's Python models."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.dtypes import DATETIME, OBJECT_DTYPES, TEXT
from inference.engine.wire.tensors import Array, Tensor, numpy_dtype


class InputMaker:
    """Make a model's input; `labels` replaces the names of its columns.

    A table becomes a DataFrame with all columns of the signature, in its order. The
    dtype of a column never depends on its values: pandas would infer another one from
    a batch in which all text is missing.
    """

    def __init__(
        self, signature: Signature, *, labels: Sequence[str | int] | None = None
    ) -> None:
        self._layout = signature.layout
        self._columns = signature.columns
        self._labels = labels or [column.name for column in signature.columns]

    def make(self, tensors: Sequence[Tensor]) -> Any:
        if self._layout is Layout.TABLE:
            return self._data_frame(tensors)
        if self._layout is Layout.TENSORS:
            return {tensor.name: _writeable(tensor.data) for tensor in tensors}
        return _writeable(tensors[0].data)

    def _data_frame(self, tensors: Sequence[Tensor]) -> Any:
        # Deferred: only tables need it.
        import pandas

        by_name = {tensor.name: tensor.data for tensor in tensors}
        rows = len(tensors[0].data)
        return pandas.DataFrame(
            {
                label: _with_dtype(
                    _values(by_name.get(column.name), column, rows), column
                )
                for label, column in zip(self._labels, self._columns, strict=True)
            }
        )


def _writeable(data: Array) -> Array:
    """Return the array, copied if it is read-only: models may write into it."""
    return data if data.flags.writeable else data.copy()


def _with_dtype(values: Array, column: Column) -> Any:
    """Return a column in pandas' dtype for it; missing text becomes NaN."""
    import pandas

    if column.dtype == TEXT:
        return pandas.array(values, dtype=_text_dtype())
    if column.carrier in OBJECT_DTYPES:
        # A Series keeps its dtype. From an array, a DataFrame would infer text if all
        # objects are text.
        return pandas.Series(values, dtype=object)
    return values.astype(numpy_dtype(column.carrier), copy=False)


@cache
def _text_dtype() -> Any:
    """Return pandas' dtype for text: `str` since pandas 3, `object` before."""
    import pandas

    return pandas.Series(["a"]).dtype


def _values(values: Array | None, column: Column, rows: int) -> Array:
    """Return the values, or a column of missing values."""
    if values is not None:
        return values
    dtype = numpy_dtype(column.carrier)
    if dtype.kind == "M":
        return np.full(rows, "NaT", dtype=dtype)
    if dtype.kind == "f":
        return np.full(rows, np.nan, dtype=dtype)
    return np.full(rows, None, dtype=object)


def params_of(
    signature: Signature, given: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Add the defaults to a caller's parameters; None if the model has none."""
    if not signature.params:
        return None
    given = given or {}
    return {
        param.name: _param(given.get(param.name, param.default), param.dtype)
        for param in signature.params
    }


def _param(value: Any, dtype: str) -> Any:
    if dtype != DATETIME or value is None:
        return value
    if isinstance(value, list):
        return [np.datetime64(_plain(item), "us") for item in value]
    return np.datetime64(_plain(value), "us")


def _plain(moment: str) -> str:
    # numpy has no time zones; these times are in UTC.
    return moment.removesuffix("Z")
