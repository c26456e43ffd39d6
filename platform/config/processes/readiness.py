"""Ask this machine's gateways whether every model can answer."""

import http.client
import json
import urllib.request

from django.conf import settings


def all_ready(*, timeout_s: float) -> bool:
    """Return whether every gateway is up and every model can answer."""
    host = settings.MODELYARD_OPERATOR_HOST
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    url = f"http://{host}:{settings.MODELYARD_OPERATOR_PORT}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            detail = json.load(response)
            gateways = detail["gateways"].values()
            return not detail["waiting_for"] and all(it["ready"] for it in gateways)
    # An answer that is cut off, or another server's, is no sign of readiness either.
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return False
