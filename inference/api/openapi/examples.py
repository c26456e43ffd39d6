"""Make example requests that work, for the docs. Without I/O."""

import base64
import struct
import zlib
from typing import Any

import msgspec

from inference.codecs.decoding import InstanceDecoder
from inference.codecs.rows.types import bounds, choices, text_limit
from inference.engine.signatures.signature import Column, Layout, Signature, TensorInput
from inference.engine.wire.dtypes import BYTES, DATETIME, JSON, TEXT
from inference.errors.api_error import ApiError

# Instances of the logged example that the docs show: enough to show that it is a list.
_ROWS = 2
# Values of a made-up tensor; larger ones teach a reader nothing.
_MAX_VALUES = 64
# The size of dimensions that vary.
_LENGTH = 3


def working_instances(signature: Signature, logged: Any) -> tuple[list[Any], bool]:
    """Return instances that the model accepts, and whether they were logged with it.

    The list is empty if no instances work.
    """
    if signature.image is not None:
        return [{"b64": pixel_png()}], False
    rows = logged if isinstance(logged, list) else [logged]
    instances: list[Any] = rows[:_ROWS]
    if _works(signature, instances):
        return instances, True
    # The logged example has another form than requests, or a later rule refuses it.
    made_up = [_instance(signature)]
    return (made_up if _works(signature, made_up) else []), False


def pixel_png() -> str:
    """Return a PNG of one grey pixel, as base64."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(b"\0\x80"), b"IEND")
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    return base64.b64encode(file).decode()


def _works(signature: Signature, instances: list[Any]) -> bool:
    try:
        body = msgspec.json.encode({"instances": instances})
        InstanceDecoder(signature).decode_request(body)
    except (ApiError, TypeError, ValueError):
        return False
    return True


def _instance(signature: Signature) -> Any:
    if signature.layout is Layout.TENSOR:
        return _nested(TensorInput("", signature.dtype, signature.shape))
    if signature.layout is Layout.TENSORS:
        return {given.name: _nested(given) for given in signature.inputs}
    return {column.name: _value(column) for column in signature.columns}


def _nested(given: TensorInput) -> Any:
    value = _value(Column("", given.dtype))
    count = 1
    for size in reversed(given.shape):
        length = _LENGTH if size < 0 else size
        count *= length
        if count > _MAX_VALUES:
            return None
        value = [value] * length
    return value


def _value(column: Column) -> Any:
    if choices(column):
        return choices(column)[0]
    match column.dtype:
        case "bool":
            return True
        case x if x == TEXT:
            return "text"[: text_limit(column)]
        case x if x == BYTES:
            return "aGk="
        case x if x == DATETIME:
            return "2026-11-20T10:30:00Z"
        case x if x == JSON:
            return _json(column.json_schema or {})
    low, high = bounds(column)
    value: float = 1
    if low is not None and value < low:
        value = low
    if high is not None and value > high:
        value = high
    return value


def _json(schema: dict[str, Any]) -> Any:
    match schema.get("type"):
        case "array":
            return [_json(schema.get("items", {}))]
        case "object":
            properties = schema.get("properties", {})
            return {name: _json(inner) for name, inner in properties.items()}
        case "number" | "integer":
            return 1
        case "boolean":
            return True
        case "string" if "contentEncoding" in schema:
            return "aGk="
        case "string" if "format" in schema:
            return "2026-11-20T10:30:00Z"
    return "text"
