"""A real gateway whose site, cache and database are dead, or silent, or slow."""

import contextlib
import socket
import socketserver
import threading
import time

import httpx
import msgspec
import pytest

from accounts.admission.limits import Limits, Quota
from inference.engine.signatures.signature import Column
from inference.installation.home import Home
from inference.snapshot import snapshot_file
from inference.snapshot.contents import EngineAddress
from tests.inference.engine.fakes import KEY as VERSION
from tests.inference.engine.fakes import MATRIX, to_load
from tests.inference.gateway.plant import KEY, published
from tests.inference.gateway.test_several_processes import several
from tests.load import Load, percentile
from tests.machine import engine
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

LOAD_S, CALLS = 4.0, 300
# 5 % of this quota, the overdraft, are far more than the calls need.
LIMITS = Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 10**6),))
SLOW_S = 1.5
# If the event loop waited for the site, all calls would take longer.
MOST_MEDIAN_S = 0.5


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    made = published(limits=LIMITS)
    columns = msgspec.structs.replace(
        MATRIX, columns=(Column("width"), Column("height"))
    )
    model = msgspec.structs.replace(
        made.models[0],
        name=VERSION.model,
        versions=(
            msgspec.structs.replace(made.models[0].versions[0], signature=columns),
        ),
    )
    address = EngineAddress(name="cpu", address=str(home.engine_socket("cpu")))
    snapshot_file.write(
        home.snapshot,
        msgspec.structs.replace(made, models=(model,), engines=(address,)),
    )
    return home


@contextlib.contextmanager
def silent(listener):
    """Accept connections, and never answer."""
    with listener:
        listener.listen(1000)
        yield listener


class Late(socketserver.StreamRequestHandler):
    """Answer each request late, with an error."""

    def handle(self):
        with contextlib.suppress(OSError):
            self.rfile.readline()
            time.sleep(SLOW_S)
            self.wfile.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")


@contextlib.contextmanager
def slow(path):
    with socketserver.ThreadingUnixStreamServer(str(path), Late) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def site_of(home, kind):
    with contextlib.ExitStack() as serving:
        for path in (home.site_socket, home.internal_socket):
            if kind == "silent":
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(path))
                serving.enter_context(silent(listener))
            elif kind == "slow":
                serving.enter_context(slow(path))
        yield


def keep_asking_the_site(url, stopped):
    """Ask for what only the site can answer, again and again."""
    with httpx.Client(base_url=url, timeout=30) as client:
        while not stopped.is_set():
            with contextlib.suppress(httpx.TransportError):
                client.get("/api/v1/models")
            stopped.wait(0.05)


@pytest.mark.parametrize("kind", ["silent", "slow", "dead"])
def test_the_loop_waits_for_nobody(home, kind):
    stopped = threading.Event()
    with (
        silent(socket.create_server(("127.0.0.1", 0))) as neighbour,
        site_of(home, kind),
        engine(home, to_load()),
    ):
        port = neighbour.getsockname()[1]
        with several(
            home,
            1,
            DATABASE_URL=f"postgres://127.0.0.1:{port}/test",
            CACHE_URL=f"redis://127.0.0.1:{port}/0",
            CELERY_BROKER_URL=f"redis://127.0.0.1:{port}/0",
            MODELYARD_SITE_TIMEOUT_S="2",
        ) as gateways:
            asking = [
                threading.Thread(
                    target=keep_asking_the_site, args=(gateways.url, stopped)
                )
                for _ in range(8)
            ]
            for thread in asking:
                thread.start()
            with Load(gateways.port, [KEY.token], connections=8, pause_s=0.01) as load:
                time.sleep(LOAD_S)
                wait_until(lambda: len(load.calls) > CALLS, what="the load")
            stopped.set()
            for thread in asking:
                thread.join()
        neighbour.setblocking(False)
        with pytest.raises(BlockingIOError):
            # The gateway has not asked the cache, database or broker for anything.
            neighbour.accept()

    assert {call.status for call in load.calls} == {200}
    # The first calls wait once for units of their quota.
    first, *others = sorted(load.calls, key=lambda call: call.sent)
    later = [call for call in others if call.sent > first.sent + 2.5]
    # Shown with `-s`.
    print(kind, "p99", percentile(later, 99))
    assert percentile(later, 50) < MOST_MEDIAN_S
    assert percentile(later, 99) < SLOW_S
