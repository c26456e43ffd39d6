"""A real gateway and a site with few threads, while strangers hold sockets open.

`python -m benchmarks.strangers` measures a whole Modelyard beside 1,000 of them.
"""

import contextlib
import json
import operator
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from benchmarks import strangers
from inference.gateway.settings import SITE_THREADS
from tests.inference.engine.fakes import to_load
from tests.inference.gateway.plant import KEY
from tests.inference.gateway.test_several_processes import several
from tests.inference.gateway.test_slow_neighbours import home  # noqa: F401
from tests.load import Load, percentile
from tests.machine import engine
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

# Enough to use up all threads.
STRANGERS = 60
LOAD_S = 2.0
KINDS = {
    "read": [strangers.reads_nothing("/large"), strangers.reads_little("/large")],
    "send": [strangers.SENDS_LITTLE],
}
LARGE = bytes(1_600_000)
# For busy machines, where all calls are late; a blocked thread costs ten seconds.
SLACK_S = 0.25


class Handler(socketserver.StreamRequestHandler):
    """Answer as the site does: a page, a large file, a form, a lease."""

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


def pages(url, stopped, took):
    with httpx.Client(base_url=url, timeout=30) as client:
        while not stopped.is_set():
            began = time.monotonic()
            answer = client.get("/portal/")
            took.append((answer.status_code, time.monotonic() - began))
            stopped.wait(0.01)


def measured(gateways, load_s=LOAD_S):
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
    return of_pages, percentile(load.calls, 99)


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_who_hold_sockets_cost_others_little(home, kind):  # noqa: F811
    with (
        serving(home.site_socket),
        serving(home.internal_socket),
        engine(home, to_load()),
        several(home, 2) as gateways,
    ):
        measured(gateways, load_s=0.5)
        # Repeat: other load on the machine may come only beside the strangers.
        for attempt in range(1, 4):
            quiet = measured(gateways)
            with strangers.Strangers(gateways.port, STRANGERS, KINDS[kind]):
                beside = measured(gateways)
            bounds = [2 * alone_s + SLACK_S for alone_s in quiet]
            if all(map(operator.lt, beside, bounds)):
                return
            print(f"attempt {attempt}: {quiet} alone, {beside} beside")
        pytest.fail("strangers cost others more than they may, each time")
