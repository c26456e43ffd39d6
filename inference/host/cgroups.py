"""Hold the memory of engine processes by cgroups v2, where they are delegated.

A service manager delegates by `Delegate=memory` (systemd.resource-control(5)). The
service's processes stand in a subgroup, and the cgroup above it, which holds none, is
ours to divide. Without it the host watches the memory itself.
"""

import contextlib
import os
from pathlib import Path

import structlog

from inference.placement.processes import EngineProcess

logger = structlog.get_logger(__name__)

_OWN = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
# What a process uses beyond its models, and does not share with the zygote.
_EMPTY_BYTES = 64 * 1024 * 1024


class Cgroups:
    """A cgroup for each engine process, below `folder`; None: there are none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is None:
            return
        try:
            (folder / "cgroup.subtree_control").write_text("+memory")
        except OSError as error:
            logger.warning("cgroups_not_usable", reason=str(error))
            self._folder = None

    @property
    def usable(self) -> bool:
        return self._folder is not None

    def hold(self, process: EngineProcess, pid: int) -> None:
        """Move a process that just started into a cgroup with its limit."""
        if self._folder is None:
            return
        group = self._folder / f"engine-{process.name}"
        try:
            group.mkdir(exist_ok=True)
            self._limit(group, process)
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            # The host's own watch holds it.
            logger.warning("cgroup_not_set", engine=process.name, reason=str(error))

    def limit(self, process: EngineProcess) -> None:
        """Follow a limit that changed."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._limit(self._folder / f"engine-{process.name}", process)

    def _limit(self, group: Path, process: EngineProcess) -> None:
        limit = process.memory_limit_bytes
        text = str(limit + _EMPTY_BYTES) if limit else "max"
        (group / "memory.max").write_text(text)
        # One process killed, and its children still there, would help nobody.
        (group / "memory.oom.group").write_text("1")

    def ran_out(self, name: str) -> bool:
        """Return whether the kernel killed the process at its limit."""
        if self._folder is None:
            return False
        events = self._folder / f"engine-{name}" / "memory.events"
        try:
            lines = events.read_text().splitlines()
        except OSError:
            return False
        counts = dict(line.split() for line in lines if line)
        return int(counts.get("oom_kill", "0")) > 0

    def remove(self, name: str) -> None:
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (self._folder / f"engine-{name}").rmdir()


def make_room(*, own: Path = _OWN, root: Path = _ROOT) -> None:
    """Move this process into a subgroup of its cgroup, if that was delegated to it.

    From version 254 on, systemd does so if `DelegateSubgroup=` asks for it. Call it
    before other processes start: who is not alone in a cgroup, say a terminal's, stays.
    """
    path = _path(own)
    if not path or delegated(own=own, root=root) is not None:
        return
    folder = root / path.lstrip("/")
    try:
        # A service manager gives the cgroup to the user of the service.
        is_ours = folder.stat().st_uid == os.geteuid() != 0
        if not is_ours or (folder / "cgroup.procs").read_text().split() != [
            str(os.getpid())
        ]:
            return
        (folder / "main").mkdir(exist_ok=True)
        (folder / "main" / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        logger.warning("cgroups_not_usable", reason=str(error))


def delegated(*, own: Path = _OWN, root: Path = _ROOT) -> Path | None:
    """Return the cgroup that this process may divide; None: there is none."""
    path = _path(own)
    if path.count("/") < 2:
        return None
    folder = root / path.lstrip("/").rpartition("/")[0]
    try:
        has_memory = "memory" in (folder / "cgroup.controllers").read_text().split()
        holds_processes = (folder / "cgroup.procs").read_text().strip() != ""
    except OSError:
        return None
    may_write = os.access(folder / "cgroup.subtree_control", os.W_OK)
    return folder if has_memory and may_write and not holds_processes else None


def _path(own: Path) -> str:
    """Return the path of the cgroup of version 2 of this process; empty: none."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return ""
    return next((line[3:] for line in lines if line.startswith("0::")), "")
