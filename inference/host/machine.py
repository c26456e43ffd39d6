"""Find engine processes' own children, and what they all use."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")
# A container sees its own cgroup here; the root cgroup of a machine has no limit.
_CONTAINER = Path("/sys/fs/cgroup")


class Stat(NamedTuple):
    """A line of `/proc/PID/stat`, see proc_pid_stat(5)."""

    pid: int
    state: str
    parent: int
    session: int


def rss(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it is gone."""
    try:
        pages = _read(f"{_PROC}/{pid}/statm").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * _PAGE_BYTES


def own_memory(pid: int) -> int:
    """Return a process's share of the memory that it maps, in bytes."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def stat(pid: int) -> Stat | None:
    """Return the state of a process; None if it is gone."""
    try:
        line = _read(f"{_PROC}/{pid}/stat")
    except OSError:
        return None
    # The name, in brackets, may hold anything.
    state, parent, _, session = line[line.rindex(b")") + 2 :].split(None, 4)[:4]
    return Stat(pid, state.decode(), int(parent), int(session))


def everyone() -> list[Stat]:
    """Return all processes of this machine."""
    found = (stat(int(name)) for name in os.listdir(_PROC) if name.isdigit())
    return [one for one in found if one is not None]


def _read(path: str) -> bytes:
    """Read a line of /proc; hosts read hundreds each second, so it must cost little."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


def users_of(mapped: str, named: str) -> list[int]:
    """Return the processes that map a file, or that were given a variable.

    Files are those whose path begins with `mapped`, variables those whose value begins
    with `named`. A forked process has its parent's maps, another one its variables.
    """
    maps, value = f" {mapped}".encode(), f"={named}".encode()
    found = []
    for one in everyone():
        folder = _PROC / str(one.pid)
        try:
            if value in (folder / "environ").read_bytes() or (
                maps in (folder / "maps").read_bytes()
            ):
                found.append(one.pid)
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


class Family:
    """Which process is whose child, at one moment."""

    def __init__(self, processes: Iterable[Stat] = ()) -> None:
        self._children: dict[int, list[Stat]] = {}
        for one in processes:
            self._children.setdefault(one.parent, []).append(one)

    def children(self, pid: int) -> list[Stat]:
        return self._children.get(pid, [])

    def offspring(self, pid: int) -> list[Stat]:
        """Return the children of a process, their children, and so on."""
        found: dict[int, Stat] = {}
        waiting = [pid]
        while waiting:
            for child in self.children(waiting.pop()):
                if child.pid not in found:
                    found[child.pid] = child
                    waiting.append(child.pid)
        return list(found.values())


def free_memory(*, proc: Path = _PROC, container: Path = _CONTAINER) -> tuple[int, int]:
    """Return the memory of the machine, and what is available of it, in bytes.

    In a container with a limit these are the limit, and what is left of it.
    """
    values = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) * 1024
    total, available = values["MemTotal"], values["MemAvailable"]
    try:
        limit = int((container / "memory.max").read_text())
        used = int((container / "memory.current").read_text())
        lines = (container / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        # There is no container, or its limit is `max`.
        return total, available
    # The kernel gives these pages of files back when memory is short.
    files = dict(line.split() for line in lines).get("inactive_file", "0")
    left = max(0, limit - used + int(files))
    return min(total, limit), min(available, left)
