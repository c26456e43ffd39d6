"""A backup's file is whole, or it is refused in words."""

import gzip
import io
import random
import shutil
import subprocess
import tarfile

import msgspec
import pytest

from config.backups import archive
from config.backups.archive import Head, Refused

# Bytes that do not shrink, so that each one of the file matters.
ROWS = random.Random(20261130).randbytes(9_000_000)
HEAD = Head(
    version="1", created_at="now", home="/home", database="sqlite", migrations=[]
)


def write(path, *, head=HEAD, recipients=()):
    with (
        path.open("wb") as file,
        archive.encrypted(file, recipients) as plain,
        archive.writing(plain, head) as writer,
    ):
        writer.add_file("home/one", io.BytesIO(b"first and more"), 5)
        writer.add_pieces("database/rows", [ROWS[:5_000_000], ROWS[5_000_000:]])
    return path


def read(path, identity=None):
    with archive.opened(path, identity) as file:
        return {name: content.read() for name, content, _ in archive.contents(file)}


needs_age = pytest.mark.skipif(not shutil.which("age"), reason="age is not installed")


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key.txt"
    subprocess.run(["age-keygen", "-o", path], check=True, capture_output=True)
    (public,) = (
        line.rpartition(" ")[2]
        for line in path.read_text().splitlines()
        if line.startswith("# public key")
    )
    return path, public


def test_what_is_written_is_read_back(tmp_path):
    path = write(tmp_path / "backup")

    assert archive.verified(path, None) == HEAD
    assert read(path) == {
        "home/one": b"first",
        "database/rows/1": ROWS,
        "database/rows/2": b"",
    }


@needs_age
def test_an_encrypted_backup_needs_its_own_key(tmp_path, key):
    identity, public = key
    path = write(tmp_path / "backup", recipients=[public])
    other = tmp_path / "other.txt"
    subprocess.run(["age-keygen", "-o", other], check=True, capture_output=True)

    assert archive.verified(path, identity) == HEAD
    assert read(path, identity)["home/one"] == b"first"
    with pytest.raises(Refused, match="Name its key: --identity FILE"):
        archive.verified(path, None)
    with pytest.raises(Refused, match=r"cannot be decrypted: .*no identity matched"):
        archive.verified(path, other)


@needs_age
def test_a_recipient_that_is_no_key_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"cannot be encrypted: .*age1nobody"):
        write(tmp_path / "backup", recipients=["age1nobody"])


@pytest.mark.parametrize("encrypted", [False, pytest.param(True, marks=needs_age)])
@pytest.mark.parametrize("part", [0.001, 0.3, 0.9, 0.999])
def test_a_backup_that_was_cut_off_is_refused(tmp_path, request, part, encrypted):
    identity, public = request.getfixturevalue("key") if encrypted else (None, "")
    path = write(tmp_path / "backup", recipients=[public] if encrypted else [])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])

    with pytest.raises(Refused, match=r"cut off|decrypted|empty"):
        archive.verified(path, identity)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_changed_byte_is_found(tmp_path, place):
    path = write(tmp_path / "backup")
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)

    with pytest.raises(Refused):
        archive.verified(path, None)


def test_a_member_that_was_replaced_is_found(tmp_path):
    path = write(tmp_path / "backup")
    plain = gzip.decompress(path.read_bytes())
    assert plain.count(b"first") == 1
    path.write_bytes(gzip.compress(plain.replace(b"first", b"other")))

    with pytest.raises(Refused, match="checksums do not match"):
        archive.verified(path, None)


def test_a_newer_format_is_refused_in_words(tmp_path):
    path = write(tmp_path / "backup", head=msgspec.structs.replace(HEAD, format=2))

    with pytest.raises(Refused, match=r"format 2; this version .* format 1"):
        archive.verified(path, None)


def foreign_archive(path):
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("holiday.jpg"))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PGDMP of another program" * 100),
        lambda path: path.write_bytes(gzip.compress(b"text" * 1000)),
        foreign_archive,
    ],
)
def test_another_programs_file_is_refused(tmp_path, make):
    path = tmp_path / "backup"
    make(path)

    with pytest.raises(Refused, match=r"no backup|empty"):
        archive.verified(path, None)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Refused, match=r"nothing.backup cannot be read: No such file"):
        archive.verified(tmp_path / "nothing.backup", None)
