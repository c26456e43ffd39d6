"""Several real gateways on one port."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import httpx
import msgspec
import pytest

from accounts.admission.back_off import TOLERATED
from accounts.admission.limits import Limits, Rate
from accounts.metering.spool import read_events
from benchmarks.ports import free_port
from inference.gateway.settings import gateway_names
from inference.installation import healthy
from inference.installation.home import Home
from inference.snapshot import snapshot_file
from tests.inference.gateway.metrics.test_calls import only, parsed
from tests.inference.gateway.plant import KEY, PREDICT, published
from tests.inference.gateway.test_process import ask

pytestmark = pytest.mark.processes


class Gateways:
    """`count` gateways that share their ports, as the supervisor starts them."""

    def __init__(self, home, count, **environment):
        self.port, self.operator_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.operator_url = f"http://127.0.0.1:{self.operator_port}"
        self.names = gateway_names(count)
        self.environment = os.environ | {
            "MODELYARD_HOME": str(home.root),
            "MODELYARD_PORT": str(self.port),
            "MODELYARD_OPERATOR_PORT": str(self.operator_port),
            "MODELYARD_GATEWAYS": str(count),
            "LOG_LEVEL": "WARNING",
            **environment,
        }
        self.processes = {name: self.start(name) for name in self.names}

    def start(self, name):
        return subprocess.Popen(
            [sys.executable, "-m", "inference.gateway"],
            env=self.environment | {"MODELYARD_PROCESS": name},
        )

    def up(self):
        with contextlib.suppress(httpx.TransportError, KeyError):
            detail = httpx.get(f"{self.operator_url}/readyz", timeout=30).json()
            return [name for name, its in detail["gateways"].items() if its["up"]]
        return []

    def wait_until_up(self, names):
        deadline = time.monotonic() + 60
        while sorted(self.up()) != sorted(names):
            assert time.monotonic() < deadline, "the gateways did not come up"
            time.sleep(0.05)

    def metrics(self):
        return parsed(httpx.get(f"{self.operator_url}/metrics", timeout=30).text)

    def kill(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def several(home, count, **environment):
    gateways = Gateways(home, count, **environment)
    try:
        gateways.wait_until_up(gateways.names)
        yield gateways
    finally:
        gateways.kill()


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    snapshot_file.write(home.snapshot, published())
    return home


def test_one_port_one_sum_and_a_sibling_that_drains_alone(home):
    with several(home, 2) as gateways:
        for _ in range(20):
            # A connection each: the kernel spreads connections, not requests.
            assert ask(gateways.url).status_code == 503
        boots = {path.name.split("-")[0] for path in home.spool.iterdir()}
        sums = [gateways.metrics() for _ in range(6)]
        leaver = gateways.processes["gateway-2"]
        leaver.send_signal(signal.SIGTERM)
        assert leaver.wait(timeout=60) == 0
        after = [ask(gateways.url).status_code for _ in range(20)]
        gateways.wait_until_up(["gateway"])
        left = gateways.metrics()
        gateways.processes["gateway-2"] = gateways.start("gateway-2")
        gateways.wait_until_up(gateways.names)

    assert len(boots) == 2
    for found in sums:
        assert sum(only(found, "modelyard_requests_total")) == 20
        assert only(found, "modelyard_gateway_up") == [1, 1]
    assert after == [503] * 20
    assert only(left, "modelyard_gateway_up", gateway="gateway-2") == [0]


def test_a_killed_gateway_leaves_the_port_to_the_others(home):
    with several(home, 2) as gateways:
        gateways.processes["gateway"].kill()
        gateways.processes["gateway"].wait()

        statuses = [ask(gateways.url).status_code for _ in range(20)]
        found = gateways.metrics()
        killed, other = (
            healthy.problem("gateway", home, {"MODELYARD_PROCESS": name})
            for name in gateways.names
        )

    assert statuses == [503] * 20
    assert only(found, "modelyard_gateway_up", gateway="gateway") == [0]
    assert "does not answer" in killed
    assert other == ""


def test_a_revoked_key_is_refused_by_every_gateway_within_a_second(home):
    headers = {"authorization": f"Bearer {KEY.token}"}
    with several(home, 2) as gateways, contextlib.ExitStack() as stack:
        # Enough connections that both gateways have some.
        clients = [
            stack.enter_context(
                httpx.Client(
                    base_url=gateways.url, headers=headers, timeout=30, verify=False
                )
            )
            for _ in range(16)
        ]

        def until_all_answer(status, sequence, **fields):
            """Publish, and measure how long it takes until every gateway knows it."""
            snapshot_file.write(
                home.snapshot,
                msgspec.structs.replace(published(), sequence=sequence, **fields),
            )
            written = time.monotonic()
            for client in clients:
                while client.post(PREDICT, json={}).status_code != status:
                    assert time.monotonic() < written + 60
            return time.monotonic() - written

        assert {client.post(PREDICT, json={}).status_code for client in clients} == {
            400
        }
        took_s = []
        for sequence in range(2, 8, 2):
            took_s.append(until_all_answer(401, sequence, keys=()))
            until_all_answer(400, sequence + 1)

    # An idle machine does this every time; a busy one at least once.
    assert min(took_s) < 1


def test_a_key_that_hammers_is_closed_by_every_gateway(home):
    limits = Limits(plan="p", rates=(Rate("sustained", 1, 60),))
    snapshot_file.write(home.snapshot, published(limits=limits))
    with several(home, 2) as gateways:
        # Begin when at least half of a minute is left, so that all falls into it.
        while time.time() % 60 > 30:
            time.sleep(0.5)
        headers = {"authorization": f"Bearer {KEY.token}"}
        with httpx.Client(base_url=gateways.url, headers=headers, timeout=30) as client:
            for _ in range(TOLERATED + 2):
                client.post(PREDICT, json={})
        answers = [ask(gateways.url) for _ in range(20)]
        boots = {
            event.id.split("-")[0]
            for path in home.spool.iterdir()
            for event, _ in read_events(path)
            if event.limit is not None and event.limit.name == "backoff"
        }
        found = gateways.metrics()

    errors = [answer.json()["error"] for answer in answers]
    assert {(error["code"], error["limit"]) for error in errors} == {
        ("RATE_LIMIT_EXCEEDED", "backoff")
    }
    # The wait ends at the same time in all gateways.
    assert len({error["resets_at"] for error in errors}) == 1
    assert len(boots) == 2
    assert sum(only(found, "modelyard_keys_backing_off")) == 1
