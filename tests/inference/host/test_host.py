"""The host with a zygote that does as it is told by the test."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from inference.engine import settings as engine_settings
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.notes import SharedNotes
from inference.engine.wire.orders import Forked
from inference.host import host as host_module
from inference.host import machine
from inference.host.host import EngineHost
from inference.installation.home import Home
from inference.placement import plan_file, report_file
from inference.placement.processes import EngineProcess, HostPlan
from tests.waiting import wait_until


class Zygote:
    """Takes orders, or does not, and answers what it is told to."""

    takes = True

    def __init__(self, environment, folder, *, log):
        self.process = SimpleNamespace(pid=0, poll=lambda: None, kill=self.die)
        self.environment = environment
        self.ready = self.works = True
        self.stopped = False
        self.killed = False
        self.waiting = []
        self.answers = []
        self._one, self._other = socket.socketpair()

    def die(self):
        self.killed = True

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
    # So many that two to their power is no float; each tick reads files.
    host.tick()
    host._children["cpu"].deaths = 1100
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

    wait_until(lambda: is_gone(sleeper.pid))


def test_an_engine_that_was_asked_for_twice_runs_once(host, zygotes, sleeper, now):
    second = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    host.tick()

    zygotes[0].answers += [Forked("cpu", sleeper.pid), Forked("cpu", second.pid)]
    for _ in range(3):
        host.tick()
        now[0] += 1.0

    wait_until(lambda: is_gone(second.pid))
    second.wait()
    assert not is_gone(sleeper.pid)


def test_a_zygote_that_is_stopped_is_ended(host, zygotes, sleeper, now):
    host.tick()
    zygotes[0].process.pid = sleeper.pid
    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_until(lambda: machine.stat(sleeper.pid).state == "T")

    now[0] += 1.0
    host.tick()
    assert not zygotes[0].killed

    now[0] += 1.0
    host.tick()
    assert zygotes[0].killed


def test_a_zygote_that_does_not_answer_is_ended(host, home, zygotes, now):
    host.tick()
    now[0] += 121.0
    host.tick()

    assert zygotes[0].killed
    assert "its zygote did not answer" in reported(home, "cpu").problem


@pytest.mark.parametrize("had_started", [False, True])
def test_no_version_is_named_if_its_process_could_not_start(
    host, home, zygotes, now, had_started
):
    """Exit code 78: its device is gone, or another process has its name."""
    version = VersionToLoad(
        key=VersionKey("risk", 1), path="/a", flavors=(), signature={}
    )
    own = EngineProcess("risk", device="cpu", kind="own", versions=(version,))
    plan_file.write(home.host_plan, HostPlan((own,)))
    host.tick()
    child = subprocess.Popen(["sh", "-c", "exit 78"])
    zygotes[0].answers.append(Forked("risk", child.pid))
    if had_started:
        notes = SharedNotes(home.engine_notes("risk"))
        notes.beat()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    host.tick()
    child.returncode = 78  # the host has waited for it

    [death] = report_file.read(home.host_report).deaths
    assert death.exit_code == 78
    assert death.version == (version.key if had_started else None)


def test_what_processes_that_are_gone_left_is_removed(host, home, now):
    left = home.scratch("risk-1a2b3c") / "file"
    left.parent.mkdir(parents=True)
    left.touch()
    logs = {name: home.engine_log(name) for name in ("cpu", "risk-1a2b3c.1", "new")}
    for log in logs.values():
        log.touch()
    for name in ("cpu", "risk-1a2b3c.1"):
        os.utime(logs[name], (0, 0))

    locks = [home.engine / f"{name}.lock" for name in ("cpu", "held", "gone")]
    for lock in locks:
        lock.touch()

    with locks[1].open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        host.tick()

    assert not left.parent.exists()
    assert {name for name, log in logs.items() if log.exists()} == {"cpu", "new"}
    assert {lock.name for lock in locks if lock.exists()} == {"cpu.lock", "held.lock"}
