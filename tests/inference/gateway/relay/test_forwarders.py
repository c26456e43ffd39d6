from accounts.admission.networks import Networks
from inference.gateway.relay.forwarders import Forwarders


def test_headers_of_trusted_proxies_and_plain_requests_are_no_complaint():
    forwarders = Forwarders(Networks(["10.0.0.0/8"]))

    forwarders.note("10.0.0.5", b"203.0.113.9")
    forwarders.note("203.0.113.9", None)

    assert (forwarders.requests, forwarders.distrusted) == (2, 0)


def test_headers_of_others_are_counted_with_the_last_address():
    forwarders = Forwarders(Networks(["10.0.0.0/8"]))

    forwarders.note("192.0.2.1", b"203.0.113.9")
    forwarders.note("192.0.2.2", b"203.0.113.9")

    assert (forwarders.requests, forwarders.distrusted) == (2, 2)
    assert forwarders.distrusted_peer == "192.0.2.2"
