import os
import subprocess

import pytest

from inference.host import scratch


@pytest.fixture
def nest(tmp_path):
    """Make folders in each other, more than Python and the kernel like."""
    folder = tmp_path / "nest"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def test_the_bytes_of_a_folder_are_counted_without_following_links(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "out").symlink_to("/usr")

    found = scratch.measure(tmp_path)
    assert found is not None
    assert 100_000 <= found < 200_000
    assert scratch.measure(tmp_path / "none") == 0


def test_a_folder_with_too_many_files_is_not_measured(tmp_path):
    for number in range(11):
        (tmp_path / str(number)).touch()

    assert scratch.measure(tmp_path, most_files=11) == 0
    assert scratch.measure(tmp_path, most_files=10) is None


def test_folders_too_deep_to_be_named_are_not_measured(nest):
    assert scratch.measure(nest) is None


def test_a_folder_is_removed_whatever_is_in_it(nest):
    (nest / "file").touch()

    scratch.clear(nest)

    assert not nest.exists()
    scratch.clear(nest)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_closed_folders_are_removed_but_not_measured(tmp_path):
    closed = tmp_path / "scratch" / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0o300)

    assert scratch.measure(tmp_path / "scratch") is None
    scratch.clear(tmp_path / "scratch")

    assert not closed.parent.exists()
