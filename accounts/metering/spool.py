"""Write usage events to disk before their answers leave, and read them back.

A segment is a file of frames, `<u32 length> <u32 CRC-32> <event in MessagePack>`,
little-endian. What copies of calls found (`comparison.py`) is between the events: an
event is an array in MessagePack, and such a frame is a map. The writer of a segment
holds an exclusive lock while it appends, so a segment without a lock is complete, even
if its writer died. If a crash cut a frame short, its answer never left; readers stop
before it.
"""

import fcntl
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from accounts.metering.comparison import ComparedCalls
from accounts.metering.event import UsageEvent

SUFFIX = ".spool"
_FRAME = struct.Struct("<II")
_MAX_EVENT_BYTES = 1 << 20
_DEFAULT_SEGMENT_BYTES = 16 * 1024 * 1024
DEFAULT_TOTAL_BYTES = 4 * 1024**3

# More than most events.
_PROBE_BYTES = 4096
_SETTLING_S = 2.0

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UsageEvent)
_compared_decoder = msgspec.msgpack.Decoder(ComparedCalls)
# First bytes of a map in MessagePack with up to 15 members, and with more.
_MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))


class SpoolUnavailable(Exception):
    """Events cannot be recorded, so no answer may leave."""


class SpoolWriter:
    """Append the events of one process to its segments, `<boot id>-<n>.spool`."""

    def __init__(
        self,
        folder: Path,
        boot_id: str,
        *,
        max_segment_bytes: int = _DEFAULT_SEGMENT_BYTES,
        max_total_bytes: int = DEFAULT_TOTAL_BYTES,
        file_mode: int = 0o600,
    ) -> None:
        self._folder = folder
        self._boot_id = boot_id
        self._max_segment_bytes = max_segment_bytes
        self.max_total_bytes = max_total_bytes
        self._file_mode = file_mode
        self._number = 0
        self._written = 0
        # Whether events were written since the last `sync`.
        self.dirty = False
        # Full segments that wait to be flushed and closed.
        self._finished: list[int] = []
        try:
            self._file = self._open()
        except OSError as error:
            raise SpoolUnavailable(os.strerror(error.errno or 0)) from error
        # Bytes of all segments when last measured.
        self.used_bytes = 0
        self._allowed = 0
        self.measure()

    def append(self, events: Sequence[UsageEvent]) -> None:
        """Write all events or none; raises SpoolUnavailable.

        What is written survives a crash of this process. It survives a power failure
        only after `sync`.
        """
        self.append_encoded([encode_event(event) for event in events])

    def append_encoded(self, frames: Sequence[bytes]) -> None:
        """Write frames made by `encode_event` with one system call."""
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._written + len(data) > self._max_segment_bytes and self._written:
            self._rotate()
        if len(data) > self._allowed:
            raise SpoolUnavailable("The spool is full.")
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise SpoolUnavailable(os.strerror(error.errno or 0)) from error
        if written < len(data):
            # The disk is full. Nothing after a torn frame could ever be read.
            os.ftruncate(self._file, self._written)
            raise SpoolUnavailable("The disk is full.")
        self._written += written
        self._allowed -= written
        self.dirty = True

    def sync(self) -> None:
        """Make what is written survive a power failure; may run in another thread.

        Raises SpoolUnavailable if the disk cannot take it.
        """
        self.dirty = False
        try:
            os.fsync(self._file)
            while self._finished:
                finished = self._finished.pop()
                try:
                    os.fsync(finished)
                finally:
                    os.close(finished)
        except OSError as error:
            raise SpoolUnavailable(os.strerror(error.errno or 0)) from error

    def probe(self) -> None:
        """Raise SpoolUnavailable if nothing can be written; may run in a thread."""
        if self._allowed < _PROBE_BYTES:
            raise SpoolUnavailable("The spool is full.")
        try:
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                written = file.write(bytes(_PROBE_BYTES))
        except OSError as error:
            raise SpoolUnavailable(os.strerror(error.errno or 0)) from error
        if written is not None and written < _PROBE_BYTES:
            raise SpoolUnavailable("The disk is full.")

    def measure(self) -> None:
        """Measure how much may still be written beside all processes' segments."""
        used = 0
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                used += path.stat().st_size
            except FileNotFoundError:
                # Another process removed it, as it was ingested.
                continue
        self.used_bytes = used
        self._allowed = max(0, self.max_total_bytes - used)

    def close(self) -> None:
        """Flush and close the segments: they are complete now."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    def _rotate(self) -> None:
        finished = self._file
        try:
            # Open and lock it before the old one is closed: a living writer holds at
            # least one lock at every moment.
            self._file = self._open()
        except OSError as error:
            raise SpoolUnavailable(os.strerror(error.errno or 0)) from error
        # Flushing takes time, and another thread may be flushing it right now.
        self._finished.append(finished)

    def _open(self) -> int:
        path = self._folder / f"{self._boot_id}-{self._number + 1}{SUFFIX}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = os.open(path, flags, self._file_mode)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._number += 1
        self._written = 0
        return file


def encode_event(event: UsageEvent | ComparedCalls) -> bytes:
    payload = _encoder.encode(event)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[UsageEvent, int]]:
    """Yield the usage events from `offset` on, as `read` does."""
    for found, after in read(path, offset):
        if isinstance(found, UsageEvent):
            yield found, after


def read(
    path: Path, offset: int = 0
) -> Iterator[tuple[UsageEvent | ComparedCalls, int]]:
    """Yield all that was written from `offset` on, each with the offset after it.

    Stops at the end, and before a frame that is torn or damaged.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while True:
            header = file.read(_FRAME.size)
            if len(header) < _FRAME.size:
                return
            length, checksum = _FRAME.unpack(header)
            if length > _MAX_EVENT_BYTES:
                return
            payload = file.read(length)
            if not payload or len(payload) < length or zlib.crc32(payload) != checksum:
                return
            try:
                event: UsageEvent | ComparedCalls = (
                    _compared_decoder.decode(payload)
                    if payload[0] in _MAPS
                    else _decoder.decode(payload)
                )
            except msgspec.DecodeError:
                return
            offset += _FRAME.size + length
            yield event, offset


def find_events(
    folder: Path, request_id: str, *, boot_id: str = ""
) -> Iterator[UsageEvent]:
    """Yield the events with a request id, which callers may use more than once.

    With a boot id, only those that this process wrote.
    """
    wanted = request_id.encode()
    for path in sorted(folder.glob(f"{boot_id}*{SUFFIX}")):
        try:
            # Most segments do not hold it, and a search costs less than decoding.
            if wanted not in path.read_bytes():
                continue
            for event, _ in read_events(path):
                if event.request_id == request_id:
                    yield event
        except FileNotFoundError:
            # It was removed, as its time was over.
            continue


def boot_id_of(path: Path) -> str:
    """Return the boot id of a segment's writer, who is also the holder of leases."""
    return path.name.removesuffix(SUFFIX).rpartition("-")[0]


def is_finished(path: Path, *, now: float) -> bool:
    """Return whether nothing will be appended to a segment any more.

    A very young one never counts: its writer may have created but not yet locked it.
    `now` is in seconds since the epoch.
    """
    if now - path.stat().st_mtime < _SETTLING_S:
        return False
    return not is_being_written(path)


def is_being_written(path: Path) -> bool:
    """Return whether a living process appends to this segment."""
    with path.open("rb") as file:
        try:
            # A shared lock, so that two readers do not take each other for writers.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
