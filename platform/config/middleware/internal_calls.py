"""Answer this installation's own processes before any public middleware."""

from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, get_resolver

from accounts.api.internal_views import is_from_this_installation

_URLS = "config.urls_internal"
# Orchestrators and load balancers ask these over plain HTTP, without our host name.
_HEALTH = frozenset({"/healthz", "/health", "/readyz", "/ready"})


class InternalCallMiddleware:
    """Answer requests of gateways at the site's own socket, and health checks.

    A gateway sends no public host and uses plain HTTP, so the checks of public requests
    (ALLOWED_HOSTS, the redirect to HTTPS) would refuse it. Requests that were relayed
    or came over TCP go on to those checks.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path in _HEALTH or (
            request.path.startswith("/internal/") and is_from_this_installation(request)
        ):
            try:
                found = get_resolver(_URLS).resolve(request.path_info)
                request.resolver_match = found
                answer: HttpResponseBase = found.func(
                    request, *found.args, **found.kwargs
                )
            except (Resolver404, Http404):
                return HttpResponse("not found", status=404, content_type="text/plain")
            return answer
        return self._get_response(request)
