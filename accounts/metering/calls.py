"""Find answered calls in the spool by their request ids, without a database.

An event is on disk before its answer leaves, so whoever has an answer's request id can
be told at once which version gave it.

Beside each complete segment lies an index, `<boot id>-<n>.calls`: the sorted keys of
its answered calls, and then the offsets of their events, as 64-bit numbers. It is made
of the segment when somebody first asks, and can be made again at any time.
"""

import contextlib
import hashlib
import mmap
import os
import tempfile
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection
from pathlib import Path

from accounts.metering import spool
from accounts.metering.event import UsageEvent

_SUFFIX = ".calls"
# Files that are being written begin with this.
_TEMPORARY = "tmp"
# Such a file that is older has no writer.
_LONGEST_WRITING_S = 3600.0
_NUMBER_BYTES = 8
# The clock is asked once for so many events.
_EVENTS_BETWEEN_LOOKS = 1000


class StillReading(Exception):
    """Segments had to be read first, and there was not enough time for all."""


class _Growing:
    """The answered calls of a segment, as far as it was read."""

    def __init__(self) -> None:
        self.offset = 0
        # The offset of the newest event of each key.
        self.offsets: dict[int, int] = {}

    def offset_of(self, key: int) -> int | None:
        return self.offsets.get(key)

    def read_on(self, path: Path, has_time: Callable[[], bool]) -> None:
        """Read what was appended since; raises StillReading."""
        events = spool.read_events(path, self.offset)
        for count, (event, after) in enumerate(events, 1):
            if event.status < 300:
                key = _key(event.customer_id, event.request_id)
                self.offsets[key] = self.offset
            self.offset = after
            if count % _EVENTS_BETWEEN_LOOKS == 0 and not has_time():
                raise StillReading

    def write(self, path: Path) -> None:
        """Write the index of a complete segment; raises OSError."""
        pairs = sorted(self.offsets.items())
        numbers = array("Q", [key for key, _ in pairs])
        numbers.extend(offset for _, offset in pairs)
        file, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(file, "wb") as opened:
                numbers.tofile(opened)
                opened.flush()
                os.fsync(opened.fileno())
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise


class _Complete:
    """The index of a complete segment, on disk."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size % (2 * _NUMBER_BYTES):
                raise ValueError(f"{path.name} is damaged")
            # An empty file cannot be mapped.
            data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if size else b""
        self._numbers = memoryview(data).cast("Q")
        self._count = size // (2 * _NUMBER_BYTES)

    def offset_of(self, key: int) -> int | None:
        place = bisect_left(self._numbers, key, 0, self._count)
        if place == self._count or self._numbers[place] != key:
            return None
        return self._numbers[self._count + place]


class CallIndex:
    """Find the calls of one spool; threads may ask at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._complete: dict[str, _Complete] = {}
        self._growing: dict[str, _Growing] = {}

    def find(
        self, customer_id: int, request_ids: Collection[str], *, budget_s: float = 2.0
    ) -> dict[str, UsageEvent]:
        """Return the newest answered call of the customer with each request id.

        Raises StillReading if that takes longer than `budget_s`; the next call goes on.
        """
        deadline = time.monotonic() + budget_s
        keys = {each: _key(customer_id, each) for each in request_ids}
        found: dict[str, UsageEvent] = {}
        with self._lock:
            for path in self._segments():
                try:
                    index = self._index(path, lambda: time.monotonic() < deadline)
                    for request_id, key in keys.items():
                        offset = index.offset_of(key)
                        if offset is None:
                            continue
                        event = _event_at(path, offset, customer_id, request_id)
                        known = found.get(request_id)
                        if event and (known is None or known.at <= event.at):
                            found[request_id] = event
                except FileNotFoundError:
                    # It was removed, as its time was over.
                    continue
        return found

    def _segments(self) -> list[Path]:
        paths = sorted(self._folder.glob(f"*{spool.SUFFIX}"))
        names = {path.name for path in paths}
        for known in (self._complete, self._growing):
            for name in known.keys() - names:
                del known[name]
        return paths

    def _index(self, path: Path, has_time: Callable[[], bool]) -> _Complete | _Growing:
        complete = self._complete.get(path.name) or _read_index(path)
        if complete is not None:
            self._complete[path.name] = complete
            self._growing.pop(path.name, None)
            return complete
        # Checked before reading: nothing is appended to a finished one later.
        finished = spool.is_finished(path, now=time.time())
        growing = self._growing.setdefault(path.name, _Growing())
        growing.read_on(path, has_time)
        if finished:
            # If the disk is full, or not ours, it stays in memory.
            with contextlib.suppress(OSError):
                growing.write(_index_path(path))
        return growing


def delete(segment: Path) -> None:
    """Delete a segment with its index."""
    segment.unlink(missing_ok=True)
    _index_path(segment).unlink(missing_ok=True)


def delete_orphans(folder: Path) -> None:
    """Delete indexes without a segment, and what a process left that died writing one.

    The segment may be gone by other ways, or an index be written as it goes.
    """
    old = time.time() - _LONGEST_WRITING_S
    for index in folder.glob(f"*{_SUFFIX}"):
        if not index.with_suffix(spool.SUFFIX).exists():
            index.unlink(missing_ok=True)
    for path in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < old:
                path.unlink()


def _key(customer_id: int, request_id: str) -> int:
    """Return a number that nobody can make collide with another customer's."""
    text = f"{customer_id} {request_id}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=_NUMBER_BYTES).digest())


def _index_path(segment: Path) -> Path:
    return segment.with_suffix(_SUFFIX)


def _read_index(segment: Path) -> _Complete | None:
    try:
        return _Complete(_index_path(segment))
    except (FileNotFoundError, ValueError):
        return None


def _event_at(
    path: Path, offset: int, customer_id: int, request_id: str
) -> UsageEvent | None:
    for event, _ in spool.read_events(path, offset):
        same = event.customer_id == customer_id and event.request_id == request_id
        return event if same else None
    return None
