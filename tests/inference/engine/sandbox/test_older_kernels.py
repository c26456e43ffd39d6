"""Test that a sandbox is entered, and holds what it can, on kernels that lack parts."""

import errno
import os
import socket
from pathlib import Path

import msgspec
import pytest

from inference.engine.sandbox import filters
from inference.installation import walls
from inference.installation.walls import Architecture
from tests.inference.engine.sandbox.child import inside

X86_64 = Architecture(0xC000_003E, 317, 0)
AARCH64 = Architecture(0xC000_00B7, 277, 1)

ALLOWED = 0x7FFF_0000
REFUSED = 0x0005_0000 | errno.EPERM
IGNORED = 0x0005_0000


def read(path):
    return Path(path).read_text()


def move_within(scratch):
    for name in ("a", "b"):
        Path(scratch, name).mkdir()
    Path(scratch, "a", "file").write_text("text")
    Path(scratch, "a", "file").rename(Path(scratch, "b", "file"))
    return Path(scratch, "b", "file").read_text()


def end_parent():
    os.kill(os.getppid(), 0)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("version", range(1, 8))
def test_each_version_of_landlock_holds_files(rules, secret, version):
    older = {"landlock": version}

    assert inside(read, secret, rules=rules, lacks=older).error == "PermissionError"
    assert inside(empty, secret, rules=rules, lacks=older).error == "PermissionError"
    moved = inside(move_within, rules.scratch, rules=rules, lacks=older)
    # The first version refuses it everywhere.
    assert (moved.value, moved.error) == (
        ("text", "") if version > 1 else (None, "OSError")
    )


def test_what_an_older_kernel_lacks_is_said_and_not_raised(rules, secret):
    none = {
        "landlock": 0,
        "landlock_problem": "no Landlock",
        "filters": None,
        "filters_problem": "no filters",
    }

    older = inside(end_parent, rules=rules, lacks={"landlock": 5})
    oldest = inside(read, secret, rules=rules, lacks=none)

    assert older.error == ""
    assert set(walls.gaps(older.walls)) == {"processes"}
    assert oldest.value == "credentials"
    assert set(walls.gaps(oldest.walls)) == {"files", "processes", "network", "kernel"}


def enter_many_times(scratch):
    from inference.engine.sandbox import sandbox
    from inference.engine.sandbox.rules import SandboxRules

    for _ in range(20):
        said = sandbox.enter(SandboxRules(scratch=scratch))
    return said["files"]


def test_a_kernel_that_refuses_another_sandbox_is_said(rules):
    said = inside(enter_many_times, rules.scratch, rules=rules).value

    assert said.endswith("because Landlock failed (Argument list too long)")


def decide(architecture, number, *arguments, network=False, audit=None):
    """Run the filter as the kernel does (bpf(4)), and return its action."""
    arguments += (0,) * (6 - len(arguments))
    data = {0: number, 4: audit or architecture.audit}
    for place, argument in enumerate(arguments):
        data[16 + 8 * place] = argument & 0xFFFF_FFFF
        data[20 + 8 * place] = argument >> 32
    steps = list(filters.program(architecture, network=network))
    at, word = 0, 0
    while True:
        code, true, false, operand = steps[at]
        at += 1
        match code:
            case 0x20:
                word = data[operand]
            case 0x54:
                word &= operand
            case 0x15:
                at += true if word == operand else false
            case 0x35:
                at += true if word >= operand else false
            case 0x45:
                at += true if word & operand else false
            case 0x06:
                return operand


# Numbers on x86-64 and 64-bit ARM from the kernel's tables, arguments and action.
DECISIONS = [
    ("read", (0, 63), (), ALLOWED),
    ("openat", (257, 56), (), ALLOWED),
    ("accept4", (288, 242), (), ALLOWED),
    ("futex", (202, 98), (), ALLOWED),
    ("socket", (41, 198), (socket.AF_UNIX,), REFUSED),
    ("connect", (42, 203), (), REFUSED),
    ("ptrace", (101, 117), (), REFUSED),
    ("unshare", (272, 97), (), REFUSED),
    ("fchmodat", (268, 53), (), IGNORED),
    ("clone of a thread", (56, 220), (0x3D0F00,), ALLOWED),
    ("clone with a namespace", (56, 220), (0x1000_0011,), REFUSED),
    ("clone3", (435, 435), (), 0x0005_0000 | errno.ENOSYS),
    ("pair of streams", (53, 199), (1, 1 | 0x80800), ALLOWED),
    ("pair of datagrams", (53, 199), (1, 2), REFUSED),
    ("limit of oneself", (302, 261), (0, 7, 1 << 40), ALLOWED),
    ("limit of another, read", (302, 261), (5, 7, 0), ALLOWED),
    ("limit of another", (302, 261), (5, 7, 1 << 40), REFUSED),
    ("limit of another, low address", (302, 261), (5, 7, 16), REFUSED),
    ("affinity of oneself", (203, 122), (0,), ALLOWED),
    ("affinity of another", (203, 122), (5,), IGNORED),
    ("priority of oneself", (141, 140), (0, 0), ALLOWED),
    ("priority of one's group", (141, 140), (1, 0), IGNORED),
    ("I/O priority of oneself", (251, 30), (1, 0), ALLOWED),
    ("I/O priority of another", (251, 30), (1, 5), IGNORED),
    ("TIOCSTI", (16, 29), (0, 0x5412), REFUSED),
    ("TCGETS", (16, 29), (0, 0x5401), ALLOWED),
]


@pytest.mark.parametrize("architecture", [X86_64, AARCH64])
@pytest.mark.parametrize("case", DECISIONS, ids=lambda case: case[0])
def test_the_filter_decides_alike_on_each_processor(architecture, case):
    _, numbers, arguments, action = case

    found = decide(architecture, numbers[architecture.column], *arguments)

    assert found == action


@pytest.mark.parametrize("architecture", [X86_64, AARCH64])
@pytest.mark.parametrize(
    ("family", "action"),
    [
        (socket.AF_INET, ALLOWED),
        (socket.AF_INET6, ALLOWED),
        (socket.AF_NETLINK, ALLOWED),
        (socket.AF_UNIX, REFUSED),
        (40, REFUSED),  # AF_VSOCK
    ],
)
def test_with_consent_it_makes_sockets_of_the_internet(architecture, family, action):
    number = (41, 198)[architecture.column]

    assert decide(architecture, number, family, network=True) == action


def test_other_numberings_of_system_calls_are_refused():
    assert decide(X86_64, 0x4000_0000) == REFUSED
    assert decide(X86_64, 3, audit=0x4000_0003) == REFUSED  # 32-bit calls


def test_a_problem_with_a_path_of_the_rules_is_raised(rules):
    wrong = msgspec.structs.replace(rules, writable=("/nonexistent",))

    assert inside(read, "/dev/null", rules=wrong).error == "FileNotFoundError"
