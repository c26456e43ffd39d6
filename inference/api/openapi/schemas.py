"""Build JSON Schemas of one model's rows and predictions. Without I/O."""

from datetime import datetime
from typing import Any

from inference.codecs.rows import types
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.signature import (
    Column,
    Layout,
    Signature,
    Task,
    TensorInput,
)

JsonSchema = dict[str, Any]

_TABULAR = (Layout.MATRIX, Layout.TABLE)


def is_tabular(signature: Signature) -> bool:
    """Return whether instances are objects with named columns."""
    return signature.layout in _TABULAR


def instance_schema(signature: Signature) -> JsonSchema:
    """Describe one item of `instances`."""
    if signature.layout is Layout.TENSORS:
        return _object(
            {
                given.name: _nested_arrays(given, signature.padding)
                | {"description": f"A tensor of {given.dtype}."}
                for given in signature.inputs
            },
            required=[given.name for given in signature.inputs],
        )
    if is_tabular(signature):
        columns = signature.columns
        return _object(
            {
                column.name: _column(column) | _place(column, number)
                for number, column in enumerate(columns, start=1)
            },
            required=[column.name for column in columns if column.required],
        )
    only = TensorInput("", signature.dtype, signature.shape)
    nested = _nested_arrays(only, signature.padding)
    return nested if signature.image is None else {"anyOf": [*_IMAGES, nested]}


_IMAGES: list[JsonSchema] = [
    {
        "type": "object",
        "description": "A PNG or JPEG file.",
        "properties": {
            "b64": {
                "type": "string",
                "contentEncoding": "base64",
                "description": "The file's bytes as base64.",
            }
        },
        "required": ["b64"],
        "additionalProperties": False,
    },
    {
        "type": "string",
        "description": "The same as base64 alone, or as a `data:` URL.",
    },
]


def _object(properties: JsonSchema, *, required: list[str]) -> JsonSchema:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _place(column: Column, number: int) -> JsonSchema:
    """Describe the column's position in instances that are arrays, and its type."""
    text = f"Column {number}: {column.dtype}"
    return {"description": f"{text}." if column.required else f"{text}, optional."}


def _column(column: Column) -> JsonSchema:
    """Describe a value as `inference.codecs.rows.types` reads it."""
    schema = scalar_schema(column.dtype, column.json_schema)
    kind = types.KINDS[column.dtype].python
    choices = types.choices(column)
    if not column.required:
        if "type" not in schema:
            return schema
        if kind is object:
            return {"anyOf": [schema, {"type": "null"}]}
        schema["type"] = [schema["type"], "null"]
    if choices:
        schema["enum"] = [*choices] if column.required else [*choices, None]
    elif kind is str:
        schema["maxLength"] = types.text_limit(column)
    elif kind is int:
        schema["minimum"], schema["maximum"] = types.bounds(column)
    elif kind is float:
        # Not the range of the dtype, which would tell a reader nothing.
        if column.minimum is not None:
            schema["minimum"] = _number(column.minimum)
        if column.maximum is not None:
            schema["maximum"] = _number(column.maximum)
    return schema


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


_JSON_TYPES: dict[type, JsonSchema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    datetime: {"type": "string", "format": "date-time"},
}


def scalar_schema(dtype: str, json_schema: JsonSchema | None = None) -> JsonSchema:
    """Describe one value without its rules."""
    known = _JSON_TYPES.get(types.KINDS[dtype].python)
    return dict(json_schema or {}) if known is None else dict(known)


def _nested_arrays(given: TensorInput, padding: Padding | None) -> JsonSchema:
    schema = scalar_schema(given.dtype)
    kind = types.KINDS[given.dtype]
    if kind.python is int:
        schema["minimum"], schema["maximum"] = kind.minimum, kind.maximum
    elif kind.python is str:
        schema["maxLength"] = types.MAX_TEXT_LENGTH
    for size in reversed(given.shape):
        schema = {"type": "array", "items": schema, "minItems": max(size, 1)}
        if size > 0:
            schema["maxItems"] = size
        elif padding is not None:
            schema["maxItems"] = padding.longest
    return schema


def prediction_schema(signature: Signature) -> JsonSchema:
    """Describe one item of `predictions`, by the model's task."""
    match signature.task:
        case Task.CLASSIFICATION:
            return _classification(signature.labels)
        case Task.REGRESSION:
            return {
                "type": ["number", "null"],
                "description": "`null` if the model's output was not finite.",
            }
        case Task.EMBEDDING:
            return {"type": "array", "items": {"type": ["number", "null"]}}
        case _:
            return {"description": "The model's own output."}


def _classification(labels: tuple[str, ...]) -> JsonSchema:
    label: JsonSchema = {"type": "string"}
    if labels:
        label["enum"] = list(labels)
    # Scores that are not finite are null (see `warnings`).
    score: JsonSchema = {"type": ["number", "null"]}
    return {
        "type": "object",
        "required": ["label", "score", "low_confidence"],
        "properties": {
            "label": label,
            "score": score,
            "low_confidence": {"type": "boolean"},
            "scores": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["label", "score"],
                    "properties": {"label": label, "score": score},
                },
            },
        },
    }


def example_prediction(signature: Signature) -> Any:
    """Return a made-up prediction of the right form, for the docs only."""
    match signature.task:
        case Task.CLASSIFICATION:
            label = signature.labels[0] if signature.labels else "a label"
            return {"label": label, "score": 0.98, "low_confidence": False}
        case Task.REGRESSION:
            return 152.3
        case Task.EMBEDDING:
            return [0.12, -0.07, 0.33]
        case _:
            return {}
