"""Translate MLflow's types of columns and parameters to dtypes and JSON Schema."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from inference.engine.signatures.signature import Column, UnsupportedSignature
from inference.engine.wire.dtypes import BYTES, DATETIME, TEXT


class Scalar(NamedTuple):
    # Dtype of the tensor that carries the column.
    dtype: str
    json_schema: dict[str, Any]


SCALARS = {
    "double": Scalar("float64", {"type": "number"}),
    "float": Scalar("float32", {"type": "number"}),
    "long": Scalar("int64", {"type": "integer"}),
    "integer": Scalar("int32", {"type": "integer"}),
    "boolean": Scalar("bool", {"type": "boolean"}),
    "string": Scalar(TEXT, {"type": "string"}),
    "binary": Scalar(BYTES, {"type": "string", "contentEncoding": "base64"}),
    "datetime": Scalar(DATETIME, {"type": "string", "format": "date-time"}),
}
# Nested types, which travel as JSON values.
JSON_TYPES = frozenset({"array", "object", "map", "any"})
_MAX_DEPTH = 16


def json_schema(spec: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return a type's JSON Schema; raise UnsupportedSignature for an unknown type.

    Sparse vectors, and types that a later MLflow adds, count as unknown.
    """
    if depth > _MAX_DEPTH:
        raise UnsupportedSignature("A column's type is nested too deeply.")
    kind = spec.get("type", "")
    if kind in SCALARS:
        return dict(SCALARS[kind].json_schema)
    if kind == "any":
        return {}
    if kind == "array":
        return {"type": "array", "items": json_schema(spec["items"], depth + 1)}
    if kind == "map":
        values = json_schema(spec["values"], depth + 1)
        return {"type": "object", "additionalProperties": values}
    if kind == "object":
        properties = spec.get("properties", {})
        return {
            "type": "object",
            "properties": {
                name: json_schema(inner, depth + 1)
                for name, inner in properties.items()
            },
            "required": [
                name
                for name, inner in properties.items()
                if inner.get("required", True)
            ],
        }
    raise UnsupportedSignature(f"Values of type {kind!r} cannot be served.")


def is_one_row(columns: Iterable[Column]) -> bool:
    """Return whether an object holds one row, rather than a list for each column.

    MLflow reads it as one row if a column holds arrays or objects, because then a
    list may be a single value (`mlflow.models.utils._enforce_schema`).
    """
    schemas = [column.json_schema or {} for column in columns]
    return any("items" in schema or "properties" in schema for schema in schemas)
