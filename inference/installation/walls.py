"""Say what the kernel of this machine can hold a process in.

Only asks; `inference/engine/sandbox/` builds the walls. A sentence that begins with
`open` or `partly open` says what does not hold, and why.
"""

import ctypes
import os
import platform
import struct
import sys

import msgspec

from inference.installation import system_calls

LANDLOCK_CREATE_RULESET = 444
_VERSION_ONLY = 1

_SECCOMP_ACTION_AVAILABLE = 2
_RETURN_ERROR = 0x0005_0000

# Versions of Landlock, and the Linux that brought them.
TRUNCATE_VERSION = 3
NETWORK_VERSION = 4
SCOPES_VERSION = 6


class Architecture(msgspec.Struct, frozen=True):
    """How filters of system calls know a processor, and seccomp(2) there."""

    audit: int
    seccomp: int
    # Where its number stands in the table of system calls.
    column: int


_ARCHITECTURES = {
    "x86_64": Architecture(0xC000_003E, 317, 0),
    "aarch64": Architecture(0xC000_00B7, 277, 1),
}


class Kernel(msgspec.Struct, frozen=True):
    """What a kernel offers; each problem says why it does not."""

    # Version of Landlock; 0: none.
    landlock: int = 0
    landlock_problem: str = ""
    # Filters of system calls.
    filters: Architecture | None = None
    filters_problem: str = ""


def kernel() -> Kernel:
    """Ask the kernel."""
    if not sys.platform.startswith("linux"):
        problem = "this system is not Linux"
        return Kernel(landlock_problem=problem, filters_problem=problem)
    landlock, landlock_problem = 0, ""
    try:
        landlock = system_calls.call(LANDLOCK_CREATE_RULESET, None, 0, _VERSION_ONLY)
    except OSError as error:
        landlock_problem = f"this kernel has no Landlock ({error.strerror})"
    filters, filters_problem = _filters()
    return Kernel(landlock, landlock_problem, filters, filters_problem)


def _filters() -> tuple[Architecture | None, str]:
    machine = platform.machine()
    found = _ARCHITECTURES.get(machine)
    if found is None or struct.calcsize("P") != 8:
        return None, f"filters of system calls are not written for {machine}"
    action = ctypes.c_uint32(_RETURN_ERROR)
    try:
        system_calls.call(
            found.seccomp, _SECCOMP_ACTION_AVAILABLE, 0, ctypes.addressof(action)
        )
    except OSError as error:
        return None, f"this kernel has no filters of system calls ({error.strerror})"
    return found, ""


def available() -> dict[str, str]:
    """Say what holds a process with its author's code here, by wall."""
    return describe(kernel())


def gaps(walls: dict[str, str]) -> dict[str, str]:
    """Return those walls that do not hold, or only in part."""
    return {
        name: sentence
        for name, sentence in walls.items()
        if sentence.startswith(("open", "partly open"))
    }


def describe(kernel: Kernel, *, network: bool = False) -> dict[str, str]:
    """Say what each wall holds with what a kernel offers."""
    return {
        "privileges": _privileges(),
        "files": _files(kernel),
        "processes": _processes(kernel),
        "network": _network(kernel, network),
        "kernel": _kernel(kernel),
    }


def _privileges() -> str:
    if not sys.platform.startswith("linux"):
        return "open: this system is not Linux"
    if os.geteuid() == 0:
        return "it can gain none, and keeps root's right to open files of other users"
    return "it has none, and can gain none"


def _files(kernel: Kernel) -> str:
    if not kernel.landlock:
        return f"open: all files of its user, because {kernel.landlock_problem}"
    holds = "it reads its artifact and environment, and writes its scratch folder"
    if kernel.landlock < TRUNCATE_VERSION:
        return (
            f"partly open: {holds}, but can empty files: "
            f"{_older(kernel, TRUNCATE_VERSION, 'Linux 6.2')}"
        )
    if kernel.filters is None:
        return (
            f"partly open: {holds}, but can change the mode of any file of its user, "
            f"because {kernel.filters_problem}"
        )
    return holds


def _processes(kernel: Kernel) -> str:
    if not kernel.landlock:
        return (
            "open: it can read the memory of its user's processes and end them, "
            f"because {kernel.landlock_problem}"
        )
    if kernel.landlock < SCOPES_VERSION:
        return (
            "partly open: it can read no other process, but end those of its user: "
            f"{_older(kernel, SCOPES_VERSION, 'Linux 6.12')}"
        )
    if kernel.filters is None:
        return (
            "partly open: it can neither read nor end another process, but slow it "
            f"down, because {kernel.filters_problem}"
        )
    return "it can neither read, nor end, nor slow down another process"


def _network(kernel: Kernel, network: bool) -> str:
    if kernel.filters is None:
        some = kernel.landlock >= NETWORK_VERSION and not network
        held = "partly open: all sockets but TCP" if some else "open: all sockets"
        return f"{held}, because {kernel.filters_problem}"
    if not network:
        return "none: it has no sockets but its own"
    if kernel.landlock < NETWORK_VERSION:
        return (
            "partly open: it may connect, as an administrator agreed, and also listen "
            f"on ports: {_older(kernel, NETWORK_VERSION, 'Linux 6.7')}"
        )
    return "it may connect, as an administrator agreed; no ports, no Unix sockets"


def _kernel(kernel: Kernel) -> str:
    if kernel.filters is None:
        return f"open: all system calls, because {kernel.filters_problem}"
    return "it makes no system calls for tracing, mounts, namespaces or shared queues"


def _older(kernel: Kernel, version: int, linux: str) -> str:
    has = f"has Landlock {kernel.landlock}" if kernel.landlock else "has no Landlock"
    return f"that needs Landlock {version} ({linux}), this kernel {has}"


def main() -> None:
    """Print the walls of this machine: `python -m inference.installation.walls`."""
    sys.stdout.write(msgspec.json.encode(available()).decode() + os.linesep)


if __name__ == "__main__":
    main()
