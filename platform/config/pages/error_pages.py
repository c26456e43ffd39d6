"""Answer errors outside views: in the API's error shape below /api/, else as a page."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django_ratelimit.exceptions import Ratelimited

from inference.api import outages
from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.rendering import render as render_error

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Page:
    status: int
    code: ErrorCode
    title: str
    text: str
    retry_after_s: int | None = None
    # The text of a link to the same address.
    again: str = ""


_NOT_FOUND = _Page(
    404, ErrorCode.NOT_FOUND, "Page not found", "There is nothing at this address."
)
_BAD_REQUEST = _Page(
    400, ErrorCode.INVALID_HEADER, "Bad request", "This request cannot be understood."
)
_FORBIDDEN = _Page(
    403, ErrorCode.FORBIDDEN, "Not allowed", "Your account may not do this."
)
_CSRF = _Page(
    403,
    ErrorCode.FORBIDDEN,
    "This form has expired",
    "Go back, reload the page and send the form again.",
)
_TOO_MANY = _Page(
    429,
    ErrorCode.RATE_LIMIT_EXCEEDED,
    "Too many requests",
    "Wait a minute, then try again.",
    retry_after_s=60,
    again="Try again",
)
_LOCKED_OUT = _Page(
    429,
    ErrorCode.RATE_LIMIT_EXCEEDED,
    "Too many failed sign-ins",
    "This name is locked for you for an hour, even with the right password. Others, and"
    " you from elsewhere, can still sign in. A customer’s members need not wait: their"
    " account manager can send them a link to set a new password.",
    retry_after_s=3600,
    again="Back to sign in",
)
_UNSTORABLE = _Page(
    400,
    ErrorCode.INVALID_INPUT,
    "Bad request",
    "This request holds characters or numbers that cannot be stored, such as NUL.",
)
_BROKEN = _Page(
    500,
    ErrorCode.INTERNAL_ERROR,
    "Something went wrong",
    "It has been logged; the operator can find it by the request id.",
)
_AWAY = _Page(
    503,
    ErrorCode.OVERLOADED,
    "Not available right now",
    outages.MESSAGE,
    retry_after_s=int(outages.RETRY_S),
)


class UnstorableMiddleware:
    """Answer 400 or 404 for values that the database can neither store nor look up.

    PostgreSQL refuses NUL in text and numbers too large for their column; SQLite
    refuses numbers of more than 64 bits. Forms and serializers check their own values;
    this covers values in addresses.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponse | None:
        if not isinstance(exception, DataError) and not _is_beyond_sqlite(exception):
            return None
        # Only its class: its text may quote a value.
        reason = type(exception.__cause__ or exception).__name__
        log.info("request_unstorable", path=request.path, reason=reason)
        reads = request.method in ("GET", "HEAD")
        return _answer(request, _NOT_FOUND if reads else _UNSTORABLE)


def _is_beyond_sqlite(exception: Exception) -> bool:
    # Python's driver raises it before SQLite sees the number.
    return isinstance(exception, OverflowError) and "SQLite INTEGER" in str(exception)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, _BAD_REQUEST)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, Ratelimited):
        return _answer(request, _TOO_MANY)
    return _answer(request, _FORBIDDEN)


def locked_out(
    request: HttpRequest,
    original_response: HttpResponse | None = None,
    credentials: dict[str, str] | None = None,
) -> HttpResponse:
    """Answer a sign-in that django-axes refuses."""
    return _answer(request, _LOCKED_OUT)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _answer(request, _CSRF)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, _NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    away = outages.is_outage(sys.exception())
    return _answer(request, _AWAY if away else _BROKEN)


def _answer(request: HttpRequest, page: _Page) -> HttpResponse:
    request_id = getattr(request, "request_id", "")
    response: HttpResponse
    if request.path.startswith("/api/"):
        accept = request.headers.get("Accept", "")
        error = ApiError(
            page.code,
            page.text,
            retry_after_s=page.retry_after_s,
        )
        _, headers, body = render_error(
            error,
            request_id=request_id,
            now=time.time(),
            problem_json="application/problem+json" in accept,
        )
        response = HttpResponse(body, status=page.status)
        for name, value in headers:
            response[name.decode()] = value.decode()
        return response
    response = render(
        request,
        "config/error.html",
        {"page": page, "request_id": request_id},
        status=page.status,
    )
    if page.retry_after_s is not None:
        response["Retry-After"] = str(page.retry_after_s)
    return response
