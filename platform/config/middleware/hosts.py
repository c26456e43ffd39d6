"""Refuse requests for other hosts before anything else is done."""

import time
from collections.abc import Callable

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse

from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.rendering import render


class KnownHostMiddleware:
    """Answer 400 to requests whose Host is not in ALLOWED_HOSTS.

    Scanners send many of them, and Django would log each with a traceback.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            request.get_host()
        except DisallowedHost:
            return _refuse(request)
        return self._get_response(request)


def _refuse(request: HttpRequest) -> HttpResponse:
    error = ApiError(
        ErrorCode.INVALID_HEADER,
        "This site does not answer to the name in the Host header.",
    )
    status, headers, body = render(
        error,
        request_id=getattr(request, "request_id", ""),
        now=time.time(),
        problem_json="application/problem+json" in request.headers.get("Accept", ""),
    )
    return HttpResponse(
        body,
        status=status,
        headers={name.decode(): value.decode() for name, value in headers},
    )
