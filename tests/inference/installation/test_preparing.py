import os
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inference.installation import modes, volumes
from inference.installation.home import Home
from inference.installation.preparing import HomeUnusable, prepare

ROOT_USER = os.geteuid() == 0


@pytest.fixture
def folder():
    """Return a folder with a short path, because sockets of others are found by it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def shared_home(folder):
    folder.mkdir()
    folder.chmod(0o2770)
    return Home(folder)


def test_a_home_of_a_group_stays_one_with_all_that_is_written_in_it(folder):
    home = shared_home(folder / "home")

    home.prepare()
    (home.spool / "file").touch()
    (home.artifacts / "digest").mkdir()

    modes_of_folders = {
        stat.S_IMODE(path.stat().st_mode)
        for path in (home.root, home.run, home.spool, home.artifacts / "digest")
    }
    assert modes_of_folders == {0o2770}
    assert stat.S_IMODE((home.spool / "file").stat().st_mode) == 0o660
    assert modes.of_files(home.run) == 0o660


def test_processes_with_the_same_id_prepare_a_home_together(tmp_path):
    # In containers each is process 1. Threads share an id, too.
    home = Home(tmp_path / "home")

    with ThreadPoolExecutor(8) as processes:
        prepared = list(processes.map(lambda _: home.prepare(), range(400)))
        identities = set(processes.map(lambda _: home.identity(), range(40)))

    assert len(prepared) == 400
    assert len(identities) == 1
    assert not list(home.run.iterdir())


def test_a_home_of_one_user_inherits_no_group_from_the_folder_above(tmp_path):
    above = shared_home(tmp_path / "above").root
    home = Home(above / "home")

    home.prepare()

    assert stat.S_IMODE(home.root.stat().st_mode) & 0o777 == 0o700
    assert modes.of_files(home.run) == 0o600


def test_a_home_of_a_group_is_closed_to_all_others(tmp_path):
    home = shared_home(tmp_path / "home")
    home.root.chmod(0o2775)

    home.prepare()

    assert stat.S_IMODE(home.root.stat().st_mode) == 0o2770


def test_without_a_volume_a_container_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(volumes, "is_mounted", lambda folder: False)

    with pytest.raises(HomeUnusable, match="No volume is mounted at MODELYARD_HOME="):
        prepare(Home(tmp_path / "home"), {"MODELYARD_NEEDS_VOLUME": "true"})

    prepare(Home(tmp_path / "home"), {})


@pytest.mark.parametrize(
    ("point", "found"),
    [
        ("/", False),
        ("/var/lib/modelyard", True),
        ("/var/lib", True),
        ("/var/lib/modelyard/run", True),
        ("/var/lib/modelyard-2", False),
        (r"/var/lib/my\040home", False),
    ],
)
def test_a_volume_is_a_mount_at_above_or_in_the_home(tmp_path, point, found):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 /x {point} rw,noatime - ext4 /dev/root rw\n")

    assert volumes.is_mounted(Path("/var/lib/modelyard"), mounts=mounts) is found


_PREPARE = (
    "import os, sys; from pathlib import Path;"
    "from inference.installation.home import Home;"
    "from inference.installation.preparing import prepare_or_exit;"
    # Not earlier: the other user may be unable to read this Python.
    "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
    "prepare_or_exit(Home(Path(sys.argv[1])), os.environ)"
)


@pytest.mark.skipif(not ROOT_USER, reason="becomes another user")
def test_a_home_of_another_user_is_refused_with_the_owner_and_an_exit_code(folder):
    home = Home(folder / "home")
    home.prepare()

    done = subprocess.run(
        [sys.executable, "-c", _PREPARE, str(home.root)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78
    assert "cannot be written (Permission denied)" in done.stderr
    assert "This is user 65534 with group 65534;" in done.stderr
    assert "belongs to 0:0 and has the mode 700." in done.stderr
