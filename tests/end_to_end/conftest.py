"""Start one real Modelyard from nothing, as `make run` does."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
# Long enough for a busy machine.
PATIENCE_S = 180


@dataclass
class Installation:
    """A folder and ports on which a Modelyard can be started again and again."""

    home: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MODELYARD_", "MLFLOW_", "DJANGO_", "PYTEST_"))
        }
        return {
            **inherited,
            "MODELYARD_HOME": str(self.home),
            "MODELYARD_PORT": str(self.port),
            "MODELYARD_OPERATOR_PORT": str(self.port + 1),
        }

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "manage.py", "quickstart"],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def demo(self) -> dict[str, Any]:
        return json.loads((self.home / "demo.json").read_text())

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Run all tests of the demo in one worker: it takes a minute to start."""
    for item in items:
        if "modelyard" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("modelyard"))
            item.add_marker(pytest.mark.timeout(900))


def free_ports() -> int:
    """Return a free port; the next two, for operators and gRPC, are free too."""
    return free_port(3)


def listen(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines that a process prints from now on; they grow as it goes on."""
    said: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            said.extend(lines)

    threading.Thread(target=read, daemon=True).start()
    return said


def read_card(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines that quickstart prints, up to the end of its card."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ctrl-C stops everything"):
            return lines
    pytest.fail("quickstart ended early:\n" + "\n".join(lines))


def stop(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Send SIGTERM and return the descendants that were alive before it."""
    if process.poll() is not None:
        return []
    members = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=PATIENCE_S)
    return members


@dataclass
class FirstRun:
    """What was seen when it was set up, stopped and started again."""

    card: list[str]
    survivors: list[psutil.Process]
    process_count: int
    took_s: float
    second_took_s: float
    second_card: list[str]


@dataclass
class Running:
    installation: Installation
    first_run: FirstRun
    client: httpx.Client
    process: subprocess.Popen[str]
    # What it printed after its card.
    said: list[str]

    def require_alive(self) -> None:
        """Fail with its last words if it has ended, instead of at each call."""
        status = self.process.poll()
        if status is not None:
            words = "".join(self.said[-40:])
            pytest.fail(f"the demo ended with {status}:\n{words}", pytrace=False)

    @property
    def card(self) -> list[str]:
        return self.first_run.second_card

    @property
    def demo(self) -> dict[str, Any]:
        return self.installation.demo

    def rows(self, model: str) -> list[Any]:
        return self.demo["models"][model]["instances"]

    def headers(self, token: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self.demo['api_key']}"}

    def predict(
        self, model: str = "breast-cancer", *, token: str | None = None, **body: Any
    ) -> httpx.Response:
        body.setdefault("instances", self.rows(model)[:1])
        return self.client.post(
            f"/api/v1/models/{model}/predict", json=body, headers=self.headers(token)
        )

    def asking(self, model: str) -> Callable[[httpx.Client], httpx.Response]:
        """Return a function that asks a model on another client, without a limit."""
        url = f"{self.demo['base_url']}/api/v1/models/{model}/predict"
        body = {"instances": self.rows(model)[:1]}
        headers = self.headers(self.demo["bench_api_key"])
        return lambda client: client.post(url, json=body, headers=headers)


@pytest.fixture(scope="session")
def modelyard(tmp_path_factory):
    """Set Modelyard up, stop it and start it again: the second one serves the tests."""
    installation = Installation(tmp_path_factory.mktemp("home"), free_ports())
    started = time.monotonic()
    process = installation.start()
    try:
        card = read_card(process)
        listen(process)
        took_s = time.monotonic() - started
        members = stop(process)
        # Their supervisor is gone, so the system may need a moment to end the last.
        _, survivors = psutil.wait_procs(members, timeout=3)
        started = time.monotonic()
        process = installation.start()
        second_card = read_card(process)
        said = listen(process)
        first_run = FirstRun(
            card,
            survivors,
            len(members),
            took_s,
            time.monotonic() - started,
            second_card,
        )
        base_url = installation.demo["base_url"]
        with httpx.Client(base_url=base_url, timeout=60) as client:
            yield Running(installation, first_run, client, process, said)
    finally:
        stop(process)


@pytest.fixture(autouse=True)
def demo_is_alive(request):
    """Say why it has ended, once for each test that needs it."""
    if "modelyard" in request.fixturenames:
        request.getfixturevalue("modelyard").require_alive()
