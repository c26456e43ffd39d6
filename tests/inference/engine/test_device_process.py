"""Test that an engine ends at once if its device fails, and that another starts."""

import json
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from config.processes.supervisor import ProcessSpec, Supervisor
from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError
from inference.engine.wire.tensors import Tensor
from inference.installation.home import Home

pytestmark = pytest.mark.processes

_ROOT = Path(__file__).parents[3]
_ROWS = (Tensor("input", np.ones((1, 3), np.float32)),)


@pytest.fixture
def supervised(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    spec = ProcessSpec(
        "engine-fake-0",
        (
            *(sys.executable, "-m", "tests.inference.engine.devices.failing_engine"),
            *("--device", "fake:0"),
        ),
        stop_phase=1,
        environment={
            "MODELYARD_HOME": str(tmp_path),
            "MODELYARD_ENGINE_PLUGINS": "",
            "PYTHONPATH": str(_ROOT),
        },
    )
    supervisor = Supervisor((spec,), home=home)
    supervisor.start()
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    yield supervisor, home
    supervisor.request_stop()
    thread.join(60)


def answer_within(client, version, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return client.predict(PredictionCall(version.key, _ROWS, timeout_s=60))
        except EngineError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def load_within(client, version, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return client.load(version)
        except EngineError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def events(path, name):
    lines = [line for line in path.read_text().splitlines() if line.startswith("{")]
    found = [json.loads(line) for line in lines]
    return [
        datetime.fromisoformat(event["timestamp"])
        for event in found
        if event["event"] == name
    ]


def test_an_engine_on_a_failed_device_ends_and_another_takes_over(supervised, version):
    supervisor, home = supervised
    client = BlockingEngineClient(home.engine_socket("fake-0"))
    load_within(client, version, 120)
    answer_within(client, version, 120)
    first = supervisor.pids()["engine-fake-0"]

    (home.root / "poison").touch()
    with capture_logs() as logs:
        with pytest.raises(EngineError):
            client.predict(PredictionCall(version.key, _ROWS, timeout_s=60))
        answer = answer_within(client, version, 120)

    assert answer.tensors[0].data.tolist() == [[3.0, -3.0]]
    assert supervisor.pids()["engine-fake-0"] != first
    assert [log["status"] for log in logs if log["event"] == "process_died"] == [70]
    log = supervisor.log_path("engine-fake-0")
    [failed], [stopped] = events(log, "device_failed"), events(log, "stopped")
    assert (stopped - failed).total_seconds() < 1
    client.close()
