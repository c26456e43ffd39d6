"""Write and read the file that holds a whole snapshot and all deltas after it.

The controller writes it and gateways read it; neither needs the other to be up. The
file is a magic number, a random number, and records. A record is the length and the
SHA-256 of a message, and the message: a part of a delta in MessagePack. The whole
snapshot comes first.

A new whole snapshot is written into a file beside it, with another random number, which
then replaces the old file by rename. Until then the old file takes deltas.
"""

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from inference.installation import modes
from inference.snapshot import contents
from inference.snapshot.contents import Contents, Delta, Snapshot

_MAGIC = b"MYSNAP04"
# The random number identifies a file: inodes are reused, so they cannot.
_HEAD = struct.Struct(">8s16s")
_RECORD = struct.Struct(">I32s")


class SnapshotCorrupt(ValueError):
    """The file does not hold a whole snapshot, or is damaged."""


class SnapshotReplaced(Exception):
    """The file to append to was replaced or deleted."""


class SnapshotWriter:
    """One snapshot file, to which the process that made it appends deltas."""

    def __init__(self, path: Path, whole: Snapshot) -> None:
        """Write `whole` into a new file beside `path`."""
        self._path = path
        self._last: Snapshot | Delta = whole
        self._parts = 0
        self.delta_bytes = 0
        self._file, self._partial = tempfile.mkstemp(
            prefix=f"{path.name}.", suffix=".partial", dir=path.parent
        )
        try:
            os.fchmod(self._file, modes.of_files(path.parent))
            _write(self._file, _HEAD.pack(_MAGIC, os.urandom(16)))
            self.whole_bytes = self._append(contents.whole(whole), complete=False)
        except BaseException:
            self.discard()
            raise

    def put_in_place(self, later: Sequence[Delta] = ()) -> None:
        """Replace the file at `path` atomically.

        `later` are the deltas appended to the old file since `whole` was read. They
        become part of the new whole, because no reader may go back to an older state.
        """
        try:
            for delta in later:
                self._last = delta
                part = msgspec.structs.replace(delta, base=0)
                self.whole_bytes += self._append(part, complete=False)
            end = Delta(
                sequence=self._last.sequence, published_at=self._last.published_at
            )
            self.whole_bytes += self._append(end)
            os.replace(self._partial, self._path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Delete the new file, which was not put in place."""
        os.unlink(self._partial)
        self.close()

    def append(self, delta: Delta) -> None:
        """Append a delta that builds on the last; raise SnapshotReplaced, or OSError.

        After an error the file may end within a record: begin a new file.
        """
        try:
            mine = os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            mine = False
        if not mine:
            raise SnapshotReplaced
        self.delta_bytes += self._append(delta)

    def close(self) -> None:
        os.close(self._file)

    def _append(self, delta: Delta, *, complete: bool = True) -> int:
        written = 0
        first = 0 if delta.base else self._parts
        for message in contents.encode_parts(delta, first=first, complete=complete):
            digest = hashlib.sha256(message).digest()
            record = _RECORD.pack(len(message), digest) + message
            _write(self._file, record)
            written += len(record)
            self._parts += 1
        os.fsync(self._file)
        return written


class SnapshotReader:
    """Reads a snapshot file part by part, and later the parts added to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Inode, size and time of change when the file was last read to its end.
        self._seen: tuple[int, int, int] | None = None
        self._head = b""
        self._offset = 0

    def parts(self) -> Iterator[Delta]:
        """Yield the new parts in order; raise OSError and SnapshotCorrupt.

        A damaged file is not read again until it changes.
        """
        seen = self._identity()
        if seen is None or seen == self._seen:
            return
        file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield from self._parts(file)
            self._seen = seen
        except SnapshotCorrupt:
            self._seen = seen
            raise
        finally:
            os.close(file)

    def start_over(self) -> None:
        """Read the whole snapshot again at the next call of `parts`."""
        self._seen, self._head = None, b""

    def give_up(self) -> None:
        """Read nothing more of the file until it changes."""
        self._seen = self._identity()

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _parts(self, file: int) -> Iterator[Delta]:
        head = os.pread(file, _HEAD.size, 0)
        if len(head) < _HEAD.size or head[:6] != _MAGIC[:6]:
            raise SnapshotCorrupt("the magic number does not match")
        if head[:8] != _MAGIC:
            raise SnapshotCorrupt(
                f"it has format {head[6:8].decode(errors='replace')}, and this code "
                f"reads {_MAGIC[6:].decode()}"
            )
        if head != self._head:
            self._head, self._offset = head, _HEAD.size
        delta = None
        while message := self._next_message(file):
            try:
                delta = contents.decode_part(message)
            except msgspec.DecodeError as error:
                raise SnapshotCorrupt(str(error)) from error
            self._offset += _RECORD.size + len(message)
            yield delta
        # An incomplete delta may still be written, or a power failure cut it off. But a
        # whole snapshot was complete when its file was put in place.
        if self._offset == _HEAD.size or (delta and not (delta.base or delta.last)):
            raise SnapshotCorrupt("it ends early")

    def _next_message(self, file: int) -> bytes | None:
        """Read the message at the offset; return None if it is not complete."""
        prefix = os.pread(file, _RECORD.size, self._offset)
        if len(prefix) < _RECORD.size:
            return None
        length, digest = _RECORD.unpack(prefix)
        message = os.pread(file, length, self._offset + _RECORD.size)
        if len(message) < length:
            return None
        if hashlib.sha256(message).digest() != digest:
            raise SnapshotCorrupt("a checksum does not match")
        return message


def write(path: Path, whole: Snapshot) -> None:
    """Replace the file at `path` by one that holds only `whole`."""
    writer = SnapshotWriter(path, whole)
    writer.put_in_place()
    writer.close()


def read(path: Path) -> Snapshot:
    """Return the file's snapshot with all deltas applied; raise as `parts` does."""
    path.stat()
    contents = Contents()
    for delta in SnapshotReader(path).parts():
        if delta.base == delta.part == 0:
            contents = Contents()
        contents.take(delta)
    return contents.as_snapshot()


def _write(file: int, data: bytes) -> None:
    """Write all of `data`: the kernel may take less when a disk fills up."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
