"""Check nested values of "json" columns against the schema of their column.

Only those keywords of JSON Schema are checked that signatures use: see
`inference/engine/signatures/mlflow_types.py`.
"""

import binascii
import math
from datetime import datetime
from typing import Any

from inference.engine.wire.dtypes import MAX_WHOLE_FLOAT

# Signatures nest less deeply, and engines can read MessagePack of this depth.
_MAX_DEPTH = 32


class BrokenSchema(ValueError):
    """The value breaks the schema of its column; the text says where and how."""


class NotFinite(BrokenSchema):
    """A number of the right type is infinite, or beyond 64 bits."""


def exact_integer(value: Any) -> Any:
    """Return 3.0 as 3, as JSON Schema does, and any other value unchanged.

    A float of 2**53 or more stays a float, because the parser may have rounded it.
    """
    if isinstance(value, float) and abs(value) < MAX_WHOLE_FLOAT and value.is_integer():
        return int(value)
    return value


def as_float(value: float) -> float:
    """Return a number as a float; infinity stands for an integer beyond all floats."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def read_value(value: Any, schema: dict[str, Any], path: str = "") -> Any:
    """Return the value as the model gets it; raise BrokenSchema.

    JSON has one type of number: 3 becomes 3.0 where the schema says number, and 3.0
    becomes 3 where it says integer. Members that are not required may be null.
    """
    if path.count("/") > _MAX_DEPTH:
        raise BrokenSchema("is nested too deeply")
    place = f"at {path}: " if path else ""
    match schema.get("type"):
        case "array":
            if not isinstance(value, list | tuple):
                raise BrokenSchema(f"{place}must be an array")
            inner = schema.get("items", {})
            return [
                read_value(item, inner, f"{path}/{index}")
                for index, item in enumerate(value)
            ]
        case "object":
            if not isinstance(value, dict):
                raise BrokenSchema(f"{place}must be an object")
            return _read_object(value, schema, path, place)
        case None:
            _require_plain(value, path, place)
            return value
        case "number":
            if isinstance(value, int | float) and not isinstance(value, bool):
                number = as_float(value)
                if not math.isfinite(number):
                    raise NotFinite(f"{place}must be finite")
                return number
        case "integer":
            value = exact_integer(value)
            if isinstance(value, int) and not isinstance(value, bool):
                if not _can_travel(value):
                    raise NotFinite(f"{place}must fit into 64 bits")
                return value
        case "boolean":
            if isinstance(value, bool):
                return value
        case _:
            return _read_text(value, schema, place)
    raise BrokenSchema(f"{place}must be of type {schema['type']}")


def _read_object(
    value: dict[str, Any], schema: dict[str, Any], path: str, place: str
) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    for name in required:
        if name not in value:
            raise BrokenSchema(f"{place}must have the member {name}")
    others = schema.get("additionalProperties", {} if not properties else None)
    read: dict[str, Any] = {}
    for name, item in value.items():
        inner = properties.get(name, others)
        if inner is None:
            raise BrokenSchema(f"{place}has a member that the signature does not name")
        is_known = name in properties
        if item is None and is_known and name not in required:
            read[name] = None
            continue
        read[name] = read_value(item, inner, f"{path}/{name if is_known else '*'}")
    return read


def _read_text(value: Any, schema: dict[str, Any], place: str) -> str:
    if not isinstance(value, str):
        raise BrokenSchema(f"{place}must be of type string")
    try:
        if schema.get("contentEncoding") == "base64":
            binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
        elif schema.get("format") == "date-time":
            datetime.fromisoformat(value)
    except ValueError:
        kind = "bytes as base64" if "contentEncoding" in schema else "a date and time"
        raise BrokenSchema(f"{place}must be {kind}") from None
    return value


def _require_plain(value: Any, path: str, place: str) -> None:
    """Refuse numbers that cannot be sent in a value whose schema allows any type."""
    if isinstance(value, list | tuple):
        items: Any = value
    elif isinstance(value, dict):
        items = value.values()
    elif isinstance(value, int | float) and not _can_travel(value):
        raise NotFinite(f"{place}must be finite")
    else:
        return
    for item in items:
        read_value(item, {}, f"{path}/*")


def _can_travel(value: float) -> bool:
    """Return whether MessagePack, which carries values to engines, has the number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return -(2**63) <= value < 2**64
