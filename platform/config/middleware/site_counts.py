"""Count requests to the site by view, and measure how long they take."""

import time
from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from inference.metrics.counts import HERE


class SiteCountsMiddleware:
    """Count each answer; `none` are files, redirects and paths that do not exist."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        response = self._get_response(request)
        found = request.resolver_match
        view = found.view_name if found is not None else "none"
        seconds = time.perf_counter() - started
        HERE.add("site_requests", view, str(response.status_code))
        HERE.observe("site_request_duration_seconds", view, value=seconds)
        return response
