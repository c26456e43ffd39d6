"""Convert what Python models return to named tensors with one entry per row."""

import base64
import datetime
import enum
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inference.engine.runners.row_order import in_order
from inference.engine.wire.dtypes import MAX_WHOLE_FLOAT
from inference.engine.wire.joined_outputs import ONLY_OUTPUT
from inference.engine.wire.tensors import DTYPES, Array, Tensor, object_array

# Members of a classifier's result for a row, which answers present in their own way.
_LABEL_AND_SCORE = {"label", "score"}
_MAX_DEPTH = 64


def to_tensors(
    outputs: Any, *, rows: int, names: tuple[str, ...] = ()
) -> tuple[Tensor, ...]:
    """Convert what a Python model returned for `rows` rows to tensors.

    A table becomes one tensor per column, a dict of arrays one per entry, and anything
    else one tensor "output". A list of objects becomes JSON values of one output,
    unless the members have the signature's output `names`. Rows that pandas' index
    shows to be in another order are put back. Raises ValueError.
    """
    if _is_pandas(outputs):
        outputs = in_order(outputs, rows)
    if hasattr(outputs, "columns"):  # a DataFrame, without importing pandas
        return tuple(
            Tensor(str(name), _array(outputs[name])) for name in outputs.columns
        )
    if isinstance(outputs, Mapping):
        return _from_mapping(outputs, rows)
    if isinstance(outputs, (list, tuple)):
        return _from_list(list(outputs), names)
    if isinstance(outputs, str) and rows == 1:
        outputs = [outputs]
    return (Tensor(ONLY_OUTPUT, _array(outputs)),)


class DeclaredKind(enum.StrEnum):
    """What MLflow's schema declares of the values of an output."""

    FLOAT = "float"
    WHOLE = "whole"
    TEXT = "text"


def declared_kinds(schema: Any) -> dict[str, DeclaredKind]:
    """Return the kinds of the outputs whose dtype would depend on their values."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array as ArrayOf

    known = {
        "float": DeclaredKind.FLOAT,
        "double": DeclaredKind.FLOAT,
        "integer": DeclaredKind.WHOLE,
        "long": DeclaredKind.WHOLE,
        "string": DeclaredKind.TEXT,
    }
    kinds = {}
    for spec in schema.inputs if schema is not None else ():
        declared = spec.type.dtype if isinstance(spec.type, ArrayOf) else spec.type
        if isinstance(declared, DataType):
            kind = known.get(declared.name)
        else:
            # A tensor's dtype; other types are objects in any company.
            kind = DeclaredKind.FLOAT if getattr(declared, "kind", "") == "f" else None
        if kind is not None:
            kinds[str(spec.name)] = kind
            if len(schema.inputs) == 1:
                kinds[ONLY_OUTPUT] = kind
    return kinds


def as_declared(
    tensors: tuple[Tensor, ...], kinds: Mapping[str, DeclaredKind]
) -> tuple[Tensor, ...]:
    """Convert the outputs of these names to the kinds that the schema declares.

    Lists and pandas' columns change their dtype if all numbers are whole or a value is
    missing, so it would depend on which rows share a batch.
    """
    return tuple(
        Tensor(tensor.name, _CONVERSIONS[kinds[tensor.name]](tensor.data))
        if tensor.name in kinds
        else tensor
        for tensor in tensors
    )


def _as_floats(data: Array) -> Array:
    if data.dtype.kind not in "iuO" or (data.dtype == object and data.ndim != 1):
        return data
    if data.dtype == object:
        values = data.tolist()
        if not set(map(type, values)) <= {float, int, type(None)}:
            return data
        numbers = [value for value in values if value is not None]
    else:
        numbers = [int(data.min()), int(data.max())] if data.size else []
    if any(abs(number) > MAX_WHOLE_FLOAT for number in numbers if type(number) is int):
        return data
    return data.astype(np.float64)


def _as_whole(data: Array) -> Array:
    """Return floats, which pandas makes of integers beside a missing one, as before."""
    if data.dtype.kind != "f" or not np.isnan(data).any():
        return data
    values = data.tolist()
    if data.ndim != 1 or not all(value != value or value % 1 == 0 for value in values):
        return data
    return object_array([None if value != value else int(value) for value in values])


def _as_text(data: Array) -> Array:
    """Return missing text as None; without any text beside it pandas makes it NaN."""
    if data.dtype.kind != "f" or not np.isnan(data).all():
        return data
    return np.full(data.shape, None, dtype=object)


_CONVERSIONS: dict[DeclaredKind, Callable[[Array], Array]] = {
    DeclaredKind.FLOAT: _as_floats,
    DeclaredKind.WHOLE: _as_whole,
    DeclaredKind.TEXT: _as_text,
}


def _from_mapping(outputs: Mapping[Any, Any], rows: int) -> tuple[Tensor, ...]:
    if all(_length(value) == rows for value in outputs.values()) and outputs:
        return tuple(
            Tensor(
                str(name), _array(in_order(value, rows) if _is_pandas(value) else value)
            )
            for name, value in outputs.items()
        )
    if rows == 1:
        # One object for one instance, as chat models return it.
        return (Tensor(ONLY_OUTPUT, object_array([plain(outputs)])),)
    raise ValueError(f"The model gave one object for {rows} rows.")


def _is_pandas(value: Any) -> bool:
    """Return whether a value is a Series or a DataFrame, without importing pandas."""
    return hasattr(value, "iloc")


def _length(value: Any) -> int:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__"):
        return -1
    if getattr(value, "ndim", 1) == 0:
        return -1
    return len(value)


def _from_list(items: list[Any], names: tuple[str, ...]) -> tuple[Tensor, ...]:
    if items and all(isinstance(item, Mapping) for item in items):
        members = set(items[0])
        if members in (set(names), _LABEL_AND_SCORE) and all(
            set(item) == members for item in items
        ):
            return tuple(
                Tensor(str(name), _array([item[name] for item in items]))
                for name in items[0]
            )
        return (Tensor(ONLY_OUTPUT, object_array([plain(item) for item in items])),)
    array = _array(items)
    if array.ndim > 1 and array.dtype.kind == "O":
        # Keep each list of text as one value, even if all in this batch are equally
        # long.
        array = object_array([plain(item) for item in items])
    return (Tensor(ONLY_OUTPUT, array),)


def _array(value: Any) -> Array:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().float() if _is_bfloat16(value) else value.detach()
        value = value.cpu().numpy()
    elif hasattr(value, "to_numpy"):  # a Series
        value = _of_series(value)
    elif hasattr(value, "toarray"):  # a sparse matrix
        value = value.toarray()
    try:
        array = np.array(value)
    except ValueError:  # rows of different lengths
        array = object_array(list(value))
    if isinstance(value, (list, tuple)) and _would_change(value, array):
        array = object_array(list(value))
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind in "OMmS":
        return _objects(array)
    # Dtypes of the other byte order are not equal to any of these.
    if array.dtype in DTYPES.values():
        return array
    raise _unsendable(array.dtype)


def _would_change(items: Sequence[Any], array: Array) -> bool:
    """Return whether numpy changed a value, at any depth.

    It cuts zeros off the ends of texts and bytes. Beside text it turns numbers into
    text, beside numbers it turns booleans into numbers, and beside floats it rounds
    large integers. So the answer to one row would depend on other callers' rows.
    """
    kind = array.dtype.kind
    if kind == "O":
        return False
    leaves = _leaves(items)
    kinds = set(map(type, leaves))
    if kinds == {float}:
        return False
    if np.ndarray in kinds:
        if len({np.asarray(leaf).dtype for leaf in leaves}) == 1:
            return False
        leaves = list(itertools.chain.from_iterable(map(np.ravel, leaves)))
        kinds = set(map(type, leaves))
    if kind in "SU":
        return leaves != array.ravel().tolist()
    if kind in "Mm":
        # numpy converts times of several units to one, which changes their texts.
        return len({np.asarray(leaf).dtype for leaf in leaves}) > 1
    if kind != "b" and not kinds.isdisjoint((bool, np.bool_)):
        return True
    return kind == "f" and any(
        abs(int(leaf)) > MAX_WHOLE_FLOAT
        for leaf in leaves
        if isinstance(leaf, (int, np.integer))
    )


def _leaves(items: Sequence[Any]) -> list[Any]:
    """Flatten nested lists of equal lengths; arrays inside stay whole."""
    leaves = list(items)
    while leaves and isinstance(leaves[0], (list, tuple)):
        leaves = list(itertools.chain.from_iterable(leaves))
    return leaves


def _of_series(series: Any) -> Any:
    """Return a column's values; beside missing ones pandas makes integers floats."""
    values = series.to_numpy()
    # If several columns share a name, this is a DataFrame, which has no dtype.
    kind = getattr(getattr(series, "dtype", None), "kind", "O")
    if kind not in "iu" or values.dtype.kind != "f":
        return values
    is_exact = (np.isnan(values) | (np.abs(values) < MAX_WHOLE_FLOAT)).all()
    return values if is_exact else series.to_numpy(dtype=object)


def _is_bfloat16(value: Any) -> bool:
    return str(value.dtype) == "torch.bfloat16"


def _objects(array: Array) -> Array:
    if array.dtype.kind in "Mm":
        texts = array.astype(str).astype(object)
        texts[np.isnat(array)] = None
        return texts
    values = [plain(item) for item in array.ravel().tolist()]
    return object_array(values).reshape(array.shape)


def plain(value: Any, depth: int = 0) -> Any:
    """Copy a value as JSON values; raise ValueError if that is not possible.

    Missing values of pandas become None, also a NaN that is not inside a list or
    object; there NaN and infinity stay, and the answer carries a warning. Times become
    ISO 8601, bytes base64.
    """
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, str):  # an enum, or numpy's
        return str.__str__(value)
    if isinstance(value, float):
        return None if math.isnan(value) and not depth else float(value)
    if depth > _MAX_DEPTH:
        raise ValueError("The model's output is nested too deeply.")
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        # pandas' NaT is a datetime that equals nothing.
        return value.isoformat() if value == value else None
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        if value.dtype.kind in "Mm":
            return None if np.isnat(value).any() else str(value)
        return plain(value.tolist(), depth + 1)
    if hasattr(value, "model_dump"):  # pydantic
        return plain(value.model_dump(mode="json"), depth + 1)
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    raise _unsendable(type(value).__name__)


def _unsendable(kind: object) -> ValueError:
    return ValueError(
        f"The model gave values of type {kind}, which cannot be sent; numbers, "
        "booleans, text, and lists and objects of these can."
    )
