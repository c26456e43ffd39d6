"""The host with a zygote that does as it is told by the test."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from inference.engine import settings as engine_settings
from inference.engine.wire.orders import Forked
from inference.host import host as host_module
from inference.host import machine
from inference.host.host import EngineHost
from inference.installation.home import Home
from inference.placement import plan_file, report_file
from inference.placement.processes import EngineProcess, HostPlan
from tests.inference.host.plant import until


class Zygote:
    """Takes orders, or does not, and answers what it is told to."""

    takes = True

    def __init__(self, environment, folder, *, log):
        self.process = SimpleNamespace(pid=0, poll=lambda: None)
        self.waiting = []
        self.answers = []
        self._one, self._other = socket.socketpair()

    def fileno(self):
        return self._one.fileno()

    def ask(self, order):
        if self.takes:
            self.waiting.append(order.name)
        return self.takes

    def replies(self):
        answers, self.answers = self.answers, []
        return answers

    def close(self):
        self._one.close()
        self._other.close()


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    return home


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def zygotes(monkeypatch):
    made = []
    monkeypatch.setattr(
        host_module,
        "ZygoteLink",
        lambda *args, **kwargs: made.append(Zygote(*args, **kwargs)) or made[-1],
    )
    yield made
    for one in made:
        one.close()


@pytest.fixture
def host(home, zygotes, now):
    settings = engine_settings.from_environment({"MODELYARD_HOME": str(home.root)})
    host = EngineHost(home, ["cpu"], settings, clock=lambda: now[0])
    yield host
    for end in (host._woken, host._wake):
        end.close()


@pytest.fixture
def sleeper():
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    yield process
    process.kill()
    process.wait()


def reported(home, name):
    report = report_file.read(home.host_report)
    return next(it for it in report.processes if it.name == name)


def is_gone(pid):
    found = machine.stat(pid)
    return found is None or found.state == "Z"


def test_a_process_that_cannot_start_for_days_does_not_end_the_host(
    host, home, now, monkeypatch
):
    monkeypatch.setattr(Zygote, "takes", False)
    for _ in range(1100):
        host.tick()
        now[0] += 61.0
    host.tick()

    assert reported(home, "cpu").problem == (
        "It starts again in 60 s: its zygote took no more orders."
    )


def test_an_engine_that_the_plan_dropped_meanwhile_is_ended(
    host, home, zygotes, sleeper, now
):
    plan_file.write(
        home.host_plan, HostPlan((EngineProcess("risk", device="cpu", kind="own"),))
    )
    host.tick()
    plan_file.write(home.host_plan, HostPlan())
    host.tick()

    zygotes[0].answers.append(Forked("risk", sleeper.pid))
    for _ in range(3):
        host.tick()
        now[0] += 1.0

    until(lambda: is_gone(sleeper.pid))


def test_an_engine_that_was_asked_for_twice_runs_once(host, zygotes, sleeper, now):
    second = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    host.tick()

    zygotes[0].answers += [Forked("cpu", sleeper.pid), Forked("cpu", second.pid)]
    for _ in range(3):
        host.tick()
        now[0] += 1.0

    until(lambda: is_gone(second.pid))
    second.wait()
    assert not is_gone(sleeper.pid)


def test_what_processes_that_are_gone_left_is_removed(host, home, now):
    left = home.scratch("risk-1a2b3c") / "file"
    left.parent.mkdir(parents=True)
    left.touch()
    logs = {name: home.engine_log(name) for name in ("cpu", "risk-1a2b3c.1", "new")}
    for log in logs.values():
        log.touch()
    for name in ("cpu", "risk-1a2b3c.1"):
        os.utime(logs[name], (0, 0))

    host.tick()

    assert not left.parent.exists()
    assert {name for name, log in logs.items() if log.exists()} == {"cpu", "new"}
