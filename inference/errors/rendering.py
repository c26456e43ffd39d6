"""Render errors: in the project's one shape, or as RFC 9457 on request.

The gateway and Django's exception handler both use this, so a caller cannot tell which
of them answered.
"""

import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from inference.errors.api_error import ApiError, ErrorCode

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"

_TITLES = {code: code.value.replace("_", " ").capitalize() for code in ErrorCode}
_encoder = msgspec.json.Encoder()
# Address of the site, whose docs explain each code; set once, when a process starts.
_site = {"url": ""}


def set_site(url: str) -> None:
    """Set the address where callers find the docs of this installation."""
    _site["url"] = url.rstrip("/")


def docs_of(code: ErrorCode) -> str:
    """Return the URL of the page that explains a code."""
    return f"{_site['url']}/docs/errors#{code.lower()}"


def render(
    error: ApiError, *, request_id: str, now: float, problem_json: bool = False
) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error; `now` in seconds since the epoch."""
    status = error.status
    timestamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    docs = docs_of(error.code)
    facts: dict[str, Any] = {"code": error.code, "message": error.message}
    if problem_json:
        facts = {
            "type": docs,
            "title": _TITLES[error.code],
            "status": status,
            "detail": error.message,
            "code": error.code,
        }
    if error.details:
        facts["details"] = error.details
    facts |= error.facts
    if error.limit is not None:
        facts |= error.limit.facts()
    if error.retry_after_s is not None:
        facts["retry_after_s"] = retry_after(error.retry_after_s)
    facts |= {"request_id": request_id, "timestamp": timestamp, "docs": docs}
    body = _encoder.encode(facts if problem_json else {"error": facts})
    content_type = PROBLEM_JSON if problem_json else JSON
    return status, headers_of(error, request_id, len(body), content_type), body


def retry_after(seconds: float) -> int:
    """Round a wait up to whole seconds, at least 1, as `Retry-After` needs them."""
    return max(1, math.ceil(seconds))


def headers_of(
    error: ApiError, request_id: str, length: int, content_type: bytes = JSON
) -> Headers:
    """Return the headers of an error whose body has `length` bytes."""
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % length),
        (b"x-request-id", request_id.encode()),
        (b"cache-control", b"no-store"),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after(error.retry_after_s)))
    if error.code is ErrorCode.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b'Bearer realm="modelyard"'))
    return headers
