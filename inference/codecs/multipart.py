"""Split a `multipart/form-data` body (RFC 7578) into its parts."""

import re

import msgspec

from inference.errors.api_error import ApiError, ErrorCode

MAX_PARTS = 2_000
_MAX_HEADER_BYTES = 8 * 1024
_BOUNDARY = re.compile(r';\s*boundary="?([^";]{1,70})"?', re.IGNORECASE)
# Browsers and client libraries put names in quotes, and may escape quotes inside.
_NAME = re.compile(rb'[;\s]name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)


class Part(msgspec.Struct, frozen=True):
    name: str
    is_file: bool
    # In lower case, without parameters; "" if the part has no Content-Type.
    media_type: str
    content: bytes


def parse(body: bytes, content_type: bytes) -> list[Part]:
    """Split a body; raise ApiError INVALID_HEADER, INVALID_INPUT or TOO_LARGE."""
    found = _BOUNDARY.search(content_type.decode("latin-1"))
    if found is None:
        raise ApiError(ErrorCode.INVALID_HEADER, "The multipart body has no boundary.")
    delimiter = b"\r\n--" + found[1].encode("latin-1")
    # The first delimiter is at the very beginning, or after a preamble.
    if body.startswith(delimiter[2:]):
        position = len(delimiter) - 2
    else:
        position = body.find(delimiter) + len(delimiter)
        if position < len(delimiter):
            raise _malformed("it does not hold its boundary")
    parts: list[Part] = []
    while not body.startswith(b"--", position):
        start = body.find(b"\r\n", position, position + 100)
        if start < 0:
            raise _malformed("it is cut off")
        end = body.find(delimiter, start)
        if end < 0:
            raise _malformed("it is cut off")
        if len(parts) >= MAX_PARTS:
            message = f"The body has more than {MAX_PARTS} parts."
            raise ApiError(ErrorCode.TOO_LARGE, message)
        parts.append(_part(body, start, end))
        position = end + len(delimiter)
    return parts


def _part(body: bytes, start: int, end: int) -> Part:
    """Read the part whose headers begin after the line end at `start`."""
    blank = body.find(b"\r\n\r\n", start, min(end, start + _MAX_HEADER_BYTES))
    if blank < 0:
        raise _malformed("a part has no headers")
    disposition, media_type = b"", ""
    for line in body[start:blank].split(b"\r\n"):
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"content-disposition":
                disposition = value
            case b"content-type":
                media_type = value.decode("latin-1").partition(";")[0].strip().lower()
    named = _NAME.search(disposition)
    if named is None:
        raise _malformed("a part has no name")
    return Part(
        name=named[1].decode(errors="replace"),
        is_file=_FILENAME.search(disposition) is not None,
        media_type=media_type,
        content=body[blank + 4 : end],
    )


def _malformed(why: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_INPUT, f"The multipart body is malformed: {why}.")
