"""Write and read the file of a backup.

It is a compressed tar archive, encrypted with age if there is a recipient. The first
member says what the backup is, the last has the size and the SHA-256 of every other.
So a file that was cut off, or that is something else, is refused before it changes
anything.
"""

import contextlib
import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

FORMAT = 1
_HEAD = "backup.json"
_DIGESTS = "digests.json"
_ENCRYPTED = b"age-encryption.org/"
# A member of unknown length is written in pieces of this size.
_PIECE_BYTES = 8 * 1024**2


class Refused(Exception):
    """The backup cannot be made or restored; the text is for the operator."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is."""

    # It grows when older code could not restore the file correctly.
    format: int = FORMAT
    version: str
    created_at: str
    # The home that was copied, for people.
    home: str
    # postgresql or sqlite.
    database: str
    migrations: list[tuple[str, str]]
    # The last number that each column `table.column` has got.
    sequences: dict[str, int] = {}
    # Files that the database names and that were not there.
    missing: list[str] = []


@contextlib.contextmanager
def writing(file: IO[bytes], head: Head) -> Iterator["ArchiveWriter"]:
    """Yield a writer; the archive is complete unless an error passes."""
    writer = ArchiveWriter(file)
    try:
        writer.begin(head)
        yield writer
        writer.close()
    except BaseException:
        writer.abandon()
        raise


class ArchiveWriter:
    """Write members one after another."""

    def __init__(self, file: IO[bytes]) -> None:
        self._compressed = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1)
        self._tar = tarfile.open(  # noqa: SIM115  # `close` closes it.
            fileobj=self._compressed, mode="w|"
        )
        self._digests: dict[str, tuple[int, str]] = {}

    def begin(self, head: Head) -> None:
        self._add(_HEAD, msgspec.json.encode(head))

    def add_file(self, name: str, file: IO[bytes], size: int) -> None:
        """Add the first `size` bytes of a file."""
        member = tarfile.TarInfo(name)
        member.size = size
        reading = _Hashing(file)
        self._tar.addfile(member, reading)
        self._digests[name] = (size, reading.digest.hexdigest())

    def add_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Add data of unknown length as the members `name/1`, `name/2` and so on."""
        number = 0
        waiting = bytearray()
        for piece in pieces:
            waiting += piece
            if len(waiting) >= _PIECE_BYTES:
                number += 1
                self._add(f"{name}/{number}", bytes(waiting))
                waiting.clear()
        self._add(f"{name}/{number + 1}", bytes(waiting))

    def close(self) -> None:
        self._add(_DIGESTS, msgspec.json.encode(self._digests))
        self._tar.close()
        self._compressed.close()

    def abandon(self) -> None:
        """Write nothing more, also not when these objects end."""
        stream: Any = self._tar.fileobj
        stream.closed = True
        self._compressed.fileobj = None  # type: ignore[assignment]  # as it ends

    def _add(self, name: str, data: bytes) -> None:
        self.add_file(name, io.BytesIO(data), len(data))


class _Hashing:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


@contextlib.contextmanager
def encrypted(file: IO[bytes], recipients: Sequence[str]) -> Iterator[IO[bytes]]:
    """Yield a file whose bytes go to `file`, encrypted if there are recipients."""
    if not recipients:
        yield file
        return
    options = [part for one in recipients for part in ("-r", one)]
    with _age(options, stdin=subprocess.PIPE, stdout=file) as process:
        assert process.stdin is not None
        try:
            yield process.stdin
            process.stdin.close()
        except BrokenPipeError:
            pass  # what age says is the reason
        _expect_success(process, "The backup cannot be encrypted")


@contextlib.contextmanager
def opened(path: Path, identity: Path | None) -> Iterator[IO[bytes]]:
    """Open a backup for reading, decrypted if need be; raise Refused.

    What its reader raises because the file is broken becomes Refused, too.
    """
    try:
        with _plain(path, identity) as file:
            yield file
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused(f"{path} is no backup, or it was cut off or changed.") from error


@contextlib.contextmanager
def _plain(path: Path, identity: Path | None) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb", buffering=0))
            begin = file.read(len(_ENCRYPTED))
            file.seek(0)
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}.") from error
        if begin != _ENCRYPTED:
            yield file
            return
        if identity is None:
            raise Refused(f"{path} is encrypted. Name its key: --identity FILE")
        options = ["-d", "-i", str(identity)]
        process = stack.enter_context(_age(options, stdin=file, stdout=subprocess.PIPE))
        assert isinstance(process.stdout, io.BufferedReader)
        # A wrong key gives no byte; what was cut off ends with an error.
        if not process.stdout.peek(1):
            _expect_success(process, f"{path} cannot be decrypted")
        yield process.stdout
        if not process.stdout.peek(1):
            _expect_success(process, f"{path} cannot be decrypted")


@contextlib.contextmanager
def _age(options: list[str], **streams: Any) -> Iterator["subprocess.Popen[bytes]"]:
    program = shutil.which("age")
    if program is None:
        raise Refused("Encrypted backups need the program age: apt-get install age")
    process = subprocess.Popen([program, *options], stderr=subprocess.PIPE, **streams)
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                # Closing stdin writes what is still buffered.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def _expect_success(process: "subprocess.Popen[bytes]", what: str) -> None:
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace").strip().splitlines()
    if process.wait():
        raise Refused(f"{what}: {said[0] if said else 'age failed'}")


def members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes], int]]:
    """Yield name, content and size of each member but the first and the last."""
    with (
        gzip.GzipFile(fileobj=file, mode="rb") as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                raise Refused(f"The backup holds {member.name}, which is no file.")
            yield member.name, content, member.size
        # Its end has a checksum, too.
        while plain.read(_PIECE_BYTES):
            pass


def verified(path: Path, identity: Path | None) -> Head:
    """Read the whole file, check it, and return its head; raise Refused."""
    found: dict[str, tuple[int, str]] = {}
    head, digests = None, b""
    with opened(path, identity) as file:
        for name, content, size in members(file):
            if head is None:
                head = _read_head(name, content.read())
                continue
            if name == _DIGESTS:
                digests = content.read()
                continue
            found[name] = (size, _digest(content))
    if head is None:
        raise Refused("The file is empty.")
    try:
        wanted = msgspec.json.decode(digests, type=dict[str, tuple[int, str]])
    except msgspec.DecodeError as error:
        raise Refused("The backup was cut off: its end is missing.") from error
    wanted.pop(_HEAD, None)
    if wanted != found:
        raise Refused("The backup was changed: its checksums do not match.")
    return head


def contents(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes], int]]:
    """Yield the members that hold data."""
    for name, content, size in members(file):
        if name not in (_HEAD, _DIGESTS):
            yield name, content, size


def _read_head(name: str, data: bytes) -> Head:
    if name != _HEAD:
        raise Refused("The file is an archive, but no backup of Modelyard.")
    try:
        number = msgspec.json.decode(data, type=dict[str, Any]).get("format")
        if number != FORMAT:
            raise Refused(
                f"The backup has format {number}; this version of Modelyard restores "
                f"format {FORMAT}. Use the version that made it, or a newer one."
            )
        return msgspec.json.decode(data, type=Head)
    except msgspec.DecodeError as error:
        raise Refused("The file is an archive, but no backup of Modelyard.") from error


def _digest(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := content.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()
