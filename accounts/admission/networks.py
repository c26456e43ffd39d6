"""Find a caller's address, and the networks that a key may be or is used from."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

# The range that providers usually give to one household or office, by IP version.
_PREFIXES = {4: 24, 6: 48}
_DAY_S = 86400
# For one key and day: callers that are remembered, and networks that are told.
_MOST_CALLERS = 1000
MOST_NETWORKS = 100


class Networks:
    """IPv4 and IPv6 networks, parsed once; raises ValueError for any other text."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ip_network(text) for text in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def contain(self, address: str) -> bool:
        """Return whether an address lies in one of them; False if it is not one."""
        found = _read(address)
        return found is not None and any(found in network for network in self._networks)


def normalised(text: str) -> str:
    """Write an address or network in its normal form, or raise ValueError.

    A network with host bits set is refused: 10.0.0.1/8 may have been meant as 10.0.0.1.
    """
    try:
        network = ip_network(text.strip())
    except ValueError as error:
        raise ValueError(f"{text!r} is no IPv4 or IPv6 network: {error}.") from error
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError(f"{text!r}: write mapped IPv4 addresses as IPv4.")
    return str(network)


def client_address(peer: str, forwarded_for: bytes | None, trusted: Networks) -> str:
    """Return the address of the caller behind trusted proxies.

    Each proxy appends the address that called it, so the header is read from the right.
    The first address that is not a trusted proxy is the caller; the caller may have
    made up everything to its left.
    """
    if forwarded_for is None or not trusted.contain(peer):
        return peer
    address = peer
    for hop in reversed(forwarded_for.decode("latin-1").split(",")):
        address = hop.strip()
        if not trusted.contain(address):
            break
    return address


def party_of(address: str) -> str:
    """Return the address that bounds and limits count; "unknown" if it is not one.

    For IPv6 it is the /64 network, which one household or server has to itself.
    """
    if ":" not in address:
        return address
    found = _read(address)
    if found is None:
        return "unknown"
    if isinstance(found, IPv4Address):
        return str(found)
    return str(IPv6Network((found, 64), strict=False))


def network_of(address: str) -> str:
    """Return the /24 or /48 network around an address; empty if it is not one."""
    found = _read(address)
    if found is None:
        return ""
    return str(ip_network((found, _PREFIXES[found.version]), strict=False))


class SeenNetworks:
    """The networks that one key was used from today, as far as this process knows."""

    __slots__ = ("_callers", "_ends", "_networks")

    def __init__(self) -> None:
        self._callers: set[int] = set()
        self._networks: set[str] = set()
        self._ends = 0

    def note(
        self, peer: str, forwarded_for: bytes | None, trusted: Networks, now: float
    ) -> str:
        """Return the caller's network if it is new today, otherwise an empty string."""
        # A hash, as the header may be long, and a caller may send many.
        caller = hash((peer, forwarded_for))
        if caller in self._callers and now < self._ends:
            return ""
        if now >= self._ends:
            self._ends = (int(now) // _DAY_S + 1) * _DAY_S
            self._callers.clear()
            self._networks.clear()
        elif len(self._callers) >= _MOST_CALLERS:
            self._callers.clear()
        self._callers.add(caller)
        network = network_of(client_address(peer, forwarded_for, trusted))
        if network in self._networks or len(self._networks) >= MOST_NETWORKS:
            return ""
        self._networks.add(network)
        return network


def _read(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families maps IPv4 callers to IPv6.
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
