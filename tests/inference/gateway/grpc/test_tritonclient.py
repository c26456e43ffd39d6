"""The Open Inference Protocol, tested with NVIDIA's clients."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from inference.gateway.grpc.server import GrpcServer, GrpcSettings
from tests.inference.gateway.plant import KEY, Plant, listening

SCRIPT = Path(__file__).parent / "tritonclient_calls.py"
DOUBLED = [[3.0], [5.0]]
INPUTS = [{"name": "input", "datatype": "FP32", "shape": [-1, 1]}]
OUTPUTS = [{"name": "output", "datatype": "FP32", "shape": [-1, 1]}]


@pytest.fixture
def ports(tmp_path):
    """Serve a plant on a thread; yield its HTTP and its gRPC port."""
    found = []
    started, stop = threading.Event(), None

    async def serve():
        nonlocal stop
        stop = asyncio.Event()
        plant = Plant(tmp_path)
        await plant.engines.ask()
        grpc_server = GrpcServer(
            plant.driver, GrpcSettings(max_message_bytes=1_000_000)
        )
        await grpc_server.start()
        async with listening(plant.listener) as port:
            found.extend((port, grpc_server.port))
            started.set()
            await stop.wait()
        await grpc_server.stop(0)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(60)
    yield tuple(found)
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


def calls(kind, port):
    process = subprocess.run(
        [sys.executable, str(SCRIPT), kind, f"127.0.0.1:{port}", KEY.token],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_tritonclient_over_http(ports):
    found = calls("http", ports[0])

    assert found["live"]
    assert found["ready"]
    assert found["model_ready"]
    assert found["name"] == "modelyard"
    assert found["inputs"] == INPUTS
    assert found["outputs"] == OUTPUTS
    assert [entry["state"] for entry in found["index"]] == ["READY"]
    for sent in ("json", "raw"):
        for asked in ("all", "json", "raw"):
            assert found[f"{sent} in, {asked} out"] == DOUBLED
    assert found["best"] == ["3.000000:0", "5.000000:0"]
    assert found["async"] == [DOUBLED] * 5
    assert found["no key"][1].startswith("UNAUTHENTICATED: ")
    assert found["no model"][0] == "404"
    assert found["nan"][0] == "422"
    assert found["gzip"][0] == "415"


def test_tritonclient_over_grpc(ports):
    found = calls("grpc", ports[1])

    assert found["live"]
    assert found["ready"]
    assert found["model_ready"]
    assert found["name"] == "modelyard"
    assert found["inputs"] == INPUTS
    assert found["outputs"] == OUTPUTS
    assert found["infer"] == DOUBLED
    assert found["best"] == ["3.000000:0", "5.000000:0"]
    assert found["stream"][0] == DOUBLED
    assert found["stream"][1].startswith("NOT_FOUND: ")
    assert found["stream"][2] == DOUBLED
    assert found["no key"][0] == "StatusCode.UNAUTHENTICATED"
    assert found["no model"][0] == "StatusCode.NOT_FOUND"
    assert found["gzip"] == DOUBLED
    assert found["gzip without a key"]
