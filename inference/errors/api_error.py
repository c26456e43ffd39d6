"""Define the error of a call: its code, message, details and retry advice.

`advice.py` explains every code; `render` in `rendering.py` writes the answer that
callers see.
"""

import enum
from typing import Any

import msgspec

from accounts.admission.limits import ReachedLimit


class ErrorCode(enum.StrEnum):
    INVALID_JSON = "INVALID_JSON"
    INVALID_INPUT = "INVALID_INPUT"
    INVALID_HEADER = "INVALID_HEADER"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    NOT_ACCEPTABLE = "NOT_ACCEPTABLE"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    CONFLICT = "CONFLICT"
    GONE = "GONE"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    UNPROCESSABLE = "UNPROCESSABLE"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    CONCURRENCY_EXCEEDED = "CONCURRENCY_EXCEEDED"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    MODEL_ERROR = "MODEL_ERROR"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    OVERLOADED = "OVERLOADED"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    INFERENCE_TIMEOUT = "INFERENCE_TIMEOUT"


STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID_JSON: 400,
    ErrorCode.INVALID_INPUT: 400,
    ErrorCode.INVALID_HEADER: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.NOT_ACCEPTABLE: 406,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.CONFLICT: 409,
    ErrorCode.GONE: 410,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ErrorCode.UNPROCESSABLE: 422,
    ErrorCode.RATE_LIMIT_EXCEEDED: 429,
    ErrorCode.QUOTA_EXCEEDED: 429,
    ErrorCode.CONCURRENCY_EXCEEDED: 429,
    ErrorCode.HEADERS_TOO_LARGE: 431,
    ErrorCode.MODEL_ERROR: 500,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.MODEL_UNAVAILABLE: 503,
    ErrorCode.INFERENCE_TIMEOUT: 504,
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One detail of an error; `index` is the instance's position in the request."""

    issue: str
    index: int | None = None
    field: str | None = None
    code: ErrorCode | None = None
    received: str | None = None

    def in_words(self) -> str:
        """Return where the problem is and what it is, without a full stop."""
        row = "" if self.index is None else f"row {self.index}"
        field = "" if self.field is None else f"`{self.field}`"
        place = f"{field} in {row}" if field and row else field or row
        issue = self.issue.removesuffix(".")
        # An issue that is a whole sentence follows a colon.
        between = ": " if place and issue[:1].isupper() else " "
        return f"{place}{between}{issue}".strip()


class ApiError(Exception):
    """A refused or failed call. `message` is for the caller and holds no secrets."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        details: tuple[Problem, ...] = (),
        retry_after_s: float | None = None,
        facts: dict[str, Any] | None = None,
        limit: ReachedLimit | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s
        # Extra members of the error object, e.g. {"scope": "jobs"}.
        self.facts = facts or {}
        # The limit that the call reached, if any; its facts become members, too.
        self.limit = limit

    @property
    def status(self) -> int:
        return STATUS[self.code]

    def further_details(self, most: int) -> list[str]:
        """Return the first `most` details in words, unless the message has them."""
        words = (detail.in_words() for detail in self.details[:most])
        return [found for found in words if found not in self.message]
