"""The input example that MLflow logs beside a model, as tensors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.engine.signature import Layout, Signature
from inference.engine.tensors import TEXT, Array, Tensor

INPUT_NAME = "input"
_INPUTS = "serving_input_example.json"
# Optional: a list per row, or an object of such lists by output name.
_OUTPUTS = "output_example.json"
# Where MLflow puts files that are logged along, by flavor.
_OUTPUT_FOLDERS = (".", "extra_files", "artifacts")
_MAX_BYTES = 32 * 1024 * 1024


def read(path: Path, signature: Signature) -> tuple[Tensor, ...] | None:
    """Read the logged input example of the artifact folder, if there is one."""
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
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    data = np.asarray(value, dtype=signature.dtype).reshape(-1, *signature.shape)
    return (Tensor(INPUT_NAME, data),)


def _table(payload: Mapping[str, Any], signature: Signature) -> tuple[Tensor, ...]:
    columns: dict[str, list[Any]]
    if "dataframe_split" in payload:
        split = payload["dataframe_split"]
        names = split.get("columns") or [column.name for column in signature.columns]
        columns = {str(name): [] for name in names}
        for row in split["data"]:
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    else:
        value = payload.get("inputs", payload.get("instances"))
        columns = _columns_of(value, signature)
    return tuple(
        Tensor(column.name, column_array(columns[column.name], column.dtype))
        for column in signature.columns
        if column.name in columns
    )


def _columns_of(value: Any, signature: Signature) -> dict[str, list[Any]]:
    if isinstance(value, dict):
        return {
            name: items if isinstance(items, list) else [items]
            for name, items in value.items()
        }
    items = value if isinstance(value, list) else [value]
    if items and isinstance(items[0], dict):
        return {name: [item[name] for item in items] for name in items[0]}
    # A list of plain values is the only column.
    return {signature.columns[0].name: items}


def column_array(values: Sequence[Any], dtype: str) -> Array:
    """Make one column; a missing text is None, a missing number NaN."""
    if dtype != TEXT:
        numbers = [np.nan if value is None else value for value in values]
        return np.asarray(numbers, dtype=dtype)
    array = np.empty(len(values), dtype=object)
    array[:] = [None if value is None else str(value) for value in values]
    return array


def zeros(signature: Signature) -> tuple[Tensor, ...] | None:
    """Make two rows of zeros where no example was logged; None for tables."""
    if signature.layout is Layout.TABLE:
        return None
    return (Tensor(INPUT_NAME, np.zeros((2, *signature.shape), signature.dtype)),)


def tile(tensors: Sequence[Tensor], rows: int) -> tuple[Tensor, ...]:
    """Repeat the example's rows until there are `rows`."""
    indexes = np.arange(rows) % len(tensors[0].data)
    return tuple(Tensor(tensor.name, tensor.data[indexes]) for tensor in tensors)


def read_outputs(path: Path) -> dict[str, Array] | None:
    """Read the outputs logged for the example, by name ("" where it has none)."""
    found = (_read_json(path / folder / _OUTPUTS) for folder in _OUTPUT_FOLDERS)
    payload = next((each for each in found if each is not None), None)
    if payload is None:
        return None
    if isinstance(payload, dict):
        return {name: np.asarray(value) for name, value in payload.items()}
    return {"": np.asarray(payload)}


def compare(
    outputs: Sequence[Tensor], expected: Mapping[str, Array], *, tolerance: float
) -> None:
    """Raise ValueError where outputs differ from those logged at training."""
    by_name = {tensor.name: tensor.data for tensor in outputs}
    for name, wanted in expected.items():
        got = by_name.get(name) if name else outputs[0].data
        if got is None or got.shape != wanted.shape:
            raise ValueError(
                "Its input example gives outputs of another shape than those logged."
            )
        if wanted.dtype.kind not in "fiub" or got.dtype.kind not in "fiub":
            same = got.tolist() == wanted.tolist()
            worst = "another value"
        else:
            difference = np.abs(got.astype("float64") - wanted.astype("float64"))
            # NaN compares false, so that it counts as different.
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
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"The logged {path.name} is too large to replay.")
    return json.loads(path.read_bytes())
