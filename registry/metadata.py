"""Checking what a version says about itself under `metadata={"modelyard": …}`. Pure."""

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from registry.mlflow_types import Json

TASKS = ("classification", "regression", "embedding", "text", "image", "custom")
_LABEL = {"type": ["string", "integer", "number", "boolean"]}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "modelyard metadata of a model version",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "task": {"enum": list(TASKS)},
        "columns": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "uniqueItems": True,
        },
        "labels": {
            "type": "array",
            "items": _LABEL,
            "minItems": 1,
            "uniqueItems": True,
        },
        "decision_threshold": {"type": "number", "minimum": 0, "maximum": 1},
        "low_confidence_below": {"type": "number", "minimum": 0, "maximum": 1},
        "rules": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "min": {"type": "number"},
                    "max": {"type": "number"},
                    "enum": {
                        "type": "array",
                        "items": {"type": ["string", "number"]},
                        "minItems": 1,
                    },
                    "max_length": {"type": "integer", "minimum": 1},
                    "optional": {"type": "boolean"},
                },
            },
        },
        "background": {"type": "string", "minLength": 1},
        # What the version answered to its input example when it was logged.
        "example_outputs": {"type": "string", "minLength": 1},
        "example_tolerance": {"type": "number", "exclusiveMinimum": 0},
    },
}
_RULES = SCHEMA["properties"]["rules"]
_MAX_SENTENCES = 20


def check(metadata: Json, signature: Json) -> list[str]:
    """Say in sentences what is wrong, also between metadata and signature."""
    problems = _violations(SCHEMA, metadata)
    if problems:
        return problems
    return [
        *_check_columns(metadata, signature),
        *_check_rules(metadata.get("rules", {}), column_names(metadata, signature)),
        *_check_labels(metadata, signature),
        *_check_path(metadata, "background"),
        *_check_path(metadata, "example_outputs"),
    ]


def check_rules(rules: Json, *, columns: list[str]) -> list[str]:
    """Say what is wrong with the rules that a route sets over the model's own."""
    return _violations(_RULES, rules) or _check_rules(rules, columns)


def _violations(schema: dict[str, Any], document: Json) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(document)
    ordered = sorted(found, key=lambda error: [str(part) for part in error.path])
    return [_sentence(error) for error in ordered[:_MAX_SENTENCES]]


def _sentence(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.path) or "The metadata"
    # Long documents are quoted whole by jsonschema.
    message = error.message if len(error.message) < 200 else f"{error.message[:200]}…"
    return f"{where}: {message}."


def column_names(metadata: Json, signature: Json) -> list[str]:
    """Name the columns as requests do; empty for unnamed tensors."""
    inputs = signature.get("inputs") or []
    if inputs and inputs[0].get("type") != "tensor":
        return [spec.get("name") or "input" for spec in inputs]
    return list(metadata.get("columns", []))


def _check_columns(metadata: Json, signature: Json) -> list[str]:
    inputs = signature.get("inputs") or []
    columns = metadata.get("columns")
    if not columns or len(inputs) != 1 or inputs[0].get("type") != "tensor":
        return []
    width = inputs[0].get("tensor-spec", {}).get("shape", [])[1:]
    if width == [len(columns)]:
        return []
    return [
        f"columns: {len(columns)} names, but the signature's rows have shape {width}."
    ]


def _check_rules(rules: Json, columns: list[str]) -> list[str]:
    problems = [
        f"rules: the model has no column {name!r}."
        for name in rules
        if name not in columns
    ]
    problems += [
        f"rules.{name}: min is greater than max."
        for name, rule in rules.items()
        if rule.get("min", float("-inf")) > rule.get("max", float("inf"))
    ]
    return problems


def _check_labels(metadata: Json, signature: Json) -> list[str]:
    """Compare the labels with the last axis of a single output tensor.

    An axis of 1 is a binary classifier's single score, which goes with two labels.
    """
    outputs = signature.get("outputs") or []
    labels = metadata.get("labels")
    if not labels or len(outputs) != 1 or outputs[0].get("type") != "tensor":
        return []
    shape = outputs[0].get("tensor-spec", {}).get("shape", [])
    if len(shape) < 2 or shape[-1] in (-1, len(labels)):
        return []
    if shape[-1] == 1 and len(labels) == 2:
        return []
    return [f"labels: {len(labels)} of them, but the model has {shape[-1]} outputs."]


def _check_path(metadata: Json, member: str) -> list[str]:
    path = metadata.get(member, "")
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
        return [f"{member}: must be a path inside the artifact."]
    return []
