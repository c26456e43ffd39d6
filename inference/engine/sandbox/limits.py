"""Bound what a process may use of what the kernel counts."""

import contextlib
import os
import resource
import sys

from inference.engine.sandbox.rules import SandboxRules


def restrict(rules: SandboxRules) -> str:
    """Set the limits of this process and all that it starts, and say them."""
    # No dump of memory with rows in it. At 0 the kernel would still pipe one to a
    # program that collects them, at 1 it does not.
    _lower(resource.RLIMIT_CORE, 1)
    _lower(resource.RLIMIT_NOFILE, rules.max_files)
    said = [f"{rules.max_files} open files", "no memory dumps"]
    if rules.scratch_bytes:
        _lower(resource.RLIMIT_FSIZE, rules.scratch_bytes)
        said.insert(1, f"{rules.scratch_bytes // 1024**2} MiB a file")
    if sys.platform.startswith("linux"):
        # The kernel counts all tasks of a user, but compares with the limit of who asks
        # for one more: it stops this process and leaves others alone.
        _lower(resource.RLIMIT_NPROC, _tasks_of_user() + rules.max_tasks)
        is_root = os.getuid() == 0
        said.append(
            "any number of processes, because its user is root"
            if is_root
            else f"{rules.max_tasks} more processes and threads of its user"
        )
    return ", ".join(said)


def _lower(limit: int, value: int) -> None:
    _, most = resource.getrlimit(limit)
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.setrlimit(limit, (value, value))


def _tasks_of_user() -> int:
    user, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        # Processes end while we look.
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == user:
                count += os.stat(f"/proc/{name}/task").st_nlink - 2
    return count
