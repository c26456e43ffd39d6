"""What one model's operations take, in every form that it may be sent in. Pure."""

from typing import Any

from inference.engine.signature import Layout, Param, Signature
from inference.openapi import schemas

JsonObject = dict[str, Any]


def request_content(
    signature: Signature,
    *,
    kind: str,
    schema: JsonObject,
    instances: list[Any],
    logged: bool,
) -> JsonObject:
    """Describe the body by media type; `schema` is that of its JSON."""
    as_json: JsonObject = {"schema": schema}
    if instances:
        summary = "Rows logged with the model" if logged else "A made-up request"
        example = {"summary": summary, "value": {"instances": instances}}
        as_json["examples"] = {"logged" if logged else "made_up": example}
    content = {"application/json": as_json}
    if signature.image is not None:
        content["multipart/form-data"] = _form(signature, kind)
        if kind != "Batch":
            for media_type in ("image/png", "image/jpeg"):
                content[media_type] = {"schema": {"type": "string", "format": "binary"}}
    elif _takes_text(signature):
        content["text/plain"] = {
            "schema": {
                "type": "string",
                "description": "The text of the only instance.",
            }
        }
    return content


def request_schema(
    signature: Signature, *, kind: str, instance: JsonObject
) -> JsonObject:
    """Describe the JSON body of one operation."""
    properties: JsonObject = {
        "instances": {"type": "array", "items": instance, "minItems": 1},
        "options": options_schema(kind, signature),
    }
    if signature.params:
        properties["parameters"] = parameters_schema(signature.params)
    return {"type": "object", "required": ["instances"], "properties": properties}


def parameters_schema(params: tuple[Param, ...]) -> JsonObject:
    """Describe what a caller may set beside the instances."""
    return {
        "type": "object",
        "properties": {param.name: _param(param) for param in params},
        "additionalProperties": False,
    }


def options_schema(kind: str, signature: Signature) -> JsonObject:
    """Describe the options that mean something here."""
    names = ["timeout_ms"]
    if signature.labels:
        names.append("top_k")
    if kind == "Batch":
        names += ["batch_size", "return_errors"]
    if kind == "Explain":
        names += ["level", "method", "samples", "target", "seed"]
    if kind == "Embed":
        names += ["normalize", "encoding_format"]
    return {
        "type": "object",
        "properties": {name: _OPTIONS[name] for name in names},
    }


def _form(signature: Signature, kind: str) -> JsonObject:
    properties: JsonObject = {
        "image": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "PNG or JPEG files, one instance each. Their parts may have "
            "any name; problems are told by it.",
        },
        "options": options_schema(kind, signature),
    }
    if signature.params:
        properties["parameters"] = parameters_schema(signature.params)
    return {
        "schema": {
            "type": "object",
            "required": ["image"],
            "properties": properties,
        },
        "encoding": {"image": {"contentType": "image/png, image/jpeg"}},
    }


def _takes_text(signature: Signature) -> bool:
    return signature.layout is Layout.TABLE and [
        column.dtype for column in signature.columns
    ] == ["str"]


def _param(param: Param) -> JsonObject:
    schema = schemas.scalar_schema(param.dtype, param.json_schema)
    if param.shape is not None:
        schema = {"type": "array", "items": schema}
    return schema if param.default is None else {**schema, "default": param.default}


# As `inference.options` reads them.
_OPTIONS: dict[str, Any] = {
    "timeout_ms": {
        "type": "integer",
        "minimum": 1,
        "maximum": 3_600_000,
        "description": "Shortens the deadline.",
    },
    "top_k": {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "description": "Also give the scores of that many best labels.",
    },
    "batch_size": {
        "type": "integer",
        "minimum": 1,
        "maximum": 100_000,
        "description": "Rows per forward pass at most.",
    },
    "return_errors": {
        "type": "string",
        "enum": ["fail", "individual"],
        "default": "fail",
        "description": "What one bad row does: refuse all, or only itself.",
    },
    "level": {
        "type": "string",
        "enum": ["simple", "full"],
        "description": "`simple`: the five largest attributions. `full`: all.",
    },
    "method": {
        "type": "string",
        "pattern": "^[a-z_]+$",
        "maxLength": 40,
        "default": "auto",
    },
    "samples": {
        "type": "integer",
        "minimum": 1,
        "maximum": 1_000_000,
        "description": "Forward passes per instance at most.",
    },
    "target": {
        "type": ["string", "integer"],
        "description": "Label or index of the class; else the predicted one.",
    },
    "normalize": {
        "type": "boolean",
        "default": False,
        "description": "Scale each vector to length 1.",
    },
    "encoding_format": {
        "type": "string",
        "enum": ["float", "base64"],
        "default": "float",
        "description": "`base64`: float32 numbers in little endian.",
    },
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 0},
}
