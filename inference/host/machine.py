"""Find engine processes' own children, and what they all use."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


class Stat(NamedTuple):
    """A line of `/proc/PID/stat`, see proc_pid_stat(5)."""

    pid: int
    state: str
    parent: int
    session: int


def rss(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it is gone."""
    try:
        pages = (_PROC / str(pid) / "statm").read_text().split()[1]
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
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name, in brackets, may hold anything.
    state, parent, _, session = text[text.rindex(")") + 2 :].split()[:4]
    return Stat(pid, state, int(parent), int(session))


def everyone() -> list[Stat]:
    """Return all processes of this machine."""
    found = []
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            one = stat(int(entry.name))
            if one is not None:
                found.append(one)
    return found


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


def free_memory() -> tuple[int, int]:
    """Return the machine's memory and what is available of it, in bytes."""
    values = {}
    for line in (_PROC / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) * 1024
    return values["MemTotal"], values["MemAvailable"]
