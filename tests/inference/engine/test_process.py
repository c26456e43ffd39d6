"""Test the real process: it starts, drains, is killed, and restarts alone."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.clients.socket_client import SocketEngineClient
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Tensor
from inference.installation.home import Home
from tests.inference.engine.fakes import run

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
ROWS = (Tensor("input", np.ones((1, 3), np.float32)),)


@pytest.fixture
def start(tmp_path):
    processes = []

    def start_():
        process = subprocess.Popen(
            [sys.executable, "-m", "inference.engine"],
            cwd=ROOT,
            env=os.environ
            | {"MODELYARD_HOME": str(tmp_path), "MODELYARD_ENGINE_PLUGINS": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start_
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_ready(client, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            status = client.status()
        except EngineError:
            continue  # not there yet
        if [v.state for v in status.versions] == ["ready"]:
            return
        time.sleep(0.02)
    raise AssertionError("the engine did not become ready")


def wait_listening(client):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            return client.status()
        except EngineError:
            time.sleep(0.02)
    raise AssertionError("the engine does not listen")


def test_it_serves_survives_a_kill_and_drains(start, tmp_path, version):
    path = Home(tmp_path).engine_socket("cpu")
    client = BlockingEngineClient(path)
    first = start()
    wait_listening(client)
    client.load(version)
    wait_ready(client)
    assert (
        client.predict(PredictionCall(version.key, ROWS, timeout_s=60))
        .tensors[0]
        .data[0, 0]
        == 3
    )

    first.kill()
    first.wait()
    with pytest.raises(EngineError) as caught:
        client.predict(PredictionCall(version.key, ROWS, timeout_s=60))
    assert caught.value.code is EngineErrorCode.CONNECTION_LOST

    second = start()
    wait_ready(client)
    assert (
        client.predict(PredictionCall(version.key, ROWS, timeout_s=60))
        .tensors[0]
        .data[0, 0]
        == 3
    )

    async def calls_through_the_end():
        socket_client = SocketEngineClient(path)
        await socket_client.predict(PredictionCall(version.key, ROWS, timeout_s=60))
        calls = [
            asyncio.create_task(
                socket_client.predict(PredictionCall(version.key, ROWS, timeout_s=60))
            )
            for _ in range(200)
        ]
        await asyncio.sleep(0)
        second.send_signal(signal.SIGTERM)
        results = await asyncio.gather(*calls, return_exceptions=True)
        await socket_client.close()
        return results

    results = run(calls_through_the_end())

    assert second.wait(60) == 0
    # Accepted requests are answered, later ones refused; none is lost.
    for result in results:
        if isinstance(result, EngineError):
            assert result.code is EngineErrorCode.DRAINING
        else:
            assert result.tensors[0].data[0, 0] == 3
    events = [line for line in second.stdout if '"event"' in line]
    assert any('"listening"' in line for line in events)
    assert any('"stopped"' in line for line in events)
    client.close()


def test_a_device_that_is_not_there_is_refused_by_name(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "inference.engine", "--device", "cuda:99"],
        cwd=ROOT,
        env=os.environ | {"MODELYARD_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 78
    assert "There is no device cuda:99 here; there is c" in process.stderr


def test_a_second_engine_for_the_device_is_refused(start, tmp_path):
    client = BlockingEngineClient(Home(tmp_path).engine_socket("cpu"))
    start()
    wait_listening(client)

    assert start().wait(60) == 78

    assert client.status().device == "cpu"
    client.close()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        (
            "inference.engine.clients.client",
            ("torch", "django", "mlflow", "shap", "pandas"),
        ),
        ("inference.engine.__main__", ("torch", "django", "mlflow", "shap")),
        ("inference.engine.engine", ("torch", "django", "mlflow", "accounts")),
    ],
)
def test_heavy_libraries_wait_until_they_are_needed(module, absent):
    code = (
        f"import sys, {module}; "
        f"print([name for name in {absent!r} if name in sys.modules])"
    )

    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True
    ).stdout

    assert output.strip() == b"[]"
