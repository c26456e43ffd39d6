"""Share counts between the processes of one machine, in a file that all of them map.

Rates and calls in flight change with every call. To lend them in blocks would need a
lease per customer, gateway and second. So a count is one integer of a mapped file,
read and changed under one file lock, which takes about a microsecond. The counts are
exact, need no other process, and survive the end of any process: the kernel releases
the lock of a dead process, and a count is one aligned word, so it is never half
written.

The file is a hash table of windows. A window that has ended makes room for another.
"""

import fcntl
import hashlib
import mmap
import os
from pathlib import Path

_MAGIC = 0x4D59434F554E5402
_HEADER_CELLS = 128
MAX_PROCESSES = 64
# The cell with the time when the last closed key opens again: see `back_off.py`.
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
    """Return the key of a count: 63 bits of a hash."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 1) | 1


class SharedCounts:
    """One process's view of the counts; what it reads holds while it has the lock."""

    def __init__(self, path: Path, *, process: int = 0, processes: int = 1) -> None:
        """Map the file; a process that restarts keeps its number among `processes`."""
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
            # Calls that the process had in flight before a restart are not counted.
            self._boot = self.cells[_FIRST_BOOT + process] + 1
            self.cells[_FIRST_BOOT + process] = self._boot
        finally:
            self.unlock()

    def lock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def unlock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def find(self, key: int, starts: int, ends: int, hint: int = 0) -> int:
        """Return the index in `cells` of a window's count; needs the lock.

        `hint` is what the last call for this key returned. A window later than the one
        found starts at zero. A window a little earlier comes from a clock that was put
        back, and counts on in the one found.
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
        """Count own calls; needs no lock, as no other process writes this count."""
        at = hints[self._process]
        cells = self.cells
        if at and cells[at - _COUNT] == key + 2 * self._process:
            cells[at] = max(0, cells[at] + change)

    def hints(self) -> list[int]:
        return [0] * self._processes

    # States: two times and a small number in the place of a count

    def look(self, key: int) -> int:
        """Return a state's place, or 0; without the lock it may be a little old."""
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
        """Return a state's place, and make room if it has none; needs the lock."""
        at = self.look(key)
        if not at:
            at = self._locate(key, 1)
        return at

    def state(self, at: int) -> tuple[int, int, int]:
        """Return what `set_state` set; zeros for a new state."""
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
        """Make all processes look for closed keys until then; needs the lock."""
        known = self.cells[CLOSED_UNTIL]
        self.cells[CLOSED_UNTIL] = min(max(known, until), farthest)

    def _locate(self, key: int, starts: int) -> int:
        """Find the key's slot, or take a free one, or the one that ends first."""
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
