"""Turn every exception of a DRF view into the API's one error shape."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import DataError
from django.http import Http404, HttpResponse, UnreadablePostError
from django_ratelimit.exceptions import Ratelimited
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.views import set_rollback

from accounts.api.authentication import (
    KeyInQuery,
    LacksScope,
    OutsideNetworks,
    UnknownKey,
)
from accounts.api.throttling import RateReached, describe_uncounted
from accounts.models import ApiKey
from inference.api import outages
from inference.errors import problems, refusals, rendering
from inference.errors.api_error import ApiError, ErrorCode, Problem

# One minute: the longest window of the rate limits of Django's pages.
_RATELIMITED_RETRY_S = 60.0
_MAX_QUOTED = 200

# DRF's own messages may quote the payload, so callers get these.
_MESSAGES: dict[type[exceptions.APIException], tuple[ErrorCode, str]] = {
    exceptions.ParseError: (ErrorCode.INVALID_JSON, "The body cannot be parsed."),
    exceptions.PermissionDenied: (
        ErrorCode.FORBIDDEN,
        "This key may not do that.",
    ),
    exceptions.NotFound: (ErrorCode.NOT_FOUND, "There is nothing at this path."),
    exceptions.NotAcceptable: (
        ErrorCode.NOT_ACCEPTABLE,
        "None of the accepted media types is available.",
    ),
    exceptions.UnsupportedMediaType: (
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        "This media type is not supported here.",
    ),
}


def render_exception(exception: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer an exception of a DRF view; unknown ones are logged, not shown."""
    set_rollback()
    request: Request = context["request"]
    error = as_api_error(exception, method=request.method or "")
    if error.code is ErrorCode.INTERNAL_ERROR or outages.is_outage(exception):
        structlog.get_logger(__name__).error(
            "request_failed", path=request.path, exc_info=exception
        )
    else:
        if isinstance(exception, DataError):
            # Logged, because an error of our own would look like the caller's mistake.
            structlog.get_logger(__name__).warning(
                "request_unstorable",
                path=request.path,
                reason=type(exception.__cause__ or exception).__name__,
            )
        key = _key_of(request, exception)
        if key is not None:
            describe_uncounted(request, context["view"], key)
    status, headers, body = rendering.render(
        error,
        request_id=getattr(request, "request_id", ""),
        now=time.time(),
        problem_json="application/problem+json" in request.headers.get("Accept", ""),
    )
    return HttpResponse(
        body,
        status=status,
        headers={name.decode().title(): value.decode() for name, value in headers},
    )


def _key_of(request: Request, exception: Exception) -> ApiKey | None:
    if isinstance(exception, OutsideNetworks):
        return exception.key
    try:
        # Some errors are raised before the caller was authenticated.
        key = request.auth
    except exceptions.APIException:
        return None
    return key if isinstance(key, ApiKey) else None


def as_api_error(exception: Exception, *, method: str = "") -> ApiError:
    """Convert an exception to a code and facts that callers may see."""
    match exception:
        case ApiError():
            return exception
        case KeyInQuery():
            return refusals.key_in_query()
        case UnknownKey():
            return refusals.unauthenticated(exception.problem)
        case exceptions.NotAuthenticated():
            return refusals.unauthenticated("missing")
        case exceptions.AuthenticationFailed():
            return refusals.unauthenticated(None)
        case OutsideNetworks():
            return refusals.outside_networks(exception.address)
        case LacksScope():
            return refusals.lacks_scope(exception.scope)
        case RateReached():
            return refusals.of_limits(exception.refusal)
        case Http404():
            return _plain(exceptions.NotFound)
        case Ratelimited():
            return ApiError(
                ErrorCode.RATE_LIMIT_EXCEEDED,
                "Too many requests to this part of the API.",
                retry_after_s=_RATELIMITED_RETRY_S,
            )
        case PermissionDenied():
            return _plain(exceptions.PermissionDenied)
        case exceptions.ValidationError():
            found = tuple(_problems(exception.detail))
            return ApiError(
                ErrorCode.INVALID_INPUT,
                problems.summary(found),
                details=tuple(problems.shown(found)),
            )
        case RequestDataTooBig():
            return ApiError(ErrorCode.TOO_LARGE, "The body is too large.")
        case SuspiciousOperation() | DataError():
            # PostgreSQL stores neither NUL nor numbers too large for their column.
            return ApiError(
                ErrorCode.INVALID_INPUT,
                "The request holds characters or numbers that cannot be stored, such as"
                " NUL.",
            )
        case UnreadablePostError():
            return ApiError(
                ErrorCode.REQUEST_TIMEOUT, "The body did not arrive as a whole."
            )
        case exceptions.MethodNotAllowed():
            return ApiError(
                ErrorCode.METHOD_NOT_ALLOWED, f"{method} is not allowed here."
            )
        case exceptions.Throttled():
            return ApiError(
                ErrorCode.RATE_LIMIT_EXCEEDED,
                "Too many requests to this part of the API.",
                retry_after_s=getattr(exception, "wait", None),
            )
    for kind in _MESSAGES:
        if isinstance(exception, kind):
            return _plain(kind)
    if outages.is_outage(exception):
        return outages.away(exception)
    return ApiError(ErrorCode.INTERNAL_ERROR, "Something failed on our side.")


def _plain(kind: type[exceptions.APIException]) -> ApiError:
    code, message = _MESSAGES[kind]
    return ApiError(code, message)


def _problems(detail: Any, path: str = "") -> Iterator[Problem]:
    """Flatten DRF's nested details; a field of a nested object is named `a.b`."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            own = name != "non_field_errors"
            inner_path = f"{path}.{name}" if path and own else name if own else path
            yield from _problems(inner, inner_path)
    elif isinstance(detail, Sequence) and not isinstance(detail, str):
        for position, inner in enumerate(detail):
            nested = isinstance(inner, Mapping) and bool(inner)
            yield from _problems(inner, f"{path}[{position}]" if nested else path)
    else:
        yield Problem(issue=_cut(str(detail)), field=_cut(path) or None)


def _cut(text: str) -> str:
    """Shorten a text that may quote a request."""
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"
