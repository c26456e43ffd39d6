"""Read an uploaded file as the instances of a request.

A file of rows is rewritten as the body that would hold these rows. So the same rules,
limits and messages apply as for any other request.
"""

import io
import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from inference.codecs import media
from inference.codecs.decoding import DecodedRequest, InstanceDecoder
from inference.codecs.files import npy, uploaded
from inference.codecs.files.lines import BOM
from inference.codecs.files.row_files import open_rows
from inference.codecs.files.uploaded import AskedFile, UploadedFile
from inference.codecs.options import read_options
from inference.dialects.open_inference.inputs import SentTensor, input_binding
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import refuse
from inference.snapshot.targets import Target

# As for bodies: parsing text blocks all other calls of the process.
MAX_TEXT_BYTES = 2 * 1024 * 1024
_HUGE, _MINUS_HUGE = msgspec.Raw(b"1e999"), msgspec.Raw(b"-1e999")


class _Rows(msgspec.Struct, omit_defaults=True):
    instances: msgspec.Raw
    options: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    model: str | None = None


_asked_decoder = msgspec.json.Decoder(AskedFile)
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)
_encoder = msgspec.json.Encoder()


def find(body: bytes) -> AskedFile | None:
    """Read a body that names an uploaded file; return None for any other body."""
    if b'"input_uri"' not in body:
        return None
    try:
        return _asked_decoder.decode(body)
    except (ValueError, RecursionError):
        return None


def decode(
    asked: AskedFile,
    file: UploadedFile,
    target: Target,
    *,
    max_rows: int,
    limit_name: str,
    individual: bool,
) -> DecodedRequest:
    """Read the file as the request's instances; raise ApiError."""
    decoder, kind, content = target.tools()[0], file.content_type, file.content
    if kind in media.IMAGE_TYPES:
        decoded = decoder.decode_request(content, content_type=kind.encode())
        return _with_options(asked, decoded)
    if kind == uploaded.NPY:
        return _with_options(asked, _decode_array(content, target, max_rows))
    if len(content) > MAX_TEXT_BYTES:
        raise uploaded.too_large(MAX_TEXT_BYTES)
    if kind in uploaded.CSV_TYPES:
        rows = _csv_rows(content, target, max_rows)
    elif kind in uploaded.LINES_TYPES:
        rows = b"[%b]" % b",".join(_lines(content))
    else:
        rows = content
    body = _body(asked, rows)
    return _decode_body(decoder, body, max_rows, limit_name, individual)


def _decode_body(
    decoder: InstanceDecoder,
    body: bytes,
    max_rows: int,
    limit_name: str,
    individual: bool,
) -> DecodedRequest:
    return decoder.decode_request(
        body, max_rows=max_rows, limit_name=limit_name, individual=individual
    )


def _body(asked: AskedFile, rows: bytes) -> bytes:
    """Write a request body; in a file that is one already, `asked` replaces members."""
    if rows.lstrip()[:1] == b"[":
        whole = _Rows(msgspec.Raw(rows), asked.options, asked.parameters, asked.model)
        return _encoder.encode(whole)
    try:
        members = _members_decoder.decode(rows)
    except (ValueError, RecursionError):
        # The decoder will name the fault.
        return rows
    for name in ("options", "parameters", "model"):
        value = getattr(asked, name)
        if value is not None:
            members[name] = msgspec.Raw(_encoder.encode(value))
    return _encoder.encode(members)


def _lines(content: bytes) -> Iterator[bytes]:
    """Yield the instances of JSON Lines; raise ApiError for a line that is not JSON.

    Each line is checked alone: joined by commas, broken lines might be valid JSON.
    """
    # Not `splitlines`: a carriage return within a line is white space in JSON.
    lines = content.removeprefix(BOM).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            _raw_decoder.decode(line)
        except (ValueError, RecursionError):
            message = f"Line {number} of the file is not JSON."
            raise ApiError(ErrorCode.INVALID_JSON, message) from None
        yield line


def _csv_rows(content: bytes, target: Target, max_rows: int) -> bytes:
    reader = open_rows(
        io.BytesIO(content), input_format="csv", signature=target.signature
    )
    rows: list[Any] = []
    problems: list[Problem] = []
    for row, _ in reader.rows(0):
        if isinstance(row, Problem):
            problems.append(msgspec.structs.replace(row, index=len(rows)))
        rows.append(row)
        # One row beyond the limit is enough for the decoder to refuse the request.
        if len(rows) > max_rows:
            break
    if problems:
        refuse(problems)
    return _encoder.encode([_writable(row) for row in rows])


def _writable(value: Any) -> Any:
    """Replace infinity by a number that is too large: JSON would hold null for it."""
    if isinstance(value, float) and math.isinf(value):
        return _HUGE if value > 0 else _MINUS_HUGE
    if isinstance(value, dict):
        return {name: _writable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_writable(item) for item in value]
    return value


def _with_options(asked: AskedFile, decoded: DecodedRequest) -> DecodedRequest:
    if asked.parameters:
        issue = "cannot be sent with a file of this type"
        refuse([Problem(issue, field="parameters", code=ErrorCode.INVALID_INPUT)])
    options, problems = read_options(asked.options)
    if problems:
        refuse(problems)
    return msgspec.structs.replace(decoded, options=options, model=asked.model)


def _decode_array(content: bytes, target: Target, max_rows: int) -> DecodedRequest:
    array = npy.read(content)
    binding = target.compiled(input_binding)
    if len(binding.expected) != 1:
        raise refusals.invalid(
            "The model takes several inputs; an NPY file holds one array."
        )
    (expected,) = binding.expected
    wanted = np.dtype(expected.dtype) if expected.dtype != "str" else None
    if wanted is None or not np.can_cast(array.dtype, wanted, "same_kind"):
        raise refusals.invalid(f"The model takes {expected.dtype}, not {array.dtype}.")
    if wanted.kind in "iu" and not _holds(wanted, array):
        message = f"The array has a number that {expected.dtype} cannot hold."
        raise ApiError(ErrorCode.UNPROCESSABLE, message)
    sent = SentTensor(
        expected.name,
        expected.datatype,
        array.shape,
        lambda _datatype, _shape: array.astype(wanted, copy=False).reshape(-1),
    )
    tensors = binding.bind([sent], max_rows=max_rows)
    return DecodedRequest(tensors, array.shape[0], read_options(None)[0])


def _holds(dtype: np.dtype[Any], array: Any) -> bool:
    """Return whether an integer dtype holds all numbers; a cast would wrap others."""
    limits = np.iinfo(dtype)
    return not array.size or (
        int(array.min()) >= limits.min and int(array.max()) <= limits.max
    )
