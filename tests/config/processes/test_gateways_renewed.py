"""Gateways of new code take over from old ones, and no connection is refused or cut."""

import sys
import time

import msgspec
import pytest

from accounts.admission.limits import Limits
from benchmarks.ports import free_port
from config.processes.supervisor import ProcessSpec, Supervisor
from inference.gateway.settings import gateway_names
from inference.installation.home import Home
from inference.snapshot import snapshot_file
from tests.callers import Callers
from tests.inference.gateway.plant import KEY, PREDICT, published

pytestmark = pytest.mark.processes


def specs(home, count):
    port = free_port()
    environment = {
        "MODELYARD_HOME": str(home.root),
        "MODELYARD_PORT": str(port),
        "MODELYARD_OPERATOR_PORT": str(free_port()),
        "MODELYARD_GRPC_PORT": "0",
        "MODELYARD_GATEWAYS": str(count),
    }
    return port, tuple(
        ProcessSpec(
            name,
            (sys.executable, "-m", "inference.gateway"),
            stop_phase=1,
            environment=environment,
            sign_of_work=f"{name}.*.sock",
            overlaps=count == 1,
        )
        for name in gateway_names(count)
    )


@pytest.mark.parametrize("count", [1, 2])
def test_no_call_fails_while_gateways_are_replaced(tmp_path, count):
    home = Home(tmp_path)
    home.prepare()
    snapshot_file.write(home.snapshot, published(limits=Limits(plan="p", rates=())))
    port, table = specs(home, count)
    url = f"http://127.0.0.1:{port}{PREDICT}"
    headers = {"authorization": f"Bearer {KEY.token}"}
    printed = msgspec.json.encode(table).decode()
    supervisor = Supervisor(
        table, home=home, process_table=(sys.executable, "-c", f"print({printed!r})")
    )
    supervisor.start()
    try:
        deadline = time.monotonic() + 60
        while len(list(home.run.glob("gateway*.sock"))) < count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        before = supervisor.pids()

        def call(client):
            # An empty call is answered with 400.
            return client.post(url, json={}, headers=headers)

        with Callers(call, call, expected=400, pause_s=0.005) as callers:
            time.sleep(0.3)
            supervisor.request_renewal()
            supervisor.tend()
            while supervisor._renewing is not None:
                assert time.monotonic() < deadline + 100
                supervisor.tend()
                time.sleep(0.02)
            time.sleep(0.3)
        after = supervisor.pids()
    finally:
        supervisor.stop()

    assert callers.failures == []
    assert callers.calls > 20
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
