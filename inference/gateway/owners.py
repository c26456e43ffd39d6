"""Name the owner of a share of a bound: a customer or an address."""

from collections.abc import Hashable
from typing import NamedTuple, Protocol

from accounts.admission.networks import Networks, party_of


class Owner(NamedTuple):
    """The owner of a share: a customer, or an address that showed no valid key."""

    name: str
    is_customer: bool = False


class Connected(Hashable, Protocol):
    """A connection that knows its client's address."""

    client: str


def holder(connection: Connected, trusted_proxies: Networks) -> Hashable:
    """Return the owner whose share of all connections a connection uses.

    This is the client's address. A trusted proxy has connections of many clients, so
    each of them is an owner of its own.
    """
    if trusted_proxies.contain(connection.client):
        return connection
    return stranger(connection.client)


def customer(customer_id: int) -> Owner:
    return Owner(f"customer {customer_id}", is_customer=True)


def stranger(address: str) -> Owner:
    """Return the owner for an address; for IPv6, its network, which one party has."""
    return Owner(party_of(address))
