"""Test that a sandboxed process neither reads, ends nor slows down others."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from inference.installation import system_calls
from tests.inference.engine.sandbox.child import ROOT, inside


@pytest.fixture
def other():
    """A process with a secret in its environment, and privileges as those inside."""
    code = (
        "from inference.engine.sandbox import privileges\n"
        "privileges.give_up()\n"
        "print(flush=True)\n"
        "input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PASSWORD": "credentials"},
        start_new_session=True,
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.stdin.close()
    process.stdout.close()
    process.wait()


def read(path):
    return Path(path).read_bytes().decode()


def read_link(path):
    return os.readlink(path)


@pytest.mark.parametrize("name", ["environ", "mem", "maps", "auxv"])
def test_it_reads_nothing_private_of_another_process(rules, other, name):
    for pid in (other.pid, os.getpid()):
        result = inside(read, f"/proc/{pid}/{name}", rules=rules)

        assert result.error == "PermissionError"
    assert "credentials" in Path(f"/proc/{other.pid}/environ").read_text()


@pytest.mark.parametrize("name", ["cwd", "root", "fd/0"])
def test_it_follows_no_link_of_another_process(rules, other, name):
    result = inside(read_link, f"/proc/{other.pid}/{name}", rules=rules)

    assert result.error == "PermissionError"


def send(pid, number):
    os.kill(pid, number)


def send_by_descriptor(pid, number):
    signal.pidfd_send_signal(os.pidfd_open(pid), number)


def send_to_group(pid, number):
    os.killpg(os.getpgid(pid), number)


@pytest.mark.parametrize("way", [send, send_by_descriptor, send_to_group])
def test_it_sends_no_signal_to_another_process(rules, other, way):
    for number in (0, signal.SIGSTOP, signal.SIGKILL):
        result = inside(way, other.pid, number, rules=rules)

        assert result.error == "PermissionError"
    assert other.poll() is None


def send_to_parent():
    os.kill(os.getppid(), signal.SIGKILL)


def test_it_does_not_end_its_parent(rules):
    assert inside(send_to_parent, rules=rules).error == "PermissionError"


def end_own_child():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child.kill()
    child.stdin.close()
    return child.wait()


def test_it_ends_its_own_child(rules):
    assert inside(end_own_child, rules=rules).value == -signal.SIGKILL


def bound(pid):
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))


def slow_down(pid):
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    os.sched_setaffinity(pid, {max(os.sched_getaffinity(0))})


def test_it_bounds_and_slows_down_no_other_process(rules, other):
    def state():
        return (
            resource.prlimit(other.pid, resource.RLIMIT_NOFILE),
            os.getpriority(os.PRIO_PROCESS, other.pid),
            os.sched_getaffinity(other.pid),
        )

    before = state()

    assert inside(bound, other.pid, rules=rules).error == "PermissionError"
    inside(slow_down, other.pid, rules=rules)

    assert state() == before


def slow_itself_down():
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    return [
        os.getpriority(os.PRIO_PROCESS, 0),
        len(os.sched_getaffinity(0)),
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    ]


def test_it_may_slow_itself_down(rules):
    assert inside(slow_itself_down, rules=rules).value == [19, 1, 100]


# Calls by number on x86-64, each with arguments that do no harm where it is allowed.
CALLS = {
    "ptrace": (101, 0, 0, 0),
    "process_vm_readv": (310, 0, 0, 0, 0, 0, 0),
    "unshare": (272, 0),
    "setns": (308, -1, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, 0, 0, 0),
    "keyctl": (250, 0, -2, 0),
    "io_uring_setup": (425, 0, 0),
    "pidfd_getfd": (438, -1, 0, 0),
    "shmget": (29, 0, 0, 0),
    "mq_unlink": (241, 0),
    "inotify_add_watch": (254, -1, 0, 0),
    "clone with a namespace for users": (56, 0x1000_0000, 0, 0, 0, 0),
    "the same call by x32's numbers": (0x4000_0000 | 101, 0, 0, 0),
    "prlimit of process 1": (302, 1, 7, 1, 0),
    "TIOCSTI": (16, 0, 0x5412, 0),
}


def call(number, *arguments):
    return system_calls.call(number, *arguments)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize("name", CALLS)
def test_it_makes_no_dangerous_call(rules, name):
    assert inside(call, *CALLS[name], rules=rules).error == "PermissionError"


def privileges():
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":\t") for line in lines if ":\t" in line)
    names = ("NoNewPrivs", "CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")
    return [int(found[name], 16) for name in names]


def privileges_of_child():
    code = (
        "import json\n"
        "from tests.inference.engine.sandbox.test_processes import privileges\n"
        "print(json.dumps(privileges()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_it_has_no_privileges_of_root(rules):
    kept = 1 << 1 if os.geteuid() == 0 else 0

    value = inside(privileges, rules=rules).value

    assert value[:4] == [1, kept, kept, 0]
    assert value[4] in (0, 1 << 1)
    assert value[5] == 0
    # Nor has root in a program that it starts.
    assert json.loads(inside(privileges_of_child, rules=rules).value) == value


def become(user):
    os.setuid(user)


def raise_limit():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))


def test_it_becomes_no_other_user_and_raises_no_limit(rules):
    assert inside(become, os.getuid() + 1, rules=rules).error == "PermissionError"
    assert inside(raise_limit, rules=rules).error == "ValueError"


def open_many():
    with contextlib.ExitStack() as files:
        for _ in range(10_000):
            files.enter_context(open(os.devnull))


def test_it_opens_no_more_files_than_the_rules_say(rules):
    assert inside(open_many, rules=rules).error == "OSError"


def fork_without_end():
    count = 0
    # Children end with their parent, which holds the only writing end.
    reading, writing = os.pipe()
    with contextlib.suppress(BlockingIOError):
        while count < 1000:
            if os.fork() == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            count += 1
    return count


@pytest.mark.skipif(os.geteuid() == 0, reason="the kernel does not count root's tasks")
def test_its_user_has_no_more_processes_than_the_rules_say(rules):
    bounded = msgspec.structs.replace(rules, max_tasks=50)

    assert 0 < inside(fork_without_end, rules=bounded).value <= 50


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (
            "threading.Thread(target=threading.Event().wait, daemon=True).start()",
            "2 threads run",
        ),
        ("loop = uvloop.new_event_loop()", "before an event loop is made"),
    ],
)
def test_a_process_with_threads_or_an_event_loop_is_refused(rules, before, reason):
    code = (
        "import threading, uvloop\n"
        "from inference.engine.sandbox import sandbox\n"
        "from inference.engine.sandbox.rules import SandboxRules\n"
        f"{before}\n"
        f"sandbox.enter(SandboxRules(scratch={rules.scratch!r}))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )

    assert reason in done.stderr.splitlines()[-1]


def environment():
    return dict(os.environ)


def initial_environment():
    return Path("/proc/self/environ").read_text()


def test_its_environment_holds_no_credentials(rules):
    environ = {
        "DATABASE_URL": "postgres://user:credentials@host/",
        "OMP_NUM_THREADS": "1",
    }

    value = inside(environment, rules=rules, environ=environ).value

    assert "credentials" not in str(value)
    assert value["OMP_NUM_THREADS"] == "1"
    assert value["HOME"] == rules.scratch
    assert value["TMPDIR"] == f"{rules.scratch}/tmp"
    assert (
        "credentials"
        not in inside(initial_environment, rules=rules, environ=environ).value
    )
