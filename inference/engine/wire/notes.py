"""What an engine process does now, in memory that its host reads, also after its death.

A file of `SLOTS` slots, which the process maps; each batch in flight has one:

    u32 state | u32 rows | u64 batch | f64 when it began | u32 length | name

Before them is when the event loop last turned, and what holds the process, in JSON.
Times are of CLOCK_MONOTONIC, which all processes of a machine share. The host never
trusts what it reads: the process may have written anything.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

SLOTS = 16
_HEADER = struct.Struct("<IIQdI")
_STATE = struct.Struct("<I")
_NAME_BYTES = 1024
_SLOT_BYTES = 2048
# When the loop last turned, and the memory before any version was loaded.
_BEAT = struct.Struct("<dQ")
_BEAT_TIME = struct.Struct("<d")
_WALLS = struct.Struct("<I")
_WALLS_BYTES = _SLOT_BYTES - _BEAT.size - _WALLS.size
_SIZE = (SLOTS + 1) * _SLOT_BYTES
_IDLE, _RUNNING, _LOADING = 0, 1, 2
# Readers store it in a database, whose integers end here.
_MOST_ROWS = 2**31 - 1


class Note(NamedTuple):
    """A piece of a batch that runs, or a version that loads."""

    # Name of the version, as `str(VersionKey)`.
    name: str
    rows: int
    batch: int
    began_at: float
    loading: bool


class SharedNotes:
    """Write notes; used by several threads of one process."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Map a file that `create` made."""
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._clock = clock
        self._free = list(range(SLOTS - 1, -1, -1))
        self._names = [""] * SLOTS
        self._lengths = [0] * SLOTS

    def begin(self, name: str, rows: int, batch: int, *, loading: bool = False) -> int:
        """Note that work begins; return its slot, or -1 if all are in use."""
        try:
            slot = self._free.pop()
        except IndexError:
            return -1
        at = (slot + 1) * _SLOT_BYTES
        if self._names[slot] != name:
            text = name.encode("utf-8", "replace")[:_NAME_BYTES]
            start = at + _HEADER.size
            self._map[start : start + len(text)] = text
            self._names[slot], self._lengths[slot] = name, len(text)
        _HEADER.pack_into(
            self._map,
            at,
            _LOADING if loading else _RUNNING,
            rows & 0xFFFFFFFF,
            batch & 0xFFFFFFFFFFFFFFFF,
            self._clock(),
            self._lengths[slot],
        )
        return slot

    def end(self, slot: int) -> None:
        if slot >= 0:
            _STATE.pack_into(self._map, (slot + 1) * _SLOT_BYTES, _IDLE)
            self._free.append(slot)

    def beat(self) -> None:
        """Note that the event loop turns."""
        _BEAT_TIME.pack_into(self._map, 0, self._clock())

    def empty(self, memory_bytes: int) -> None:
        """Note the memory of the process before it loads anything."""
        _BEAT.pack_into(self._map, 0, self._clock(), memory_bytes)

    def walls(self, walls: dict[str, str]) -> None:
        """Note what holds the process, by name."""
        text = msgspec.json.encode(walls)
        if len(text) <= _WALLS_BYTES:
            start = _BEAT.size + _WALLS.size
            self._map[start : start + len(text)] = text
            _WALLS.pack_into(self._map, _BEAT.size, len(text))


class NoteReader:
    """Read the notes of one process; of one file, which is made here."""

    def __init__(self, path: Path) -> None:
        """Make the file. Raises OSError if the disk has no room for it."""
        with path.open("w+b") as file:
            # All of it now: a write to a page for which the disk has no room would end
            # the process (SIGBUS).
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, _SIZE)
            else:
                file.truncate(_SIZE)
            self._map = mmap.mmap(file.fileno(), _SIZE)

    def read(self) -> list[Note]:
        """Return what runs, the oldest first."""
        found = []
        for slot in range(SLOTS):
            at = (slot + 1) * _SLOT_BYTES
            state, rows, batch, began_at, length = _HEADER.unpack_from(self._map, at)
            if state not in (_RUNNING, _LOADING):
                continue
            start = at + _HEADER.size
            text = self._map[start : start + min(length, _NAME_BYTES)]
            name = text.decode("utf-8", "replace")
            rows = min(rows, _MOST_ROWS)
            found.append(Note(name, rows, batch, began_at, state == _LOADING))
        return sorted(found, key=lambda note: note.began_at)

    def beat(self) -> float:
        """Return when the event loop last turned; 0: not yet."""
        return float(_BEAT_TIME.unpack_from(self._map, 0)[0])

    def empty(self) -> int:
        """Return the memory that the process had before it loaded; 0: not yet."""
        return int(_BEAT.unpack_from(self._map, 0)[1])

    def walls(self) -> dict[str, str]:
        """Return what holds the process, as it says itself; empty: not yet known."""
        (length,) = _WALLS.unpack_from(self._map, _BEAT.size)
        start = _BEAT.size + _WALLS.size
        try:
            return _walls.decode(self._map[start : start + min(length, _WALLS_BYTES)])
        except msgspec.DecodeError:
            return {}

    def close(self) -> None:
        self._map.close()


_walls = msgspec.json.Decoder(dict[str, str])
