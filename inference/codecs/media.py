"""Read bodies that are not JSON: pictures, forms with pictures, and plain text."""

from functools import lru_cache
from typing import Any

from inference.codecs import multipart
from inference.codecs.images import EncodedImages, encoded
from inference.codecs.rows.values import readable_name
from inference.codecs.strict_json import parse_object
from inference.engine.signatures.signature import Signature
from inference.engine.wire.dtypes import TEXT
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import problem, refuse

IMAGE_TYPES = frozenset({"image/png", "image/jpeg"})
# Clients send image/jpg too, although it is not registered. Bodies may have it; uploads
# may not.
BODY_IMAGE_TYPES = IMAGE_TYPES | {"image/jpg"}
FORM_TYPE = "multipart/form-data"
TEXT_TYPE = "text/plain"
_MEMBERS = frozenset({"options", "parameters"})
# Media types that clients send for a file whose type they do not know.
_UNKNOWN_TYPES = frozenset({"", "application/octet-stream"})


def read_text_body(body: bytes, signature: Signature) -> str:
    """Return the body as the only value of a model with a single text column."""
    if [column.dtype for column in signature.columns] != [TEXT]:
        raise _unsupported("This model does not take plain text. Send JSON.")
    try:
        return body.decode()
    except UnicodeDecodeError:
        message = "The text is not valid UTF-8."
        raise ApiError(ErrorCode.INVALID_INPUT, message) from None


def read_image_body(body: bytes, signature: Signature) -> EncodedImages:
    require_images(signature)
    return encoded(signature, [body], [None])


def read_form(
    body: bytes, content_type: bytes, signature: Signature
) -> tuple[list[bytes | str], list[str | None], dict[str, Any]]:
    """Return the files of a form, their names, and `options` and `parameters`."""
    require_images(signature)
    files: list[bytes | str] = []
    fields: list[str | None] = []
    members: dict[str, Any] = {}
    problems: list[Problem] = []
    for part in multipart.parse(body, content_type):
        name = readable_name(part.name)
        if part.name in _MEMBERS and not part.is_file:
            if part.name in members:
                problems.append(problem(name, "is sent twice"))
            members[part.name] = parse_object(part.content)
        elif not part.is_file and part.media_type not in BODY_IMAGE_TYPES:
            problems.append(problem(name, "must be a file, or options or parameters"))
        elif part.media_type not in BODY_IMAGE_TYPES | _UNKNOWN_TYPES:
            problems.append(problem(name, "must be a PNG or JPEG image"))
        else:
            files.append(part.content)
            fields.append(name)
    if not files and not problems:
        problems.append(problem("instances", "must hold at least one image"))
    if problems:
        refuse(problems)
    return files, fields, members


def image_rows(rows: list[Any]) -> list[bytes | str] | None:
    """Return instances that are pictures in base64; None if they are anything else."""
    texts: list[bytes | str] = []
    for row in rows:
        if isinstance(row, dict) and row.keys() == {"b64"}:
            row = row["b64"]
        if not isinstance(row, str):
            return None
        texts.append(row)
    return texts


def require_images(signature: Signature) -> None:
    if signature.image is None:
        raise _unsupported("This model does not take images. Send JSON.")


def _unsupported(message: str) -> ApiError:
    return ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)


@lru_cache(maxsize=256)
def media_type(content_type: bytes) -> str:
    """Return the media type of a Content-Type: in lower case, without parameters."""
    return content_type.decode("latin-1").partition(";")[0].strip().lower()
