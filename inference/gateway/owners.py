"""Whose share of a bound something uses: a customer's or an address's. Pure."""

from collections.abc import Hashable
from typing import NamedTuple, Protocol

from accounts.admission.networks import Networks, party_of


class Owner(NamedTuple):
    """Whom a bound counts for: a customer, or an address that showed no valid key."""

    name: str
    is_customer: bool = False


class Connected(Hashable, Protocol):
    """A connection that says which address its other end has."""

    client: str


def holder(connection: Connected, trusted_proxies: Networks) -> Hashable:
    """Return whose share of all connections one is of.

    An address's; a trusted proxy's connections are those of many, so each is its own.
    """
    if trusted_proxies.contain(connection.client):
        return connection
    return stranger(connection.client)


def customer(customer_id: int) -> Owner:
    return Owner(f"customer {customer_id}", is_customer=True)


def stranger(address: str) -> Owner:
    """Name an address; of IPv6, the network that one household or server has."""
    return Owner(party_of(address))
