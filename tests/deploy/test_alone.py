"""Test processes as containers run them: number 1, and a root that nobody writes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from inference.installation.home import Home

ENTER = """
mount --make-rprivate / && mount -t proc proc /proc &&
mount --bind "$MODELYARD_HOME" "$MODELYARD_HOME" &&
if [ "$1" = ro ]; then mount -o remount,ro,bind "$MODELYARD_HOME"; fi && shift &&
mount -o remount,ro,bind / && exec "$@"
"""


def may_unshare():
    line = ["unshare", "--mount", "--pid", "--fork", "true"]
    return shutil.which("unshare") and not subprocess.call(line, stderr=-3)


pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not may_unshare(), reason="needs the rights to make namespaces"),
]


@pytest.fixture
def home():
    # Outside of pytest's folder, whose paths are too long for sockets.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        root = Path(folder) / "home"
        root.mkdir()
        root.chmod(0o2770)
        home = Home(root)
        home.prepare()
        yield home


def start(home, *command, read_only=False, **variables):
    settings = {
        "MODELYARD_HOME": str(home.root),
        "MODELYARD_NEEDS_VOLUME": "true",
        "MODELYARD_GRPC_PORT": "0",
        "LOG_TO": "stdout",
        "MODELYARD_PORT": str(free_port()),
        "MODELYARD_OPERATOR_PORT": str(free_port()),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }
    return subprocess.Popen(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *("sh", "-c", ENTER, "sh", "ro" if read_only else "rw"),
            *(sys.executable, "-m", *command),
        ],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    os.kill(int(children.split()[0]), signal.SIGTERM)
    output, _ = process.communicate(timeout=40)
    return process.returncode, output


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_gateway_runs_as_number_1_and_ends_when_it_is_told_to(home):
    port = free_port()
    process = start(home, "inference.gateway", MODELYARD_PORT=str(port))
    deadline = time.monotonic() + 60
    while True:
        try:
            assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    code, output = stop(process)

    assert code == 0
    assert '"event": "gateway_stopped"' in output


def test_a_gateway_that_cannot_write_its_home_ends_with_a_sentence(home):
    process = start(home, "inference.gateway", read_only=True)

    output, _ = process.communicate(timeout=60)

    assert process.returncode == 78
    assert "cannot be written (Read-only file system)" in output
