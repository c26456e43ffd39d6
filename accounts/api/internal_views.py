"""Grant leases to the processes of this installation; not a public API."""

import msgspec
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from accounts.admission.limits import LeaseRequest
from accounts.quotas import holders, leases


class _GrantBody(LeaseRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    holder: str


@csrf_exempt
@require_POST
def grant_lease(request: HttpRequest) -> HttpResponse:
    """Lend units of a quota: `accounts.quotas.leases.grant` over HTTP."""
    if not is_from_this_installation(request):
        raise Http404
    try:
        body = msgspec.json.decode(request.body, type=_GrantBody)
        answer = leases.grant(body.holder, body, ask_holder=holders.ask)
    except (msgspec.DecodeError, leases.InvalidWindow) as error:
        return HttpResponse(str(error), status=400, content_type="text/plain")
    return HttpResponse(msgspec.json.encode(answer), content_type="application/json")


def is_from_this_installation(request: HttpRequest) -> bool:
    """Return whether a request came over the site's own socket and was not relayed.

    A Unix socket has no peer address, and its folder is private to the user that runs
    Modelyard. A gateway or proxy names the client of a request that it relays.
    """
    return request.META.get("REMOTE_ADDR", "") == "" and not (
        {"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP"}
        & request.META.keys()
    )
