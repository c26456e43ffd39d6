"""Enter the sandbox: nothing leads out of it, for this process and all it starts."""

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

    Call it in a process with one thread, before its author's code is imported. What a
    kernel lacks is said and not raised; what the rules name and does not exist is.

    1. Environment, current folder and open files.
    2. Privileges and limits; without them, users other than root may do the rest.
    3. Files, ports and signals, then system calls.
    """
    _require_one_thread()
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


def _require_one_thread() -> None:
    # Landlock holds only the thread that asks for it.
    if not sys.platform.startswith("linux"):
        return
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise RuntimeError(f"{threads} threads run; a sandbox is entered with one.")


def _close_all_but(kept: tuple[int, ...]) -> None:
    last = 2
    for descriptor in sorted({*kept} - {0, 1, 2}):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
