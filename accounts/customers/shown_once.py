"""Show a secret on the page that a form leads to, once, and keep it nowhere.

A form that makes a secret answers with a redirect, so that no reload sends it again. In
between the secret lies in the person's session, encrypted; only the address that the
redirect leads to has the key. The first look takes it out of the session.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken
from django.http import HttpRequest, HttpResponseRedirect

_SESSION = "shown-once"
# In a session; what was not looked at makes room for what is new.
_MOST = 5
PARAMETER = "once"


def lead_to(
    request: HttpRequest, url: str, secret: Mapping[str, Any]
) -> HttpResponseRedirect:
    """Lead to a page which can `take` the secret: values that JSON can hold."""
    key = Fernet.generate_key()
    sealed = Fernet(key).encrypt(json.dumps(secret).encode()).decode()
    kept = request.session.get(_SESSION, [])
    request.session[_SESSION] = [*kept, sealed][-_MOST:]
    return HttpResponseRedirect(f"{url}?{urlencode({PARAMETER: key.decode()})}")


def take(request: HttpRequest) -> dict[str, Any] | None:
    """Return the secret that the address opens; None if it was shown before."""
    if request.method != "GET":
        # A program that only asks for the head must not use it up.
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
    """Return whether the address is one that showed a secret, or will."""
    return PARAMETER in request.GET
