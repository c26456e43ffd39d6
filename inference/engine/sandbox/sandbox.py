"""Enter the sandbox: nothing leads out of it, for this process and all it starts."""

import contextlib
import errno
import os
import sys

import msgspec

from inference.engine.sandbox import (
    environment,
    files,
    filters,
    limits,
    privileges,
)
from inference.engine.sandbox.rules import SandboxRules
from inference.installation import walls

# The kernel has it not, was started without it, is behind a container's own filter, or
# holds the process in too many sandboxes already.
_LACKING = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.E2BIG})


def enter(rules: SandboxRules) -> dict[str, str]:
    """Hold this process to the rules, and say by wall what holds.

    Call it in a process with one thread, which has the socket that it listens on,
    before its event loop is made and its author's code is imported. What a kernel lacks
    is said and not raised; what the rules name and does not exist is raised.

    1. Environment, current folder and open files.
    2. Privileges and limits; without them, users other than root may do the rest.
    3. Files, ports and signals, then system calls.
    """
    _require_a_fresh_process()
    said = {"environment": environment.restrict(rules.scratch)}
    if rules.keep_open is not None:
        _close_all_but(rules.keep_open)
    said["limits"] = limits.restrict(rules)
    kernel = walls.kernel()
    if sys.platform.startswith("linux"):
        privileges.give_up()
    if kernel.landlock:
        kernel = _restrict_files(rules, kernel)
    if kernel.filters is not None:
        kernel = _restrict_calls(rules, kernel)
    return walls.describe(kernel, network=rules.network) | said


def _restrict_files(rules: SandboxRules, kernel: walls.Kernel) -> walls.Kernel:
    try:
        files.restrict(rules, kernel.landlock)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        problem = f"Landlock failed ({error.strerror})"
        return msgspec.structs.replace(kernel, landlock=0, landlock_problem=problem)
    return kernel


def _restrict_calls(rules: SandboxRules, kernel: walls.Kernel) -> walls.Kernel:
    assert kernel.filters is not None
    try:
        filters.restrict(kernel.filters, network=rules.network)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        problem = f"the filter of system calls failed ({error.strerror})"
        return msgspec.structs.replace(kernel, filters=None, filters_problem=problem)
    return kernel


def _require_a_fresh_process() -> None:
    if not sys.platform.startswith("linux"):
        return
    # Landlock holds only the thread that asks for it.
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise RuntimeError(f"{threads} threads run; a sandbox is entered with one.")
    # A ring makes system calls that no filter sees. uvloop has one from its start if it
    # can, and ends the process if it may use it no longer.
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if "[io_uring]" in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise RuntimeError("A sandbox is entered before an event loop is made.")


def _close_all_but(kept: tuple[int, ...]) -> None:
    last = 2
    for descriptor in sorted({*kept} - {0, 1, 2}):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
