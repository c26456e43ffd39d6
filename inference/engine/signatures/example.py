"""Read the input example that MLflow logs with a model, and compare its outputs."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.engine.signatures.mlflow_types import is_one_row
from inference.engine.signatures.signature import Layout, Signature, TensorInput
from inference.engine.wire.dtypes import BYTES, DATETIME, JSON, TEXT
from inference.engine.wire.joined_outputs import with_nulls
from inference.engine.wire.tensors import Array, Tensor, numpy_dtype, object_array

_INPUTS = "serving_input_example.json"
# Optional: a list with one entry per row, or an object of such lists by output name.
_OUTPUTS = "output_example.json"
# Where MLflow puts extra files, depending on the flavor.
_OUTPUT_FOLDERS = (".", "extra_files", "artifacts")
_MAX_BYTES = 32 * 1024 * 1024
# Length of a row of zeros on an axis whose length varies.
OPEN_SIZE = 4


def read(path: Path, signature: Signature) -> tuple[Tensor, ...] | None:
    """Read an artifact's input example, if any; raise ValueError if it does not fit."""
    payload = _read_json(path / _INPUTS)
    if payload is None:
        return None
    if not isinstance(payload, dict):
        raise ValueError("The logged input example is not a JSON object.")
    if signature.layout is Layout.TABLE:
        return _table(payload, signature)
    value = payload.get("inputs", payload.get("instances"))
    if value is None and "dataframe_split" in payload:
        value = payload["dataframe_split"]["data"]
    if signature.layout is Layout.TENSORS:
        if not isinstance(value, dict):
            raise ValueError("The logged input example does not name its tensors.")
        return tuple(_tensor(value.get(each.name), each) for each in signature.inputs)
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    [only] = signature.engine_inputs
    return (_tensor(value, only),)


def read_params(path: Path) -> dict[str, Any] | None:
    """Read the parameters logged with the example; None if there are none."""
    payload = _read_json(path / _INPUTS)
    params = payload.get("params") if isinstance(payload, dict) else None
    return params if isinstance(params, dict) else None


def _tensor(value: Any, wanted: TensorInput) -> Tensor:
    data = np.asarray(value, dtype=numpy_dtype(wanted.dtype))
    if -1 not in wanted.shape:
        data = data.reshape(-1, *wanted.shape)
    elif data.ndim == len(wanted.shape):
        data = data[np.newaxis]
    if data.ndim != len(wanted.shape) + 1:
        raise ValueError(
            f"The logged example of {wanted.name!r} has shape {list(data.shape)}."
        )
    return Tensor(wanted.name, data)


def _table(payload: Mapping[str, Any], signature: Signature) -> tuple[Tensor, ...]:
    columns: dict[str, list[Any]]
    if "dataframe_split" in payload:
        split = payload["dataframe_split"]
        names = split.get("columns")
        if not names or not all(isinstance(name, str) for name in names):
            # Without names, columns follow the signature's order.
            names = [column.name for column in signature.columns]
        columns = {str(name): [] for name in names}
        for row in split["data"]:
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    else:
        value = payload.get("inputs", payload.get("instances"))
        columns = _columns_of(value, signature)
    tensors = tuple(
        Tensor(column.name, column_array(columns[column.name], column.carrier))
        for column in signature.columns
        if column.name in columns
    )
    if not tensors:
        raise ValueError(
            "The logged input example has none of the signature's columns."
        )
    return tensors


def _columns_of(value: Any, signature: Signature) -> dict[str, list[Any]]:
    first = signature.columns[0]
    # A single column may itself hold objects, as in typed Python models.
    bare = len(signature.columns) == 1 and first.dtype == JSON
    if isinstance(value, dict) and not (bare and first.name not in value):
        one_row = is_one_row(signature.columns)
        return {
            name: items if isinstance(items, list) and not one_row else [items]
            for name, items in value.items()
        }
    items = value if isinstance(value, list) else [value]
    if (
        items
        and isinstance(items[0], dict)
        and not (bare and first.name not in items[0])
    ):
        names = dict.fromkeys(name for item in items for name in item)
        return {name: [item.get(name) for item in items] for name in names}
    # A list of plain values is the single column.
    return {first.name: items}


def column_array(values: Sequence[Any], dtype: str) -> Array:
    """Make one column from JSON values; a missing number becomes NaN, others None.

    Bytes are in base64, times in ISO 8601.
    """
    if dtype == TEXT:
        return object_array([None if each is None else str(each) for each in values])
    if dtype == BYTES:
        return object_array(
            [None if each is None else base64.b64decode(each) for each in values]
        )
    if dtype == JSON:
        return object_array(values)
    if dtype == DATETIME:
        moments = ["NaT" if each is None else each.removesuffix("Z") for each in values]
        return np.array(moments, dtype=DATETIME)
    if None in values and dtype == "bool":
        return object_array(values)
    if None in values and not dtype.startswith("float"):
        dtype = "float64"
    numbers = [np.nan if value is None else value for value in values]
    return np.asarray(numbers, dtype=dtype)


def zeros(signature: Signature) -> tuple[Tensor, ...] | None:
    """Return two rows of zeros, to replace an example; None for tables and text."""
    inputs = signature.engine_inputs
    if signature.layout is Layout.TABLE or any(each.dtype == TEXT for each in inputs):
        return None
    return tuple(
        Tensor(
            each.name,
            np.zeros(
                (2, *(OPEN_SIZE if size == -1 else size for size in each.shape)),
                each.dtype,
            ),
        )
        for each in inputs
    )


def tile(tensors: Sequence[Tensor], rows: int) -> tuple[Tensor, ...]:
    """Repeat the example's rows until there are `rows`."""
    indexes = np.arange(rows) % len(tensors[0].data)
    return tuple(Tensor(tensor.name, tensor.data[indexes]) for tensor in tensors)


def read_outputs(path: Path, name: str | None = None) -> dict[str, Array] | None:
    """Read the outputs logged for the example, by name ("" for an unnamed output).

    `name` is the file that the metadata names: `.npy` or JSON. Raises ValueError if it
    is missing, so that nobody relies on a check that never runs.
    """
    if name is not None:
        file = path / name
        if not file.is_file():
            raise ValueError(f"The artifact has no file {name}, named in its metadata.")
        if file.suffix == ".npy":
            check_size(file)
            return {"": np.load(file, allow_pickle=False)}
        payload = _read_json(file)
    else:
        found = (_read_json(path / folder / _OUTPUTS) for folder in _OUTPUT_FOLDERS)
        payload = next((each for each in found if each is not None), None)
    if payload is None:
        return None
    if isinstance(payload, dict):
        return {name: _expected(value) for name, value in payload.items()}
    return {"": _expected(payload)}


def _expected(value: Any) -> Array:
    """Make an array of numbers or text, or of JSON values if numpy cannot."""
    try:
        array: Array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return object_array(value)
    return object_array(value) if array.dtype == object and array.ndim else array


def compare(
    outputs: Sequence[Tensor], expected: Mapping[str, Array], *, tolerance: float
) -> None:
    """Raise ValueError if the outputs differ from those logged at training."""
    by_name = {tensor.name: tensor.data for tensor in outputs}
    for name, wanted in expected.items():
        got = by_name.get(name) if name else outputs[0].data
        is_plain = got is not None and got.dtype == object
        if got is None or (not is_plain and got.shape != wanted.shape):
            raise ValueError(
                "Its input example gives outputs of another shape than those logged."
            )
        if wanted.dtype.kind not in "fiub" or got.dtype.kind not in "fiub":
            same = with_nulls(got.tolist()) == with_nulls(wanted.tolist())
            worst = "another value"
        else:
            difference = np.abs(got.astype("float64") - wanted.astype("float64"))
            # NaN compares as false, so it counts as different.
            same = bool((difference <= tolerance).all())
            worst = f"a difference of {difference.max():.3g}"
        if not same:
            raise ValueError(
                "Its input example does not reproduce the logged outputs: "
                f"{worst}, where {tolerance:g} is allowed."
            )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return None
    check_size(path)
    return json.loads(path.read_bytes())


def check_size(path: Path) -> None:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"The logged {path.name} is too large to replay.")
