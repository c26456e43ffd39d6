"""The file that holds a whole snapshot and, behind it, each delta since.

The controller writes it and gateways read it; neither needs the other to be up. The
file is a magic number, a random number, and records: the length and the SHA-256 of a
message, and the message, a part of a delta in MessagePack. The whole snapshot comes
first. A file with another snapshot replaces it by rename, under another random number;
it is written beside the first one, which takes deltas until then.
"""

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from inference.snapshot import contents
from inference.snapshot.contents import Contents, Delta, Snapshot

_MAGIC = b"MYSNAP03"
# Inodes are used again, so that they do not tell one file from the next.
_HEAD = struct.Struct(">8s16s")
_RECORD = struct.Struct(">I32s")


class SnapshotCorrupt(ValueError):
    """The file is not a whole snapshot, or something in it is damaged."""


class SnapshotReplaced(Exception):
    """The file to append to is not there any more."""


class SnapshotWriter:
    """One snapshot file, to which the process that made it appends deltas."""

    def __init__(self, path: Path, whole: Snapshot) -> None:
        """Write `whole` beside the file at `path`, which stays as it is."""
        self._path = path
        self._last: Snapshot | Delta = whole
        self._parts = 0
        self.delta_bytes = 0
        self._file, self._partial = tempfile.mkstemp(
            prefix=f"{path.name}.", suffix=".partial", dir=path.parent
        )
        try:
            _write(self._file, _HEAD.pack(_MAGIC, os.urandom(16)))
            self.whole_bytes = self._append(contents.whole(whole), complete=False)
        except BaseException:
            self.discard()
            raise

    def put_in_place(self, later: Sequence[Delta] = ()) -> None:
        """Replace the file at `path` so that readers see the old or the new, whole.

        `later` is what was appended to the old one since the whole was read: in the new
        one it is part of the whole, because no reader may go back to a former state.
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
        """Delete what was never put in place."""
        os.unlink(self._partial)
        self.close()

    def append(self, delta: Delta) -> None:
        """Write a delta that builds on the last; raise SnapshotReplaced, or OSError.

        After an error the file may end with part of a record: begin another.
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
    """Reads a snapshot file part by part, and later what was added to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Inode, size and time of change when it was last read to its end.
        self._seen: tuple[int, int, int] | None = None
        self._head = b""
        self._offset = 0

    def parts(self) -> Iterator[Delta]:
        """Yield what is new, in order; raise OSError and SnapshotCorrupt.

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
        if len(head) < _HEAD.size or head[:8] != _MAGIC:
            raise SnapshotCorrupt("the magic number does not match")
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
        # A delta may still be being written, or was cut off by a power failure; what
        # replaced the file was whole.
        if self._offset == _HEAD.size or (delta and not (delta.base or delta.last)):
            raise SnapshotCorrupt("it ends early")

    def _next_message(self, file: int) -> bytes | None:
        """Read the record at the offset; None if it is not there as a whole."""
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
    """Replace the file at `path` by one that holds nothing but `whole`."""
    writer = SnapshotWriter(path, whole)
    writer.put_in_place()
    writer.close()


def read(path: Path) -> Snapshot:
    """Return what the file says with all its deltas; raise as `parts` does."""
    path.stat()
    contents = Contents()
    for delta in SnapshotReader(path).parts():
        if delta.base == delta.part == 0:
            contents = Contents()
        contents.take(delta)
    return contents.as_snapshot()


def _write(file: int, data: bytes) -> None:
    """Write all of it: the kernel may take less when a disk fills up."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
