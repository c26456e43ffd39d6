"""Check a version's own metadata, logged as `metadata={"modelyard": …}`."""

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from registry.mlflow.types import Json
from registry.rules import column_rules
from registry.rules.column_rules import InputColumn

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
        # How batches form, within the bounds of the engine that serves the version.
        "batching": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "max_wait_ms": {"type": "number", "minimum": 0, "maximum": 1000},
                "max_batch_rows": {"type": "integer", "minimum": 1},
                "max_batch_bytes": {"type": "integer", "minimum": 1},
                # false: each request is a batch of its own.
                "join": {"type": "boolean"},
            },
        },
        # How the version's process is run and held within bounds.
        "process": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "isolation": {
                    "type": "string",
                    "pattern": "^(own|shared|group [A-Za-z0-9][A-Za-z0-9_-]{0,31})$",
                },
                "replicas": {"type": "integer", "minimum": 1, "maximum": 64},
                "max_run_s": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "maximum": 86_400,
                },
                "memory_mb": {"type": "integer", "minimum": 1},
                "recycle_after_calls": {"type": "integer", "minimum": 1},
                "recycle_after_mb": {"type": "integer", "minimum": 1},
                "repeatable": {"type": "boolean"},
                "network": {"type": "boolean"},
                "log_values": {"type": "boolean"},
            },
        },
        # Path of the outputs for the input example, computed when it was logged.
        "example_outputs": {"type": "string", "minLength": 1},
        "example_tolerance": {"type": "number", "exclusiveMinimum": 0},
        # How images become the input tensor.
        "image": {
            "type": "object",
            "additionalProperties": False,
            "required": ["mode"],
            "properties": {
                "mode": {"enum": ["RGB", "L"]},
                "height": {"type": "integer", "minimum": 1, "maximum": 8192},
                "width": {"type": "integer", "minimum": 1, "maximum": 8192},
                "channels_first": {"type": "boolean"},
            },
        },
        # false: the same input may get another answer, so answers are never cached.
        "deterministic": {"type": "boolean"},
        # Scale the vectors of an embedding to length 1.
        "normalize": {"type": "boolean"},
        "precision": {"enum": ["float32", "bfloat16", "auto"]},
        # How rows of varying length are padded, so that they can share a batch.
        "padding": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "value": {"type": "number"},
                "buckets": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
                    "minItems": 1,
                    "maxItems": 32,
                    "uniqueItems": True,
                },
                "mask_input": {"type": "string", "minLength": 1},
            },
        },
    },
}
_RULES = SCHEMA["properties"]["rules"]
_BATCHING = SCHEMA["properties"]["batching"]
_PROCESS = SCHEMA["properties"]["process"]
_MAX_SENTENCES = 20


def check(metadata: Json, signature: Json) -> list[str]:
    """Return one sentence for each problem, also between metadata and signature."""
    problems = _violations(SCHEMA, metadata)
    if problems:
        return problems
    return [
        *_check_columns(metadata, signature),
        *column_rules.problems_of(
            metadata.get("rules", {}), column_rules.columns_of(metadata, signature)
        ),
        *_check_labels(metadata, signature),
        *_check_image(metadata, signature),
        *_check_normalize(metadata),
        *_check_padding(metadata, signature),
        *_check_path(metadata, "background"),
        *_check_path(metadata, "example_outputs"),
    ]


def check_rules(rules: Json, *, columns: list[InputColumn]) -> list[str]:
    """Return what is wrong with a route's rules, which override the model's own."""
    return _violations(_RULES, rules, called="Rules") or column_rules.problems_of_route(
        rules, columns
    )


def check_batching(batching: Json) -> list[str]:
    """Return what is wrong with a route's batching, which overrides the model's own."""
    return _violations(_BATCHING, batching, called="Batching")


def check_process(rules: Json) -> list[str]:
    """Return what is wrong with a model's rules for processes, set in the admin."""
    return _violations(_PROCESS, rules, called="Process")


def _violations(
    schema: dict[str, Any], document: Json, *, called: str = "The metadata"
) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(document)
    ordered = sorted(found, key=lambda error: [str(part) for part in error.path])
    return [_sentence(error, called) for error in ordered[:_MAX_SENTENCES]]


def _sentence(error: ValidationError, called: str) -> str:
    where = ".".join(str(part) for part in error.path) or called
    # jsonschema quotes whole documents.
    message = error.message if len(error.message) < 200 else f"{error.message[:200]}…"
    return f"{where}: {message}."


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


def _check_labels(metadata: Json, signature: Json) -> list[str]:
    """Compare the labels with the last axis of a single output tensor.

    An axis of size 1 is a binary classifier's single score and fits two labels.
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


def _check_image(metadata: Json, signature: Json) -> list[str]:
    """Compare the image's sizes with those of the only input tensor."""
    image, inputs = metadata.get("image"), signature.get("inputs") or []
    if image is None or not inputs:
        return []
    shape = inputs[0].get("tensor-spec", {}).get("shape", [])[1:]
    if len(inputs) != 1 or len(shape) not in (2, 3):
        return ["image: pictures need one input tensor of two or three sizes per row."]
    channels = 3 if image["mode"] == "RGB" else 1
    if len(shape) == 2 and channels == 1:
        sizes = shape
    elif len(shape) == 3:
        first = image.get("channels_first", shape[0] == channels)
        depth, sizes = (shape[0], shape[1:]) if first else (shape[2], shape[:2])
        if depth not in (channels, -1):
            return [
                f"image: mode {image['mode']} has {channels} channels, the signature's "
                f"rows have shape {shape}."
            ]
    else:
        return [f"image: mode {image['mode']} needs an axis for its channels."]
    return _check_sizes(image, sizes)


def _check_padding(metadata: Json, signature: Json) -> list[str]:
    """Check that an input has a varying length and that the mask input exists."""
    padding, inputs = metadata.get("padding"), signature.get("inputs") or []
    if padding is None or not inputs:
        return []
    shapes = [spec.get("tensor-spec", {}).get("shape", [])[1:] for spec in inputs]
    if not any(-1 in shape for shape in shapes):
        return ["padding: no input tensor has a size of -1 per row."]
    names = [spec.get("name") for spec in inputs]
    mask = padding.get("mask_input")
    if mask is not None and mask not in names:
        return [f"padding.mask_input: the model has no input {mask!r}."]
    return []


def _check_sizes(image: Json, sizes: list[Any]) -> list[str]:
    problems = []
    for name, size in zip(("height", "width"), sizes, strict=True):
        if size == -1 and name not in image:
            problems.append(f"image.{name}: is needed; the signature leaves it open.")
        elif size != -1 and image.get(name, size) != size:
            problems.append(f"image.{name}: the signature's rows have {size}.")
    return problems


def _check_normalize(metadata: Json) -> list[str]:
    if metadata.get("normalize") and metadata.get("task") != "embedding":
        return ["normalize: is for models of the task embedding."]
    return []


def _check_path(metadata: Json, member: str) -> list[str]:
    path = metadata.get(member, "")
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
        return [f"{member}: must be a path inside the artifact."]
    return []
