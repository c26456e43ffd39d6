import os
import pwd
import shutil
from dataclasses import replace

import pytest

from config.checks.kinds import home as home_check
from config.checks.kinds.home import HomeFacts
from inference.installation.home import Home

GB = 1024**3
WELL = HomeFacts("/home", user="modelyard", owner="modelyard")


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        ({}, [""]),
        ({"exists": False}, ["home-missing"]),
        ({"user": "root"}, ["wrong-user"]),
        ({"user": "site", "shared": True}, [""]),
        ({"unwritable": "/home", "reason": "its mode"}, ["home-not-writable"]),
        ({"unwritable": "/home", "read_only": True}, ["home-read-only"]),
        ({"foreign": ("/home/secret_key",)}, ["foreign-files"]),
        ({"free_bytes": GB // 10}, ["disk-full"]),
        ({"free_bytes": 2 * GB}, ["disk-low"]),
        # Of a small disk, half is enough.
        ({"free_bytes": GB // 8, "total_bytes": GB // 4}, [""]),
        ({"free_bytes": 0, "total_bytes": 0}, [""]),
        ({"free_files": 3}, ["inodes-low"]),
    ],
)
def test_each_fact_has_its_finding(facts, codes):
    found = home_check.judge(replace(WELL, **facts))

    assert [finding.code for finding in found] == codes


def test_a_home_that_was_just_made_can_be_written(home):
    found = home_check.facts(home)

    assert (found.unwritable, found.foreign) == ("", ())
    assert found.user == found.owner
    assert found.free_bytes > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_home_that_root_took_goes_back_to_the_service(home):
    home.identity()
    for path in (home.root / "home_id", home.spool):
        shutil.chown(path, "nobody")

    found = home_check.facts(home)
    [*_, foreign] = home_check.judge(replace(found, user="nobody", foreign=("/home",)))

    assert found.owner == "nobody"
    assert found.foreign[0] == str(home.root)
    assert str(home.spool) not in found.foreign
    assert foreign.mend == f"sudo chown -R nobody: {home.root}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_home_that_root_took_whole_is_still_that_of_its_user(home, monkeypatch):
    home.identity()
    service = pwd.getpwnam("nobody")
    of_service = pwd.struct_passwd((*service[:5], str(home.root), service[6]))
    monkeypatch.setattr(pwd, "getpwall", lambda: [pwd.getpwuid(0), of_service])

    found = home_check.facts(home)
    codes = [it.code for it in home_check.judge(replace(found, user="nobody"))]

    assert found.owner == "nobody"
    assert {str(home.root), str(home.home_id)} <= set(found.foreign)
    assert codes == ["foreign-files"]


def test_a_home_that_is_not_there_is_missing(tmp_path):
    assert not home_check.facts(Home(tmp_path / "none")).exists


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_folder_whose_mode_forbids_writing_is_named(home):
    home.spool.chmod(0o500)

    found = home_check.facts(home)

    home.spool.chmod(0o700)
    assert found.unwritable == str(home.spool)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_of_others_are_named(home):
    home.secret_key.write_text("x")
    os.chown(home.secret_key, 12345, -1)

    assert home_check.facts(home).foreign == (str(home.secret_key),)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_users_of_one_group_may_share_a_home(home):
    home.root.chmod(0o2770)
    home.secret_key.write_text("x")
    os.chown(home.secret_key, 12345, -1)

    found = home_check.facts(home)

    assert found.shared
    assert found.foreign == ()


def test_sizes_are_written_in_their_unit():
    assert home_check.in_bytes(3 * GB) == "3.0 GB"
    assert home_check.in_bytes(5 * 1024**2) == "5.0 MB"
    assert home_check.in_bytes(2048) == "2 kB"
    assert home_check.in_bytes(7) == "7 bytes"
