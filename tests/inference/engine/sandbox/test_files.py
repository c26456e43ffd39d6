"""Test which files a sandboxed process reaches."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.inference.engine.sandbox.child import inside


def read(path):
    return Path(path).read_text()


def write(path):
    Path(path).write_text("changed")
    return Path(path).read_text()


def listed(path):
    return os.listdir(path)


def test_it_reads_its_artifact_and_writes_its_scratch_folder(rules, artifact):
    assert inside(read, artifact / "model", rules=rules).value == "weights"
    assert inside(write, f"{rules.scratch}/new", rules=rules).value == "changed"


@pytest.mark.parametrize("action", [read, write])
def test_it_neither_reads_nor_writes_other_files(rules, secret, action):
    assert inside(action, secret, rules=rules).error == "PermissionError"
    assert secret.read_text() == "credentials"


def test_it_does_not_write_its_artifact(rules, artifact):
    assert inside(write, artifact / "model", rules=rules).error == "PermissionError"
    assert inside(write, artifact / "new", rules=rules).error == "PermissionError"
    assert [path.read_text() for path in artifact.iterdir()] == ["weights"]


def test_it_lists_no_other_folder(rules, secret):
    assert inside(listed, secret.parent, rules=rules).error == "PermissionError"
    assert inside(listed, "/etc", rules=rules).error == "PermissionError"
    assert inside(listed, "/dev/shm", rules=rules).error == "PermissionError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read it outside")
def test_root_reads_no_passwords(rules):
    assert inside(read, "/etc/shadow", rules=rules).error == "PermissionError"


def read_by_symlink(scratch, path):
    link = Path(scratch, "link")
    link.symlink_to(path)
    return link.read_text()


def read_by_hard_link(scratch, path):
    link = Path(scratch, "link")
    link.hardlink_to(path)
    return link.read_text()


def read_by_way_up(scratch, path):
    return Path(scratch, "..", "installation", Path(path).name).read_text()


def read_by_current_folder(scratch, path):
    os.chdir(Path(path).parent)
    return Path(Path(path).name).read_text()


def read_by_moving(scratch, path):
    moved = Path(scratch, "moved")
    os.rename(path, moved)
    return moved.read_text()


def read_by_another_program(scratch, path):
    done = subprocess.run(
        [sys.executable, "-c", f"open({path!r}).read()"], capture_output=True, text=True
    )
    raise eval(done.stderr.splitlines()[-1].partition(":")[0])


@pytest.mark.parametrize(
    "way",
    [
        read_by_symlink,
        read_by_hard_link,
        read_by_way_up,
        read_by_current_folder,
        read_by_moving,
        read_by_another_program,
    ],
)
def test_no_way_leads_to_another_file(rules, secret, way):
    result = inside(way, rules.scratch, str(secret), rules=rules)

    # A link or move across the border is refused as one between two disks.
    assert result.error in ("PermissionError", "OSError")
    assert result.value is None
    assert secret.read_text() == "credentials"


def change_mode(path):
    os.chmod(path, 0)
    os.utime(path, (1, 1))
    with open(path) as file:
        os.fchmod(file.fileno(), 0)


def test_it_does_not_change_the_mode_or_time_of_files(rules, artifact, secret):
    before = (artifact / "model").stat(), secret.stat()

    inside(change_mode, artifact / "model", rules=rules)
    inside(change_mode, secret, rules=rules)

    after = (artifact / "model").stat(), secret.stat()
    assert [it.st_mode for it in after] == [it.st_mode for it in before]
    assert [it.st_mtime for it in after] == [it.st_mtime for it in before]


def empty(path):
    os.truncate(path, 0)


def test_it_empties_no_file(rules, artifact, secret):
    assert inside(empty, secret, rules=rules).error == "PermissionError"
    assert inside(empty, artifact / "model", rules=rules).error == "PermissionError"
    assert (artifact / "model").read_text() == "weights"


def work_in(scratch):
    folder = Path(scratch, "a", "b")
    folder.mkdir(parents=True)
    (folder / "file").write_text("text")
    (folder / "file").rename(Path(scratch, "a", "moved"))
    shutil.copy2(Path(scratch, "a", "moved"), folder / "copy")
    (folder / "link").symlink_to("copy")
    with (folder / "copy").open("r+") as file:
        file.truncate(2)
    left = (folder / "link").read_text()
    shutil.rmtree(Path(scratch, "a"))
    return [left, *os.listdir(scratch)]


def test_it_makes_moves_copies_cuts_and_removes_files_in_its_scratch_folder(rules):
    result = inside(work_in, rules.scratch, rules=rules)

    assert result.error == ""
    assert result.value[0] == "te"
    assert "a" not in result.value


def read_open(descriptor):
    return os.read(descriptor, 100).decode()


def test_files_that_its_parent_left_open_are_closed(rules, secret):
    with secret.open() as file:
        number = file.fileno()
        kept, closed = (
            inside(
                read_open,
                number,
                rules=msgspec.structs.replace(rules, keep_open=keep),
                pass_fds=(number,),
            )
            for keep in ((number,), ())
        )

    assert kept.value == "credentials"
    assert closed.error == "OSError"


def write_much(path):
    with open(path, "wb") as file:
        file.write(bytes(2 * 1024 * 1024))


def test_a_file_has_a_largest_size(rules):
    small = msgspec.structs.replace(rules, scratch_bytes=1024 * 1024)

    assert inside(write_much, f"{rules.scratch}/big", rules=small).error == "OSError"
    assert Path(rules.scratch, "big").stat().st_size == 1024 * 1024
    assert inside(write_much, f"{rules.scratch}/big", rules=rules).error == ""


def test_what_the_rules_name_must_exist(rules):
    wrong = msgspec.structs.replace(rules, readable=("/nonexistent",))

    assert inside(read, "/dev/null", rules=wrong).error == "FileNotFoundError"
