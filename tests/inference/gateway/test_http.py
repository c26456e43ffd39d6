import pytest

from inference.gateway.http import OneWriteTransport


class FakeTransport:
    def __init__(self):
        self.writes = []
        self.closed = False

    def write(self, data):
        self.writes.append(data)

    def close(self):
        self.closed = True


@pytest.fixture
def transports():
    fake = FakeTransport()
    return fake, OneWriteTransport(fake)


def test_head_and_body_leave_together(transports):
    fake, transport = transports

    for _ in range(2):
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        transport.write(b"body")

    assert fake.writes == [b"HTTP/1.1 200 OK\r\n\r\nbody"] * 2


def test_more_of_the_body_leaves_at_once(transports):
    fake, transport = transports
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    transport.write(b"one")

    transport.write(b"two")

    assert fake.writes[1:] == [b"two"]


def test_empty_write_lets_the_head_go(transports):
    fake, transport = transports
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")

    transport.write(b"")

    assert fake.writes == [b"HTTP/1.1 200 OK\r\n\r\n"]


def test_invitation_to_go_on_never_waits(transports):
    fake, transport = transports

    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    assert fake.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_head_is_not_lost_when_the_connection_is_closed(transports):
    fake, transport = transports
    transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    transport.close()

    assert fake.writes == [b"HTTP/1.1 204 No Content\r\n\r\n"]
    assert fake.closed
