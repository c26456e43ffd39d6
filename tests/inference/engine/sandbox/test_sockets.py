"""Test which sockets a sandboxed process has."""

import asyncio
import os
import socket
import subprocess
import sys
import time

import msgspec
import pytest
import uvloop

from tests.inference.engine.sandbox.child import inside


@pytest.fixture
def agreed(rules):
    """Rules of a model that may open connections."""
    return msgspec.structs.replace(rules, network=True)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def unix_socket(tmp_path):
    # A path of pytest may be too long for a socket.
    folder = os.open(tmp_path, os.O_RDONLY)
    path = f"/proc/self/fd/{folder}/other.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        os.close(folder)
        yield str(tmp_path / "other.sock")


def connect(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return "connected"


def connect_unix(path):
    with socket.socket(socket.AF_UNIX) as client:
        os.chdir(os.path.dirname(path))
        client.connect(os.path.basename(path))


def send_datagram(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return client.sendto(b"x", ("127.0.0.1", port))


def listen():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1] > 0


def listen_on(port):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))


def pair_of_datagrams():
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


def pair():
    one, other = socket.socketpair()
    with one, other:
        one.send(b"x")
        return other.recv(1).decode()


def test_it_opens_no_connection(rules, port):
    assert inside(connect, port, rules=rules).error == "PermissionError"
    assert inside(send_datagram, port, rules=rules).error == "PermissionError"


def test_it_opens_no_port(rules):
    assert inside(listen, rules=rules).error == "PermissionError"


@pytest.mark.parametrize(
    "family", [socket.AF_UNIX, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET]
)
def test_it_makes_no_socket_of_any_family(rules, family):
    assert inside(make, int(family), rules=rules).error == "PermissionError"


def make(family):
    socket.socket(family, socket.SOCK_DGRAM)


def test_it_reaches_no_unix_socket(rules, agreed, unix_socket):
    assert inside(connect_unix, unix_socket, rules=rules).error == "PermissionError"
    assert inside(connect_unix, unix_socket, rules=agreed).error == "PermissionError"


def test_pairs_of_streams_are_its_own(rules):
    assert inside(pair, rules=rules).value == "x"
    # These could send to any socket that is bound to a path.
    assert inside(pair_of_datagrams, rules=rules).error == "PermissionError"


def test_with_consent_it_connects_but_opens_no_port(agreed, port):
    assert inside(connect, port, rules=agreed).value == "connected"
    assert inside(send_datagram, port, rules=agreed).value == 1
    assert inside(listen_on, port, rules=agreed).error == "PermissionError"


def resolve():
    return socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)[0][0]


def test_with_consent_it_resolves_names(agreed):
    assert inside(resolve, rules=agreed).value in (socket.AF_INET, socket.AF_INET6)


async def _serve_once(descriptor):
    answered = asyncio.Event()

    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
        answered.set()

    listener = socket.socket(fileno=descriptor)
    server = await asyncio.start_unix_server(answer, sock=listener)
    async with server:
        # A thread and a child process, as engines have.
        await asyncio.to_thread(time.sleep, 0)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print('child')", stdout=subprocess.PIPE
        )
        output, _ = await child.communicate()
        await asyncio.wait_for(answered.wait(), 60)
    return output.decode().strip()


def serve_with_asyncio(descriptor):
    return asyncio.run(_serve_once(descriptor))


def serve_with_uvloop(descriptor):
    return uvloop.run(_serve_once(descriptor))


@pytest.mark.parametrize("serve", [serve_with_asyncio, serve_with_uvloop])
def test_it_answers_on_a_socket_that_it_had_before(rules, tmp_path, serve):
    folder = os.open(tmp_path, os.O_RDONLY)
    path = f"/proc/self/fd/{folder}/own.sock"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        listener.bind(path)
        listener.listen()
        client.connect(path)
        client.send(b"rows\n")
        number = listener.fileno()

        result = inside(serve, number, rules=rules, pass_fds=(number,))

        client.settimeout(5)
        assert client.recv(100) == b"ROWS\n"
        assert result.value == "child"
    os.close(folder)
