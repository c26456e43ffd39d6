"""Find a request's client address, for limits by address."""

import ipaddress

from django.http import HttpRequest

from accounts.admission.networks import party_of


def client_address(group: str, request: HttpRequest) -> str:
    """Return the caller's address, or its /64 for IPv6, as a key for django-ratelimit.

    Requests over the site's own socket have no address. They come from the gateway,
    which appends the caller's address to X-Forwarded-For; callers cannot reach that
    socket, so they cannot forge the last address.
    """
    address: str = request.META.get("REMOTE_ADDR", "")
    if not address:
        forwarded: str = request.META.get("HTTP_X_FORWARDED_FOR", "")
        address = forwarded.rpartition(",")[2].strip() or "local"
    return party_of(address)


def of_request(request: HttpRequest) -> str:
    """Return the caller's address as django-axes stores it: always an IP address."""
    address = client_address("", request)
    try:
        # The first address of a network.
        return str(ipaddress.ip_network(address)[0])
    except ValueError:
        # A local user of the site's socket, which only this machine can reach.
        return "127.0.0.1"
