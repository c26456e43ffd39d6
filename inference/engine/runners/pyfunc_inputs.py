"""Tensors as the kinds of input that MLflow's models know."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.dtypes import DATETIME, OBJECT_DTYPES, TEXT
from inference.engine.wire.tensors import Array, Tensor, numpy_dtype


class InputMaker:
    """Makes a model's input; `labels` are its columns' where they are not their names.

    A table becomes a DataFrame with all columns of the signature, in its order. A
    column has the same dtype whatever values are in it, and of whatever callers: pandas
    would infer another one from a batch where all text is missing.
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
    """Copy what arrived read-only: models may write into their input."""
    return data if data.flags.writeable else data.copy()


def _with_dtype(values: Array, column: Column) -> Any:
    """Give a column the dtype that pandas has for it; text that is missing is NaN.

    As an array pandas would look into it: objects that all are text become text.
    """
    import pandas

    if column.dtype == TEXT:
        return pandas.array(values, dtype=_text_dtype())
    if column.carrier in OBJECT_DTYPES:
        # Not as an array, into which a DataFrame looks.
        return pandas.Series(values, dtype=object)
    return values.astype(numpy_dtype(column.carrier), copy=False)


@cache
def _text_dtype() -> Any:
    """Ask pandas for its dtype of text: `str` since pandas 3, `object` before."""
    import pandas

    return pandas.Series(["a"]).dtype


def _values(values: Array | None, column: Column, rows: int) -> Array:
    """Return the values, or a column without any."""
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
    """Complete a caller's parameters by the defaults; None for models without any."""
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
    # numpy knows no zones; these are in UTC.
    return moment.removesuffix("Z")
