import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from config.processes.supervisor import ProcessSpec, Supervisor
from inference.installation.home import Home
from tests.waiting import wait_until


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


def sleeper(name, stop_phase=1, code="import time; time.sleep(300)"):
    return ProcessSpec(name, (sys.executable, "-c", code), stop_phase)


def test_dead_process_is_started_again(home):
    supervisor = Supervisor((sleeper("a"),), home=home)
    supervisor.start()
    first = supervisor.pids()["a"]

    os.kill(first, signal.SIGKILL)

    def restarted():
        supervisor.tend()
        return supervisor.pids().get("a", first) != first

    wait_until(restarted)
    assert supervisor.deaths() == {"a": 1}
    supervisor.stop()


def test_a_process_may_let_others_start_first(home):
    ready = []
    late = replace(sleeper("late"), starts_late=True)
    supervisor = Supervisor(
        (sleeper("a"), late), home=home, started=lambda: bool(ready)
    )

    supervisor.start()
    supervisor.tend()
    before = set(supervisor.pids())
    ready.append(True)
    supervisor.tend()
    after = set(supervisor.pids())

    supervisor.stop()
    assert before == {"a"}
    assert after == {"a", "late"}


def test_it_does_not_wait_for_ever(home):
    now = [0.0]
    late = replace(sleeper("late"), starts_late=True)
    supervisor = Supervisor(
        (late,), home=home, clock=lambda: now[0], started=lambda: False
    )

    supervisor.start()
    now[0] = 60.0
    supervisor.tend()
    pids = supervisor.pids()

    supervisor.stop()
    assert set(pids) == {"late"}


def test_stop_ends_every_process_and_what_it_left_in_its_group(home):
    stubborn = (
        "import signal, subprocess, sys, time;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']);"
        "print(p.pid, flush=True); time.sleep(300)"
    )
    spec = ProcessSpec("b", (sys.executable, "-c", stubborn), 2, stop_timeout_s=0.5)
    supervisor = Supervisor((sleeper("a"), spec), home=home)
    supervisor.start()
    wait_until(lambda: supervisor.log_path("b").read_text().strip())
    pids = [
        *supervisor.pids().values(),
        int(supervisor.log_path("b").read_text()),
    ]

    supervisor.stop()

    wait_until(lambda: not any(alive(pid) for pid in pids))
    assert supervisor.pids() == {}


def test_processes_end_when_their_supervisor_is_killed(home):
    code = (
        "import sys, time; sys.path[:0] = ['.', 'platform'];"
        "from config.processes.supervisor import Supervisor, ProcessSpec;"
        "from inference.installation.home import Home; from pathlib import Path;"
        f"home = Home(Path({str(home.root)!r}));"
        "s = Supervisor((ProcessSpec('a', (sys.executable, '-c',"
        " 'import time; time.sleep(300)'), 1),), home=home);"
        "s.start(); print(s.pids()['a'], flush=True); time.sleep(300)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        line = ""
        while not line.strip().isdigit():
            line = supervisor.stdout.readline()
        child = int(line)

        supervisor.kill()

    wait_until(lambda: not alive(child))


def test_a_log_stays_within_its_size_while_its_process_runs(home):
    # A line in one write, as logging does it; `print` may take two.
    code = "import os\nwhile True: os.write(1, b'x' * 99 + b'\\n')"
    spec = ProcessSpec("a", (sys.executable, "-c", code), 1)
    supervisor = Supervisor((spec,), home=home, log_bytes=20_000)
    supervisor.start()
    pid, log = supervisor.pids()["a"], supervisor.log_path("a")
    rotated = log.with_suffix(".log.1")

    def rotated_again():
        supervisor.tend()
        return rotated.exists() and rotated.stat().st_mtime_ns != first

    first = None
    wait_until(rotated_again)
    first = rotated.stat().st_mtime_ns
    wait_until(rotated_again)
    supervisor.stop()

    # The process was not restarted.
    assert supervisor.deaths() == {"a": 0}
    *lines, last = rotated.read_text().splitlines()
    assert set(lines) == {"x" * 99}
    # The copy may catch half a write, at the border of two memory pages.
    assert last == "x" * len(last)
    assert pid


def test_logs_may_go_where_the_supervisors_go(home, capfd):
    spec = ProcessSpec("a", (sys.executable, "-c", "print('a line')"), 1)
    supervisor = Supervisor((spec,), home=home, log_to_files=False)

    supervisor.start()
    wait_until(lambda: supervisor.tend() or supervisor.deaths()["a"])
    supervisor.stop()

    assert "a line" in capfd.readouterr().out
    assert not list(home.logs.iterdir())


def test_hidden_variables_do_not_reach_the_process(home, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "canary")
    code = "import os; print('SECRET_KEY' in os.environ, flush=True)"
    spec = ProcessSpec(
        "a", (sys.executable, "-c", code), 1, hidden=frozenset({"SECRET_KEY"})
    )
    supervisor = Supervisor((spec,), home=home)

    supervisor.start()

    wait_until(lambda: supervisor.log_path("a").read_text().strip())
    supervisor.stop()
    assert supervisor.log_path("a").read_text().strip() == "False"


AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@pytest.mark.skipif(
    not AUTOGROUP.exists() or AUTOGROUP.read_text().strip() != "1",
    reason="sessions do not share the processors here",
)
def test_background_work_stands_back_for_other_sessions_too(home):
    code = """
import os
print(os.nice(0), open("/proc/self/autogroup").read().split()[-1], flush=True)
"""
    specs = [
        ProcessSpec(name, (sys.executable, "-c", code), 1, nice=nice)
        for name, nice in (("a", 7), ("b", 0), ("c", 12))
    ]
    supervisor = Supervisor(tuple(specs), home=home)

    supervisor.start()

    for spec in specs:
        wait_until(lambda spec=spec: supervisor.log_path(spec.name).read_text().strip())
    supervisor.stop()
    here = os.nice(0)
    for spec in specs:
        process, session = supervisor.log_path(spec.name).read_text().split()[:2]
        assert int(process) == min(here + spec.nice, 19)
        assert int(session) == spec.nice


def works(name, sign, seconds=0.0):
    """Return a process that says so in a file when it works, and notes each start."""
    code = (
        "import pathlib, sys, time;"
        f"time.sleep({seconds}); pathlib.Path({str(sign)!r}).touch();"
        "time.sleep(300)"
    )
    return ProcessSpec(
        name, (sys.executable, "-c", code), 1, sign_of_work=sign.name, renew_phase=1
    )


def table(*specs, code=0):
    data = msgspec.json.encode(specs).decode()
    return (
        sys.executable,
        "-c",
        f"import sys; print({data!r}); print('no', file=sys.stderr); sys.exit({code})",
    )


def renewed(supervisor):
    supervisor.request_renewal()
    supervisor.tend()
    seen = []
    deadline = time.monotonic() + 60
    while supervisor._renewing is not None:
        assert time.monotonic() < deadline
        supervisor.tend()
        seen.append(set(supervisor.pids()))
        time.sleep(0.01)
    return seen


def test_renewal_replaces_one_process_after_another(home):
    first, second = (works(name, home.run / name) for name in "ab")
    third = works("c", home.run / "c")
    supervisor = Supervisor(
        (first, second), home=home, process_table=table(second, third)
    )
    supervisor.start()
    wait_until(lambda: (home.run / "a").exists() and (home.run / "b").exists())
    before = supervisor.pids()

    seen = renewed(supervisor)

    after = supervisor.pids()
    assert set(after) == {"b", "c"}
    assert after["b"] != before["b"]
    assert not alive(before["a"])
    # The one that goes does so after the others work.
    assert {"a", "b", "c"} in seen
    assert supervisor.deaths() == {"b": 0, "c": 0}
    supervisor.stop()


def test_a_renewal_that_is_refused_changes_nothing(home):
    supervisor = Supervisor(
        (sleeper("a"),), home=home, process_table=table(sleeper("b"), code=1)
    )
    supervisor.start()
    before = supervisor.pids()

    renewed(supervisor)

    assert supervisor.pids() == before
    supervisor.stop()


def test_a_table_of_processes_that_cannot_be_read_is_refused(home):
    chatty = (sys.executable, "-c", "print('Warning: an old setting.\\n[]')")
    supervisor = Supervisor((sleeper("a"),), home=home, process_table=chatty)
    supervisor.start()
    before = supervisor.pids()

    renewed(supervisor)

    assert supervisor.pids() == before
    supervisor.stop()


def test_a_process_stays_if_its_successor_cannot_be_started(home):
    former = replace(works("a", home.run / "a"), overlaps=True)
    missing = replace(former, command=(str(home.run / "missing"),))
    supervisor = Supervisor((former,), home=home, process_table=table(missing))
    supervisor.start()
    wait_until((home.run / "a").exists)
    before = supervisor.pids()

    renewed(supervisor)

    assert supervisor.pids() == before
    assert alive(before["a"])
    supervisor.stop()


def test_a_process_that_cannot_be_started_ends_no_other_and_is_tried_again(home):
    supervisor = Supervisor((sleeper("a"), sleeper("b")), home=home)
    # As with a full disk: there is no room for a new log.
    supervisor.log_path("a").mkdir()

    supervisor.start()
    before = supervisor.pids()
    supervisor.log_path("a").rmdir()

    def started():
        supervisor.tend()
        return "a" in supervisor.pids()

    wait_until(started)
    assert set(before) == {"b"}
    assert supervisor.pids()["b"] == before["b"]
    supervisor.stop()


def test_a_renewal_ends_at_a_process_that_does_not_work(home):
    broken = ProcessSpec("a", (sys.executable, "-c", "0/0"), 1, sign_of_work="a.never")
    good = sleeper("b")
    supervisor = Supervisor(
        (sleeper("a"), good), home=home, process_table=table(broken, good)
    )
    supervisor.start()
    before = supervisor.pids()

    renewed(supervisor)

    assert supervisor.pids()["b"] == before["b"]
    supervisor.stop()


def test_a_sign_of_work_that_vanishes_while_it_is_looked_at_is_none(home):
    # A new gateway removes the socket of its predecessor.
    (home.run / "a.1.sock").symlink_to(home.run / "gone")
    spec = replace(works("a", home.run / "a.2.sock"), sign_of_work="a.*.sock")
    supervisor = Supervisor((spec,), home=home, process_table=table(spec))
    supervisor.start()
    before = supervisor.pids()

    renewed(supervisor)

    assert supervisor.pids()["a"] != before["a"]
    supervisor.stop()


def test_a_process_that_renews_itself_gets_a_signal(home):
    code = (
        "import pathlib, signal, time;"
        f"got = pathlib.Path({str(home.run / 'got')!r});"
        "signal.signal(signal.SIGHUP, lambda *_: got.touch());"
        f"pathlib.Path({str(home.run / 'up')!r}).touch();"
        "time.sleep(300); time.sleep(300)"
    )
    spec = ProcessSpec("a", (sys.executable, "-c", code), 1, renews_itself=True)
    supervisor = Supervisor((spec,), home=home, process_table=table(spec))
    supervisor.start()
    wait_until(lambda: (home.run / "up").exists())
    before = supervisor.pids()

    renewed(supervisor)

    wait_until(lambda: (home.run / "got").exists())
    assert supervisor.pids() == before
    supervisor.stop()
