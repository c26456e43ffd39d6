"""Nested values of "json" columns against the schema of their column. Pure.

Signatures describe such columns with few words of JSON Schema (see
`inference/engine/mlflow_types.py`), so these few are all that is checked.
"""

import binascii
import math
from datetime import datetime
from typing import Any

# Deeper than any signature may nest, and than MessagePack is read.
_MAX_DEPTH = 32


def broken_schema(value: Any, schema: dict[str, Any], path: str = "") -> str:
    """Say where and how the value breaks the schema; "" if it does not."""
    if path.count("/") > _MAX_DEPTH:
        return "is nested too deeply"
    place = f"at {path}: " if path else ""
    match schema.get("type"):
        case "array":
            if not isinstance(value, list | tuple):
                return f"{place}must be an array"
            inner = schema.get("items", {})
            return _first(
                broken_schema(item, inner, f"{path}/{index}")
                for index, item in enumerate(value)
            )
        case "object":
            if not isinstance(value, dict):
                return f"{place}must be an object"
            return _broken_object(value, schema, path, place)
        case None:
            return _not_plain(value, path, place)
        case "number":
            ok = isinstance(value, int | float) and not isinstance(value, bool)
            if ok and not _can_travel(value):
                return f"{place}must be finite"
        case "integer":
            ok = isinstance(value, int) and not isinstance(value, bool)
            if ok and not _can_travel(value):
                return f"{place}must fit into 64 bits"
            ok = ok or (isinstance(value, float) and value.is_integer())
        case "boolean":
            ok = isinstance(value, bool)
        case _:
            return _broken_text(value, schema, place)
    return "" if ok else f"{place}must be of type {schema['type']}"


def _broken_object(
    value: dict[str, Any], schema: dict[str, Any], path: str, place: str
) -> str:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{place}must have the member {name}"
    others = schema.get("additionalProperties", {} if not properties else None)
    for name, item in value.items():
        inner = properties.get(name, others)
        if inner is None:
            return f"{place}has a member that the signature does not name"
        shown = name if name in properties else "*"
        if issue := broken_schema(item, inner, f"{path}/{shown}"):
            return issue
    return ""


def _broken_text(value: Any, schema: dict[str, Any], place: str) -> str:
    if not isinstance(value, str):
        return f"{place}must be of type string"
    try:
        if schema.get("contentEncoding") == "base64":
            binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
        elif schema.get("format") == "date-time":
            datetime.fromisoformat(value)
    except ValueError:
        kind = "bytes as base64" if "contentEncoding" in schema else "a date and time"
        return f"{place}must be {kind}"
    return ""


def _not_plain(value: Any, path: str, place: str) -> str:
    """Look through a value of any type for what no JSON can say."""
    if isinstance(value, list | tuple):
        items: Any = value
    elif isinstance(value, dict):
        items = value.values()
    elif isinstance(value, int | float) and not _can_travel(value):
        return f"{place}must be finite"
    else:
        return ""
    return _first(broken_schema(item, {}, f"{path}/*") for item in items)


def _can_travel(value: float) -> bool:
    """Tell whether MessagePack, which values go to engines in, has the number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return -(2**63) <= value < 2**64


def _first(issues: Any) -> str:
    return next((issue for issue in issues if issue), "")
