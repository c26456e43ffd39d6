"""Show a secret once, on the page that a form redirects to, and store it nowhere.

A form that makes a secret redirects, so that a reload does not send the form again. In
between the secret is in the person's session, encrypted; only the address of the
redirect has the key. The first look removes it from the session.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken
from django.http import HttpRequest, HttpResponseRedirect

_SESSION = "shown-once"
# Secrets kept in a session; new ones replace old ones that nobody looked at.
_MOST = 5
PARAMETER = "once"


def lead_to(
    request: HttpRequest, url: str, secret: Mapping[str, Any]
) -> HttpResponseRedirect:
    """Redirect to a page that can `take` the secret; JSON must be able to hold it."""
    key = Fernet.generate_key()
    sealed = Fernet(key).encrypt(json.dumps(secret).encode()).decode()
    kept = request.session.get(_SESSION, [])
    request.session[_SESSION] = [*kept, sealed][-_MOST:]
    return HttpResponseRedirect(f"{url}?{urlencode({PARAMETER: key.decode()})}")


def take(request: HttpRequest) -> dict[str, Any] | None:
    """Return the secret that the address opens; None if it was shown before."""
    if request.method != "GET":
        # A program that sends HEAD must not use it up.
        return None
    try:
        key = Fernet(request.GET.get(PARAMETER, ""))
    except ValueError:
        return None
    kept = request.session.get(_SESSION, [])
    for sealed in kept:
        try:
            secret: dict[str, Any] = json.loads(key.decrypt(sealed))
        except InvalidToken:
            continue
        request.session[_SESSION] = [other for other in kept if other != sealed]
        return secret
    return None


def is_asked_for(request: HttpRequest) -> bool:
    """Return whether the address shows a secret, or did."""
    return PARAMETER in request.GET
