"""Convert a signature's tensors to one numeric matrix `[rows, features]` and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from explain.question import Rows
from inference.engine.signatures.signature import Layout, Signature, Task
from inference.engine.wire.dtypes import DATETIME, MAX_WHOLE_FLOAT, OBJECT_DTYPES
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Array, Tensor, exceeds_floats, object_array

_MAX_BACKGROUND_ROWS = 1000
_PICTURES_AND_TEXTS = {Task.IMAGE, Task.TEXT, Task.EMBEDDING}


def check_explainable(signature: Signature) -> None:
    """Raise EngineError NOT_EXPLAINABLE unless all inputs are named numbers."""
    if not signature.columns or signature.task in _PICTURES_AND_TEXTS:
        raise not_explainable(
            "Only models with named columns can be explained so far, not images, "
            "texts or unnamed tensors."
        )
    if any(
        column.dtype in OBJECT_DTYPES or column.dtype == DATETIME
        for column in signature.columns
    ):
        raise not_explainable(
            "Models with columns of text, bytes, moments or nested values cannot be "
            "explained so far."
        )


def to_matrix(signature: Signature, tensors: tuple[Tensor, ...]) -> Rows:
    """Put the columns side by side; a missing optional column becomes NaN."""
    if signature.layout is Layout.MATRIX:
        matrix: Rows = tensors[0].data
        return matrix
    by_name = {tensor.name: tensor.data for tensor in tensors}
    rows = len(tensors[0].data)
    columns = [
        _floats(column.name, by_name[column.name])
        if column.name in by_name
        else np.full(rows, np.nan)
        for column in signature.columns
    ]
    return np.stack(columns, axis=1)


def _floats(name: str, values: Any) -> Rows:
    if values.dtype.kind in "iu" and exceeds_floats(values):
        raise not_explainable(
            f"The column {name!r} has a number beyond {MAX_WHOLE_FLOAT}, which cannot "
            "be explained exactly."
        )
    return np.asarray(values, dtype=np.float64)


def values_of_row(
    signature: Signature, tensors: tuple[Tensor, ...], index: int
) -> list[Any]:
    """Return a row's value in each column, in the column's own dtype."""
    if signature.layout is Layout.MATRIX:
        return list(tensors[0].data[index])
    by_name = {tensor.name: tensor.data for tensor in tensors}
    return [
        by_name[column.name][index] if column.name in by_name else None
        for column in signature.columns
    ]


def to_tensors(
    signature: Signature, matrix: Rows, *, like: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Convert a matrix of `to_matrix` back; leave out columns that `like` lacks."""
    if signature.layout is Layout.MATRIX:
        return (Tensor(like[0].name, matrix),)
    sent = {tensor.name for tensor in like}
    return tuple(
        Tensor(column.name, _column(values, column.carrier))
        for column, values in zip(signature.columns, matrix.T, strict=True)
        if column.name in sent
    )


def _column(values: Rows, dtype: str) -> Array:
    """Convert a column to the dtype that carries it.

    Optional booleans become objects, with None for NaN; missing numbers stay NaN.
    """
    if dtype not in OBJECT_DTYPES:
        return np.ascontiguousarray(values, dtype=dtype)
    return object_array([None if np.isnan(value) else bool(value) for value in values])


def read_background(signature: Signature, folder: Path) -> Rows:
    """Read the background sample logged with the version: `.npy`, or `.json` rows.

    Raises EngineError NOT_EXPLAINABLE with advice for the data scientist.
    """
    if signature.background is None:
        raise not_explainable(
            "The version has no background sample; log one with the model and name "
            "it in its metadata as `background`."
        )
    path = (folder / signature.background).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise not_explainable("The version's background sample is missing.")
    try:
        values = _read(path, signature)
    except (ValueError, KeyError, TypeError) as error:
        raise not_explainable(
            f"The version's background sample cannot be read: {error}"
        ) from error
    if values.ndim != 2 or values.shape[1] != len(signature.columns):
        raise not_explainable(
            f"The version's background sample has shape {list(values.shape)}, not "
            f"rows of {len(signature.columns)} columns."
        )
    if not len(values) or not np.isfinite(values).all():
        raise not_explainable(
            "The version's background sample is empty or has missing numbers."
        )
    dtype = signature.dtype if signature.layout is Layout.MATRIX else "float64"
    background: Rows = values[:_MAX_BACKGROUND_ROWS].astype(dtype)
    return background


def _read(path: Path, signature: Signature) -> Rows:
    if path.suffix == ".npy":
        # No pickle, because the file comes with the artifact.
        loaded: Rows = np.load(path, allow_pickle=False)
        return loaded
    names = [column.name for column in signature.columns]
    rows: list[Any] = json.loads(path.read_bytes())
    return np.array(
        [
            [row[name] for name in names] if isinstance(row, dict) else row
            for row in rows
        ],
        dtype=np.float64,
    )


def not_explainable(message: str) -> EngineError:
    return EngineError(EngineErrorCode.NOT_EXPLAINABLE, message)


def bad_option(option: str, message: str) -> EngineError:
    return EngineError(EngineErrorCode.BAD_REQUEST, message, option=option)
