"""Give each request to the site an id, and log it if it failed."""

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from accounts.models import ApiKey
from config.middleware import outage_ends

log = structlog.get_logger(__name__)

_VALID_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")


def _caller(request: HttpRequest) -> dict[str, Any]:
    """Say who asked, as far as the request has found it out."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return {"customer_id": key.customer_id, "key_id": key.key_id}
    # Reading `request.user` could ask a database that is away.
    user = getattr(request, "_cached_user", None)
    return {"user": user.pk} if user is not None and user.pk else {}


class RequestLogMiddleware:
    """Set the request id and log the outcome, but never the query, body or key."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _VALID_ID.match(given) else f"req_{secrets.token_hex(12)}"
        request.request_id = request_id  # type: ignore[attr-defined]
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = self._get_response(request)
            if response.status_code < 500:
                outage_ends.note_success()
            if settings.LOG_REQUESTS or response.status_code >= 500:
                log.info(
                    "request",
                    method=request.method,
                    path=request.path,
                    status=response.status_code,
                    ms=round((time.perf_counter() - started) * 1000, 1),
                    every=settings.LOG_REQUESTS,
                    **_caller(request),
                )
        response.headers.setdefault("X-Request-Id", request_id)
        return response
