"""Describe the form for one row of a version, filled with an example. Without I/O."""

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from inference.codecs.rows import types
from inference.engine.signatures.signature import Column, Layout, Signature


class FieldKind(enum.StrEnum):
    """How a person enters a value."""

    NUMBER = "number"
    INTEGER = "integer"
    TEXT = "text"
    CHOICE = "choice"
    BOOLEAN = "boolean"
    TIME = "time"
    IMAGE = "image"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class RowField:
    """One value of a row; `name` is empty if the row is that value alone."""

    name: str
    kind: FieldKind
    # As it stands in the form.
    value: str = ""
    required: bool = True
    note: str = ""
    # JSON of each value that may be chosen, and its words.
    choices: tuple[tuple[str, str], ...] = ()
    least: float | int | None = None
    most: float | int | None = None


_KINDS: dict[type, FieldKind] = {
    str: FieldKind.TEXT,
    bytes: FieldKind.TEXT,
    bool: FieldKind.BOOLEAN,
    int: FieldKind.INTEGER,
    float: FieldKind.NUMBER,
    datetime: FieldKind.TIME,
}
_BOOLEANS = (("true", "true"), ("false", "false"))
# Longer values of an example, such as pictures as numbers, fill no form.
_MOST_CHARACTERS = 20_000


def of_row(signature: Signature, example: Any) -> list[RowField]:
    """Return the fields of one row, with the values of an example instance."""
    if signature.columns:
        values = _by_name(signature.columns, example)
        return [
            _of_column(column, values.get(column.name)) for column in signature.columns
        ]
    if signature.layout is Layout.TENSORS:
        given = example if isinstance(example, Mapping) else {}
        return [
            RowField(
                each.name,
                FieldKind.JSON,
                _as_json(given.get(each.name)),
                note=_shape(each.dtype, each.shape),
            )
            for each in signature.inputs
        ]
    if signature.image is not None:
        size = f"{signature.image.width} × {signature.image.height}"
        return [RowField("", FieldKind.IMAGE, note=f"PNG or JPEG, made {size}")]
    if signature.shape == ():
        return [_of_column(Column("", signature.dtype), example)]
    note = _shape(signature.dtype, signature.shape)
    return [RowField("", FieldKind.JSON, _as_json(example), note=note)]


def _by_name(columns: Sequence[Column], example: Any) -> Mapping[str, Any]:
    if isinstance(example, Mapping):
        return example
    if not isinstance(example, Sequence) or isinstance(example, str):
        return {}
    return {column.name: value for column, value in zip(columns, example, strict=False)}


def _of_column(column: Column, value: Any) -> RowField:
    note = column.dtype if column.required else f"{column.dtype}, optional"
    choices = types.choices(column)
    if choices:
        words = tuple((json.dumps(each), str(each)) for each in choices)
        return RowField(
            column.name,
            FieldKind.CHOICE,
            json.dumps(value),
            required=column.required,
            note=note,
            choices=words,
        )
    kind = _KINDS.get(types.KINDS[column.dtype].python, FieldKind.JSON)
    least, most = column.minimum, column.maximum
    if least is not None or most is not None:
        note += f", {_bound(least)} to {_bound(most)}"
    return RowField(
        column.name,
        kind,
        _shown(kind, value),
        required=column.required,
        note=note,
        choices=_BOOLEANS if kind is FieldKind.BOOLEAN else (),
        least=least,
        most=most,
    )


def _shown(kind: FieldKind, value: Any) -> str:
    if value is None:
        return ""
    match kind:
        case FieldKind.TIME:
            return _as_time(value)
        case FieldKind.TEXT:
            return str(value)
    return _as_json(value)


def _as_time(value: Any) -> str:
    """Return a time in UTC as browsers write it, or nothing."""
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        return ""
    if time.tzinfo is not None:
        time = time.astimezone(UTC)
    return time.replace(tzinfo=None, microsecond=0).isoformat()


def _as_json(value: Any) -> str:
    text = "" if value is None else json.dumps(value)
    return text if len(text) <= _MOST_CHARACTERS else ""


def _bound(value: float | None) -> str:
    return "…" if value is None else f"{value:g}"


def _shape(dtype: str, shape: Sequence[int]) -> str:
    sizes = " × ".join("any" if size < 0 else str(size) for size in shape)
    return f"{dtype}, {sizes or 'one value'}"
