import socket

import pytest

from inference.engine.wire import orders
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.orders import EngineOrder


@pytest.fixture
def link():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        yield here, there


def order(columns):
    signature = {"columns": [{"name": f"column {n}"} for n in range(columns)]}
    version = VersionToLoad(
        key=VersionKey("wide", 1), path="/a", flavors=(), signature=signature
    )
    return EngineOrder(name="w", device="cpu", host_pid=1, versions=(version,))


def test_orders_arrive_whole_however_long(link):
    here, there = link
    # 16 MB, far more than a datagram may have.
    sent = [order(1_000_000), order(1)]

    for one in sent:
        orders.send_order(here, one)

    assert [orders.receive_order(there) for _ in sent] == sent


def test_nothing_is_received_from_a_host_that_is_gone(link):
    here, there = link
    here.close()

    assert orders.receive_order(there) is None
