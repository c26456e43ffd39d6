"""Name an uploaded file in a request (`upload://…`), and the types it may have."""

import re
from typing import Any

import msgspec

from inference.codecs import media
from inference.errors.api_error import ApiError, ErrorCode


class AskedFile(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a prediction whose instances are in an uploaded file."""

    input_uri: str
    options: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    model: str | None = None


class UploadedFile(msgspec.Struct, frozen=True):
    content: bytes
    # Without parameters.
    content_type: str


_ID = re.compile(r"upl_[0-9a-f]{32}")
_URI = re.compile(rf"upload://({_ID.pattern})")
NPY = "application/x-npy"
CSV_TYPES = frozenset({"text/csv", "application/csv"})
LINES_TYPES = frozenset({"application/jsonl", "application/x-ndjson"})
CONTENT_TYPES = CSV_TYPES | LINES_TYPES | media.IMAGE_TYPES | {"application/json", NPY}


def is_id(text: str) -> bool:
    """Return whether `text` has the form of an upload's id."""
    return _ID.fullmatch(text) is not None


def write(upload_id: str) -> str:
    return f"upload://{upload_id}"


def read(uri: object) -> str:
    """Return the upload's id; raise ApiError for anything but such a URI."""
    found = _URI.fullmatch(uri) if isinstance(uri, str) else None
    if found is None:
        message = "`input_uri` must be one that POST /api/v1/uploads returned."
        raise ApiError(ErrorCode.INVALID_INPUT, message)
    return found[1]


def known_type(content_type: str) -> str:
    """Return the media type without parameters; raise ApiError for unknown types."""
    kind = media.media_type(content_type.encode("latin-1", "replace"))
    if kind not in CONTENT_TYPES:
        names = ", ".join(sorted(CONTENT_TYPES))
        message = f"Files may be of these types: {names}."
        raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    return kind


def not_found() -> ApiError:
    """Return the same error for an unknown upload and for another customer's."""
    return ApiError(ErrorCode.NOT_FOUND, "There is no such upload.")


def gone() -> ApiError:
    return ApiError(ErrorCode.GONE, "The upload has expired. Upload the file again.")


def not_sent() -> ApiError:
    message = "The file has not been uploaded yet. PUT it to its `upload_url` first."
    return ApiError(ErrorCode.CONFLICT, message)


def too_large(max_bytes: int) -> ApiError:
    return ApiError(
        ErrorCode.TOO_LARGE,
        f"The uploaded file is larger than the {max_bytes} bytes that a prediction "
        "reads. Submit a job.",
        facts={"limit": "max_input_file_bytes", "maximum": max_bytes},
    )
