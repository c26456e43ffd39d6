import tracemalloc

import pytest

from accounts.admission.networks import (
    MOST_NETWORKS,
    Networks,
    SeenNetworks,
    client_address,
    network_of,
    normalised,
)


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::7", True),
        ("192.0.2.9", True),
        ("192.0.2.10", False),
        ("2001:db9::7", False),
        ("unknown", False),
        ("", False),
        ("10.1.2.3.4", False),
    ],
)
def test_networks_of_both_families_contain_their_addresses(address, inside):
    networks = Networks(["10.0.0.0/8", "192.0.2.9/32", "2001:db8::/32"])

    assert networks.contain(address) is inside


def test_networks_are_kept_in_one_form():
    assert normalised(" 192.0.2.9 ") == "192.0.2.9/32"
    assert normalised("2001:DB8:0::/48") == "2001:db8::/48"


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "10.0.0.0/33", "x", "", "::ffff:1.2.3.4"]
)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match=r"\S"):
        normalised(text)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # The peer is not a trusted proxy, so the header is ignored.
        ("198.51.100.1", b"10.9.9.9", "198.51.100.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", b"1.1.1.1, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # Text that is not an address is in no network.
        ("10.0.0.1", b"nonsense", "nonsense"),
        ("10.0.0.1", b"", ""),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_trusted_proxy(peer, forwarded, client):
    trusted = Networks(["10.0.0.0/24"])

    assert client_address(peer, forwarded, trusted) == client


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:5:6::1", "2001:db8:5::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("unknown", ""),
    ],
)
def test_of_an_address_only_its_network_is_told(address, network):
    assert network_of(address) == network


NOON = 1_795_262_400.0
NOBODY = Networks(())


def test_a_network_is_told_once_a_day():
    seen = SeenNetworks()

    told = [
        seen.note(peer, None, NOBODY, at)
        for peer, at in [
            ("203.0.113.1", NOON),
            ("203.0.113.1", NOON + 1),
            ("203.0.113.2", NOON + 2),
            ("198.51.100.1", NOON + 3),
            ("203.0.113.1", NOON + 12 * 3600),
        ]
    ]

    assert told == ["203.0.113.0/24", "", "", "198.51.100.0/24", "203.0.113.0/24"]


def test_behind_a_proxy_the_callers_network_is_told_and_nobody_elses():
    proxy = Networks(["10.0.0.0/8"])
    seen = SeenNetworks()

    assert seen.note("10.0.0.1", b"203.0.113.1", proxy, NOON) == "203.0.113.0/24"
    assert seen.note("10.0.0.1", b"1.2.3.4, 203.0.113.9", proxy, NOON) == ""
    # A peer that is not a trusted proxy may write anything.
    assert seen.note("198.51.100.1", b"1.2.3.4", proxy, NOON) == "198.51.100.0/24"


def test_what_is_known_of_a_key_is_bounded():
    seen = SeenNetworks()

    told = [
        seen.note(f"10.{n // 200}.{n % 200}.1", None, NOBODY, NOON)
        for n in range(5_000)
    ]

    assert len([network for network in told if network]) == MOST_NETWORKS


def test_what_is_remembered_of_callers_does_not_grow_with_their_headers():
    seen = SeenNetworks()
    now = 1_000_000.0

    tracemalloc.start()
    for number in range(200):
        header = b"%d" % number * 10_000
        seen.note("198.51.100.7", header, Networks(()), now)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 200_000
