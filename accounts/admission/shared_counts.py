"""Counts that the processes of one machine keep together: a file mapped by all.

Rates and calls in flight change with every call, so lending them out in blocks would
mean a lease per customer, gateway and second, and a unit that lies unused with one
gateway would have to be called back for another. Gateways of one machine have
something better: memory. A count is one integer of a mapped file, read and changed
under one file lock, which takes about a microsecond. It is exact, needs no other
process to be there, and survives the end of any of them: the kernel lets go of a dead
process's lock, and a count is one aligned word, so none is ever half written.

The file is a hash table of windows; one that has ended makes room for another.
"""

import fcntl
import hashlib
import mmap
import os
from pathlib import Path

_MAGIC = 0x4D59434F554E5402
_HEADER_CELLS = 128
MAX_PROCESSES = 64
# When the last of the keys that are closed opens again: see `back_off.py`.
CLOSED_UNTIL = 1
_FIRST_BOOT = 8
_SLOTS = 1 << 17
_PROBES = 24
# Cells of a slot: key, start and end of the window, count.
_STARTS, _ENDS, _COUNT, _WIDTH = 1, 2, 3, 4
_CELLS = _HEADER_CELLS + _SLOTS * _WIDTH
_NEVER = 1 << 62
# A state's number is the low bits of its last cell.
_NUMBER_BITS = 5


def key_of(*parts: object) -> int:
    """Name a count; collisions are as likely as equal 63-bit numbers."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 1) | 1


class SharedCounts:
    """One process's view. What it says holds while it holds the lock."""

    def __init__(self, path: Path, *, process: int = 0, processes: int = 1) -> None:
        """`process` is this one's place among `processes`; kept when it restarts."""
        if not process < processes <= MAX_PROCESSES:
            raise ValueError(f"{process} of {processes} processes cannot share counts")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._processes = processes
        self._process = process
        self.lock()
        try:
            if os.fstat(self._file).st_size != _CELLS * 8:
                os.ftruncate(self._file, 0)
                # Sparse: pages that no window uses take no space.
                os.ftruncate(self._file, _CELLS * 8)
            self.cells = memoryview(mmap.mmap(self._file, _CELLS * 8)).cast("q")
            self.cells[0] = _MAGIC
            # What a predecessor had in flight ended with it.
            self._boot = self.cells[_FIRST_BOOT + process] + 1
            self.cells[_FIRST_BOOT + process] = self._boot
        finally:
            self.unlock()

    def lock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def unlock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def find(self, key: int, starts: int, ends: int, hint: int = 0) -> int:
        """Give the index in `cells` of a window's count; needs the lock.

        `hint` is what the last call for this key gave. A window that begins later than
        the one found starts at zero. One that begins a little earlier comes from a
        clock that was put back, and counts on in the one found.
        """
        cells = self.cells
        at = hint - _COUNT
        if hint == 0 or cells[at] != key:
            at = self._locate(key, starts)
        found = cells[at + _STARTS]
        if found != starts:
            if found < starts:
                cells[at + _COUNT] = 0
            elif found - starts <= ends - starts:
                return at + _COUNT
            cells[at + _STARTS] = starts
            cells[at + _ENDS] = ends
        return at + _COUNT

    def in_flight(self, key: int, hints: list[int]) -> int:
        """Add up the calls in flight of all living processes; needs the lock."""
        total = 0
        for process in range(self._processes):
            boot = self.cells[_FIRST_BOOT + process]
            if boot:
                at = self.find(key + 2 * process, boot, _NEVER, hints[process])
                hints[process] = at
                total += self.cells[at]
        return total

    def add_in_flight(self, key: int, hints: list[int], change: int) -> None:
        """Count own calls; without the lock, as nobody else writes this count."""
        at = hints[self._process]
        cells = self.cells
        if at and cells[at - _COUNT] == key + 2 * self._process:
            cells[at] = max(0, cells[at] + change)

    def hints(self) -> list[int]:
        return [0] * self._processes

    # What is no count but a state: two times and a small number

    def look(self, key: int) -> int:
        """Find a state; 0: there is none. Without the lock: it may be a little old."""
        cells = self.cells
        for probe in range(_PROBES):
            at = _HEADER_CELLS + (key // 2 + probe) % _SLOTS * _WIDTH
            found = cells[at]
            if found == key:
                return at
            if not found:
                # Slots are taken in this order and never become empty again.
                return 0
        return 0

    def place(self, key: int) -> int:
        """Find a state or make room for it; needs the lock."""
        at = self.look(key)
        if not at:
            at = self._locate(key, 1)
        return at

    def state(self, at: int) -> tuple[int, int, int]:
        """Give what `set_state` set; zeros for a new one."""
        last = self.cells[at + _COUNT]
        return (
            self.cells[at + _STARTS],
            last >> _NUMBER_BITS,
            last & ((1 << _NUMBER_BITS) - 1),
        )

    def set_state(self, at: int, state: tuple[int, int, int], *, ends: int) -> None:
        """Keep a state until `ends`, or until its slot is needed; needs the lock."""
        first, second, number = state
        self.cells[at + _STARTS] = first
        self.cells[at + _ENDS] = ends
        self.cells[at + _COUNT] = second << _NUMBER_BITS | number

    def note_closed(self, until: int, *, farthest: int) -> None:
        """Let all processes look for closed keys until then; needs the lock."""
        known = self.cells[CLOSED_UNTIL]
        self.cells[CLOSED_UNTIL] = min(max(known, until), farthest)

    def _locate(self, key: int, starts: int) -> int:
        """Find the key's slot, or take the free one, or that which ends first."""
        cells = self.cells
        best, best_ends = 0, _NEVER + 1
        for probe in range(_PROBES):
            at = _HEADER_CELLS + (key // 2 + probe) % _SLOTS * _WIDTH
            if cells[at] == key:
                return at
            ends = cells[at + _ENDS]
            if ends < best_ends:
                best, best_ends = at, ends
        cells[best] = key
        cells[best + _STARTS] = starts - 1
        cells[best + _ENDS] = 0
        cells[best + _COUNT] = 0
        return best
