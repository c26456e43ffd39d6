"""Read the input formats of MLflow's scoring protocol as rows for a model.

MLflow makes a pandas table or arrays of them; here they become rows for the version's
decoder. As in MLflow, unknown columns are dropped, and numbers may be text.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, Raw, UnsetType

from inference.codecs.files.csv_files import what_is_wrong
from inference.codecs.rows.values import read_number
from inference.codecs.strict_json import parse_object
from inference.engine.signatures.mlflow_types import is_one_row
from inference.engine.signatures.signature import ONLY_INPUT, Layout, Signature
from inference.engine.wire.dtypes import JSON, TEXT
from inference.errors.api_error import ApiError, ErrorCode

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
# Texts that pandas reads as a missing value.
_MISSING = frozenset(
    {
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    }
)
# Separators that some programs write instead of commas.
_SEPARATORS = re.compile(r"[;\t|]")
_SPLIT_MEMBERS = frozenset({"columns", "data", "index"})

Rows = Sequence[Any]


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    data: Raw
    columns: list[str] | None = None
    # pandas writes it; it is not used.
    index: list[Any] | None = None


class _Request(msgspec.Struct):
    dataframe_split: _Split | UnsetType = UNSET
    dataframe_records: Raw | UnsetType = UNSET
    instances: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    params: Any = None


_request = msgspec.json.Decoder(_Request)


def as_instances(body: bytes, signature: Signature) -> bytes | None:
    """Rewrite a request as a predict body if the rows can be copied as they are.

    The version's compiled decoder reads that many times faster than `read_json`. If it
    refuses the body, `read_json` may still accept it. None: it cannot be rewritten.
    """
    try:
        request = _request.decode(body)
    except (ValueError, RecursionError):
        return None
    split = request.dataframe_split
    given = [request.dataframe_records, request.instances, request.inputs]
    rows: Any = [value for value in given if value is not UNSET]
    if split is not UNSET:
        rows.append(_rows_of(split, signature))
    if len(rows) != 1 or rows[0] is None or (request.params and signature.params):
        return None
    text = bytes(rows[0]).lstrip()
    if text[:1] != b"[":
        return None
    if split is UNSET and text[1:].lstrip()[:1] != b"{" and _is_wide(signature):
        return None
    return b'{"instances":%b}' % text


def _rows_of(split: _Split, signature: Signature) -> Raw | None:
    if signature.layout not in (Layout.TABLE, Layout.MATRIX):
        return None
    names = [column.name for column in signature.columns]
    return split.data if split.columns == names and split.index is None else None


def _is_wide(signature: Signature) -> bool:
    return signature.layout is Layout.TABLE and len(signature.columns) > 1


def read_json(body: bytes, signature: Signature) -> tuple[Rows, Any]:
    """Return the rows, and `params` as they were sent; raise ApiError."""
    request = parse_object(body)
    given = [name for name in FORMATS if name in request]
    if len(given) != 1:
        names = ", ".join(f"`{name}`" for name in FORMATS)
        _refuse(f"The body must have exactly one of {names}.")
    value = request[given[0]]
    rows = _READERS[given[0]](value, signature)
    if not rows:
        _refuse(f"`{given[0]}` must hold at least one row.")
    return rows, request.get("params")


def read_csv(body: bytes, signature: Signature) -> Rows:
    """Read a header and rows, as `pandas.DataFrame.to_csv` writes them."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ApiError(ErrorCode.INVALID_INPUT, "The CSV is not UTF-8.") from None
    try:
        # Not `splitlines`, which also breaks at characters that texts may contain.
        lines = [cells for cells in csv.reader(io.StringIO(text, newline="")) if cells]
    except csv.Error as error:
        _refuse(f"The CSV {what_is_wrong(error)}.")
    if len(lines) < 2:
        _refuse("The CSV must have a header and at least one row.")
    header, *records = lines
    is_one = len(header) == 1 and header[0] not in _names(signature)
    if is_one and _SEPARATORS.search(header[0]):
        _refuse("Separate cells with commas, and write decimals with a point.")
    if any(len(cells) != len(header) for cells in records):
        _refuse("Each row of the CSV must have as many cells as its header.")
    cells: list[list[Any]] = [
        [None if cell in _MISSING else cell for cell in row] for row in records
    ]
    # In a required text column "NA" and the like are texts, not missing values.
    texts = {
        column.name
        for column in signature.columns
        if column.dtype == TEXT and column.required
    }
    for index in (index for index, name in enumerate(header) if name in texts):
        for row, record in zip(cells, records, strict=True):
            row[index] = record[index]
    return _of_table(header, cells, signature)


def with_numbers(value: Any) -> Any:
    """Read texts in nested lists and objects as numbers where they are numbers."""
    if isinstance(value, str):
        # `whole`, because as a float a long integer would lose digits.
        number = read_number(value, whole=True)
        return value if number is None else number
    if isinstance(value, dict):
        return {name: with_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    return value


def _split(value: Any, signature: Signature) -> Rows:
    if not isinstance(value, dict) or "data" not in value:
        _refuse("`dataframe_split` must be an object with `data` and `columns`.")
    if not _SPLIT_MEMBERS.issuperset(value):
        _refuse("`dataframe_split` may have `columns`, `index` and `data` only.")
    data, columns, index = value["data"], value.get("columns"), value.get("index")
    if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        _refuse("`dataframe_split.data` must be a list of rows, each a list.")
    if columns is None:
        columns = list(range(len(data[0]) if data else 0))
    if not isinstance(columns, list):
        _refuse("`dataframe_split.columns` must be a list of names.")
    if any(len(row) != len(columns) for row in data):
        _refuse("Each row of `dataframe_split.data` must have a value for each column.")
    if index is not None and (not isinstance(index, list) or len(index) != len(data)):
        _refuse("`dataframe_split.index` must name each row.")
    return _of_table(columns, data, signature)


def _records(value: Any, signature: Signature) -> Rows:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        _refuse("`dataframe_records` must be a list of objects.")
    return _of_objects(value, signature)


def _instances(value: Any, signature: Signature) -> Rows:
    if isinstance(value, dict):
        return _of_columns(value, signature)
    if not isinstance(value, list):
        return _of_scalar(value, signature)
    if value and all(isinstance(row, dict) for row in value):
        return _of_objects(value, signature)
    if _is_wide(signature):
        _refuse("Rows of a table must be objects, or come as `dataframe_split`.")
    if signature.layout is Layout.TENSORS:
        _refuse("The inputs of this model have names: send an object of them.")
    return value


_READERS: dict[str, Callable[[Any, Signature], Rows]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _instances,
}


def _of_scalar(value: Any, signature: Signature) -> Rows:
    if signature.layout is not Layout.TABLE or len(signature.columns) > 1:
        _refuse("The input must be a list, or an object of named inputs.")
    return [value]


def _of_objects(rows: list[dict[str, Any]], signature: Signature) -> Rows:
    names = _names(signature)
    columns = signature.columns
    if not rows or (len(columns) == 1 and columns[0].dtype == JSON):
        # An object may be the value of the only column.
        return rows
    if any(not names.isdisjoint(row) for row in rows):
        known = names
        return [
            row
            if row.keys() <= known
            else {name: value for name, value in row.items() if name in known}
            for row in rows
        ]
    # If no name is known, the columns count by their order.
    header = list(rows[0])
    if any(list(row) != header for row in rows):
        _refuse("Each record must have the same columns.")
    return _of_table(header, [list(row.values()) for row in rows], signature)


def _of_columns(columns: dict[str, Any], signature: Signature) -> Rows:
    """Read an object of columns; if they are single values, it is one row."""
    names = _names(signature)
    if signature.layout in (Layout.MATRIX, Layout.TENSOR) and len(columns) == 1:
        # The only tensor may come under any name.
        (value,) = columns.values()
        return value if isinstance(value, list) else [value]
    if not names:
        _refuse("The input of this model has no names: send a list.")
    known = {name: value for name, value in columns.items() if name in names}
    if columns and not known and signature.layout is Layout.TABLE:
        return _of_unknown(signature, 1)
    if signature.layout is Layout.TABLE and (
        is_one_row(signature.columns)
        or not any(isinstance(value, list) for value in known.values())
    ):
        return [known]
    if not all(isinstance(value, list) for value in known.values()):
        _refuse("Each column must be a list.")
    lengths = {len(value) for value in known.values()}
    if len(lengths) > 1:
        _refuse("Columns must have the same number of values.")
    rows = zip(*known.values(), strict=True)
    return [dict(zip(known, row, strict=True)) for row in rows]


def _of_table(
    columns: Sequence[Any], data: Sequence[list[Any]], signature: Signature
) -> Rows:
    layout = signature.layout
    columns = [str(name) for name in columns]
    twice = Counter(columns) - Counter(set(columns))
    for name in _names(signature) & twice.keys():
        _refuse(f"The column `{name}` appears more than once.")
    if layout is Layout.TENSORS:
        shapes = {spec.name: spec.shape for spec in signature.inputs}
        wanted = [
            (position, name, shapes[name])
            for position, name in enumerate(columns)
            if name in shapes
        ]
        return [
            {name: _unflatten(row[at], shape) for at, name, shape in wanted}
            for row in data
        ]
    names = _names(signature)
    wanted_names = [
        (position, name) for position, name in enumerate(columns) if name in names
    ]
    if wanted_names:
        return [{name: row[at] for at, name in wanted_names} for row in data]
    if layout is Layout.TABLE and names != {ONLY_INPUT}:
        return _of_unknown(signature, len(data)) if columns else [{} for _ in data]
    if layout is Layout.TENSOR and len(columns) == 1:
        return [_unflatten(row[0], signature.shape) for row in data]
    return data


def _of_unknown(signature: Signature, rows: int) -> Rows:
    """Return empty rows, for which the decoder names the missing required columns.

    If no column is required, refuse: the model would answer as if all values were
    missing, and hide a wrong header.
    """
    if not any(column.required for column in signature.columns):
        _refuse("The table has none of the model's columns.")
    return [{}] * rows


def _unflatten(value: Any, shape: tuple[int, ...]) -> Any:
    """Nest the flat cell of a table into its tensor's shape; leave others unchanged."""
    if not shape or not isinstance(value, list):
        return [value] if shape == (1,) else value
    if len(shape) == 1 or -1 in shape or len(value) != prod(shape):
        return value
    if any(isinstance(item, list) for item in value):
        return value
    for size in reversed(shape[1:]):
        value = [value[start : start + size] for start in range(0, len(value), size)]
    return value


def _names(signature: Signature) -> frozenset[str]:
    named: Iterable[Any] = signature.columns
    if signature.layout is Layout.TENSORS:
        named = signature.inputs
    return frozenset(item.name for item in named)


def _refuse(message: str) -> NoReturn:
    raise ApiError(ErrorCode.INVALID_INPUT, message)
