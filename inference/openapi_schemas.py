"""JSON Schemas of one model's requests and answers, from its signature. Pure."""

from typing import Any

from inference.engine.signature import Column, Layout, Signature, Task

JsonSchema = dict[str, Any]

_INTEGER_BITS = {
    "int8": 8,
    "int16": 16,
    "int32": 32,
    "int64": 64,
    "uint8": 8,
    "uint16": 16,
    "uint32": 32,
    "uint64": 64,
}
_TABULAR = (Layout.MATRIX, Layout.TABLE)


def is_tabular(signature: Signature) -> bool:
    """Tell whether instances are objects with named columns."""
    return signature.layout in _TABULAR


def instance_schema(signature: Signature) -> JsonSchema:
    """Describe one item of `instances`."""
    if not is_tabular(signature):
        return _nested_arrays(signature.dtype, signature.shape)
    return {
        "type": "object",
        "properties": {column.name: _column(column) for column in signature.columns},
        "required": [column.name for column in signature.columns if column.required],
        "additionalProperties": False,
    }


def _column(column: Column) -> JsonSchema:
    schema = _scalar(column.dtype)
    if column.minimum is not None:
        schema["minimum"] = _number(column.minimum)
    if column.maximum is not None:
        schema["maximum"] = _number(column.maximum)
    if column.enum is not None:
        schema["enum"] = list(column.enum)
    if column.max_length is not None:
        schema["maxLength"] = column.max_length
    return schema


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def _scalar(dtype: str) -> JsonSchema:
    if dtype == "str":
        return {"type": "string"}
    if dtype == "bool":
        return {"type": "boolean"}
    if dtype in _INTEGER_BITS:
        return _integer(dtype)
    return {"type": "number"}


def _integer(dtype: str) -> JsonSchema:
    bits = _INTEGER_BITS[dtype]
    if dtype.startswith("u"):
        return {"type": "integer", "minimum": 0, "maximum": 2**bits - 1}
    return {
        "type": "integer",
        "minimum": -(2 ** (bits - 1)),
        "maximum": 2 ** (bits - 1) - 1,
    }


def _nested_arrays(dtype: str, shape: tuple[int, ...]) -> JsonSchema:
    schema = _scalar(dtype)
    for size in reversed(shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
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
    # Scores of a model whose output is not finite are null (see `warnings`).
    score: JsonSchema = {"type": ["number", "null"]}
    return {
        "type": "object",
        "required": ["label", "score", "low_confidence"],
        "properties": {
            "label": label,
            "score": {**score, "description": "Score of the label."},
            "low_confidence": {
                "type": "boolean",
                "description": "The score is below the model's own threshold.",
            },
            "scores": {
                "type": "array",
                "description": "With `options.top_k`: the best labels, best first.",
                "items": {
                    "type": "object",
                    "required": ["label", "score"],
                    "properties": {"label": label, "score": score},
                },
            },
        },
    }


def example_prediction(signature: Signature) -> Any:
    """Make up a prediction of the right form, for the docs only."""
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


def explanation_schema(signature: Signature) -> JsonSchema:
    """Describe the SHAP values of one instance."""
    return {
        "type": "object",
        "required": [
            "method",
            "level",
            "base_value",
            "target",
            "samples",
            "features",
            "additivity_residual",
        ],
        "properties": {
            "method": {"type": "string", "examples": ["gradient"]},
            "level": {"type": "string", "enum": ["simple", "full"]},
            "base_value": {
                "type": "number",
                "description": "The model's mean output over its background sample.",
            },
            "target": {
                "type": ["string", "integer", "null"],
                "description": "The class that is explained.",
            },
            "samples": {"type": "integer", "minimum": 0},
            "features": {
                "type": "array",
                "description": "Largest attribution first; five at level `simple`.",
                "items": {
                    "type": "object",
                    "required": ["feature", "value", "attribution"],
                    "properties": {
                        "feature": {
                            "type": "string",
                            "enum": [column.name for column in signature.columns],
                        },
                        "value": {"type": ["number", "string", "boolean", "null"]},
                        "attribution": {"type": "number"},
                    },
                },
            },
            "additivity_residual": {
                "type": "number",
                "description": "Model output minus base value and attributions.",
            },
        },
    }
