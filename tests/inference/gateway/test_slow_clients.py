"""A real gateway and a site of few threads, beside strangers who hold sockets open."""

import asyncio
import contextlib
import json
import os
import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from inference.gateway.settings import SITE_THREADS
from tests.inference.engine.fakes import to_load
from tests.inference.gateway.plant import KEY
from tests.inference.gateway.test_several_processes import several
from tests.inference.gateway.test_slow_neighbours import home  # noqa: F401
from tests.load import Load, percentile
from tests.machine import engine, wait_until

pytestmark = pytest.mark.processes

# 1000 for what docs/threat-model.md says; fewer are enough to take all the threads.
STRANGERS = int(os.environ.get("MODELYARD_STRANGERS", "60"))
LOAD_S = float(os.environ.get("MODELYARD_STRANGERS_S", "4"))
LARGE = bytes(1_600_000)
# Where a busy machine makes all calls late; a thread that is held costs ten seconds.
SLACK_S = 0.25


class Handler(socketserver.StreamRequestHandler):
    """Answers as the site does: a page, a large file, a form, a lease."""

    def handle(self):
        with contextlib.suppress(OSError):
            line = self.rfile.readline()
            length = 0
            while header := self.rfile.readline().strip():
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = self.rfile.read(length)
            answer = b"<p>page</p>"
            if b"/large" in line:
                answer = LARGE
            elif b"/internal/leases" in line:
                units = json.loads(body)["units"]
                answer = json.dumps({"units": units, "remaining": 10**6}).encode()
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nX-Request-ID: x\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer)
            )


class Site(socketserver.UnixStreamServer):
    """A site that has as many threads as the real one."""

    request_queue_size = 2048

    def __init__(self, path):
        super().__init__(str(path), Handler)
        self._pool = ThreadPoolExecutor(SITE_THREADS)

    def process_request(self, request, client_address):
        self._pool.submit(self._answer, request, client_address)

    def _answer(self, request, client_address):
        self.finish_request(request, client_address)
        self.shutdown_request(request)

    def server_close(self):
        super().server_close()
        self._pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def serving(path):
    with Site(path) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield
        finally:
            site.shutdown()
            thread.join()


READS_NOTHING = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n" * 2
SENDS_LITTLE = (
    b"POST /admin/login/ HTTP/1.1\r\nhost: x\r\n"
    b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 4000000\r\n\r\n"
) + b"x" * 300_000


class Strangers:
    """Clients that ask for much and read hardly any, or announce much and send a part.

    Each comes again when it is cut off.
    """

    def __init__(self, port, count, *, sent):
        self._port, self._count, self._sent = port, count, sent
        self._sends = sent.startswith(b"POST")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.open = 0

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.open >= self._count, what="the strangers")
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    async def _run(self):
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._one(reads=number % 2))

    async def _one(self, *, reads):
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            with socket.socket() as end, contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                end.setblocking(False)
                # Others are at another address: one's share is for itself.
                end.bind(("127.0.0.2", 0))
                await loop.sock_connect(end, ("127.0.0.1", self._port))
                await loop.sock_sendall(end, self._sent)
                self.open += 1
                while not self._stop.is_set():
                    await asyncio.sleep(0.5)
                    if self._sends:
                        await loop.sock_sendall(end, b"x")
                    elif reads and not await loop.sock_recv(end, 1):
                        break
            await asyncio.sleep(0.1)


def pages(url, stopped, took):
    with httpx.Client(base_url=url, timeout=30) as client:
        while not stopped.is_set():
            began = time.monotonic()
            answer = client.get("/portal/")
            took.append((answer.status_code, time.monotonic() - began))
            stopped.wait(0.01)


def measured(gateways, what, load_s=LOAD_S):
    """Return the 99th percentiles of pages and predictions, which must all succeed."""
    stopped, took = threading.Event(), []
    asking = [
        threading.Thread(target=pages, args=(gateways.url, stopped, took))
        for _ in range(2)
    ]
    for thread in asking:
        thread.start()
    with Load(gateways.port, [KEY.token], connections=4, pause_s=0.01) as load:
        time.sleep(load_s)
        wait_until(lambda: len(load.calls) > 100 and len(took) > 100, what="the load")
    stopped.set()
    for thread in asking:
        thread.join()
    assert {status for status, _ in took} == {200}
    assert {call.status for call in load.calls} == {200}
    of_pages = sorted(time_s for _, time_s in took)[int(len(took) * 0.99)]
    # Shown with `-s`.
    print(
        f"{what}: pages p99 {of_pages * 1000:.1f} ms of {len(took)}, "
        f"predictions p99 {percentile(load.calls, 99) * 1000:.1f} ms "
        f"of {len(load.calls)}"
    )
    return of_pages, percentile(load.calls, 99)


@pytest.mark.parametrize("sent", [READS_NOTHING, SENDS_LITTLE], ids=["read", "send"])
def test_strangers_who_hold_sockets_cost_others_little(home, sent):  # noqa: F811
    with (
        serving(home.site_socket),
        serving(home.internal_socket),
        engine(home, to_load()),
        several(home, 2) as gateways,
    ):
        measured(gateways, "warm-up", load_s=2)
        quiet = measured(gateways, "quiet")
        with Strangers(gateways.port, STRANGERS, sent=sent):
            beside = measured(gateways, f"beside {STRANGERS} strangers")

    for alone_s, beside_s in zip(quiet, beside, strict=True):
        assert beside_s < 2 * alone_s + SLACK_S
