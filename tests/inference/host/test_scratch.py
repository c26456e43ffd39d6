import os
import subprocess

import pytest

from inference.host import scratch
from tests.waiting import wait_until


@pytest.fixture
def nest(tmp_path):
    """Make folders in each other, more than Python and the kernel like."""
    folder = tmp_path / "nest"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(2200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    yield folder
    subprocess.run(["rm", "-rf", tmp_path], check=True)


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
    (nest / "out").symlink_to("/usr")
    closed = nest / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0)

    scratch.clear(nest)

    assert not nest.exists()
    wait_until(lambda: not list(nest.parent.iterdir()))
    scratch.clear(nest)


def test_what_a_link_leads_to_is_kept(tmp_path):
    other = tmp_path / "other"
    (other / "inner").mkdir(parents=True)
    (other / "inner" / "file").touch()
    other.chmod(0o500)
    link = tmp_path / "risk-1a2b3c"
    link.symlink_to(other)

    scratch.clear(link)

    wait_until(lambda: list(tmp_path.iterdir()) == [other])
    assert (other / "inner" / "file").exists()
    assert other.stat().st_mode & 0o777 == 0o500


def test_what_an_earlier_host_moved_away_is_removed(tmp_path):
    left = tmp_path / ".removed-1" / "inner"
    left.mkdir(parents=True)
    kept = tmp_path / "risk-1a2b3c"
    kept.mkdir()

    scratch.finish(tmp_path)

    wait_until(lambda: list(tmp_path.iterdir()) == [kept])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_closed_folders_are_removed_but_not_measured(tmp_path):
    closed = tmp_path / "scratch" / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0o300)

    assert scratch.measure(tmp_path / "scratch") is None
    scratch.clear(tmp_path / "scratch")

    wait_until(lambda: not list(tmp_path.iterdir()))
