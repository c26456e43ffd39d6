"""Describe the request bodies of one model, in each media type. Without I/O."""

from typing import Any

from inference.api.openapi import schemas
from inference.api.openapi.shared_schemas import reference
from inference.engine.signatures.signature import Layout, Param, Signature

JsonObject = dict[str, Any]


def request_content(
    signature: Signature, *, kind: str, schema: JsonObject, example: JsonObject | None
) -> JsonObject:
    """Describe the body by media type; `schema` describes its JSON."""
    as_json: JsonObject = {
        "schema": {"oneOf": [schema, reference(f"{kind}UploadedRequest")]}
    }
    if example is not None:
        as_json["examples"] = example
    content = {"application/json": as_json}
    if signature.image is not None:
        content["multipart/form-data"] = _form(signature, kind)
        if kind != "PredictBatch":
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


def parameters_schema(params: tuple[Param, ...]) -> JsonObject:
    """Describe the model's parameters, which callers may set beside the instances."""
    return {
        "type": "object",
        "properties": {param.name: _param(param) for param in params},
        "additionalProperties": False,
    }


def _form(signature: Signature, kind: str) -> JsonObject:
    properties: JsonObject = {
        "image": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "PNG or JPEG files, one instance each. Their parts may have "
            "any name; problems name the part.",
        },
        "options": reference(f"{kind}Options"),
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
    if param.default is not None:
        schema["default"] = param.default
    return {**schema, "description": f"A parameter of the model ({param.dtype})."}
