"""Whom a request came from, for limits by address."""

import ipaddress

from django.http import HttpRequest

from accounts.admission.networks import party_of


def client_address(group: str, request: HttpRequest) -> str:
    """Return the caller's address, of IPv6 its /64, as a key for django-ratelimit.

    Requests over the site's own socket have no address of their own: they come from
    the gateway, which puts the caller's last into X-Forwarded-For. Others cannot reach
    that socket, so nobody can choose what stands there.
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
        # The first of a network.
        return str(ipaddress.ip_network(address)[0])
    except ValueError:
        # Somebody at the site's own socket, which only this machine can reach.
        return "127.0.0.1"
