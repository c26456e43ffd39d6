"""Test cgroups on folders that look like the kernel's."""

import os

import pytest

from inference.host import cgroups
from inference.host.cgroups import Cgroups
from inference.placement.processes import EngineProcess

PROCESS = EngineProcess(
    name="churn-a1b2c3", device="cpu", kind="own", memory_limit_bytes=2**30
)


@pytest.fixture
def tree(tmp_path):
    """A service whose processes stand in a subgroup, as systemd makes it."""
    service = tmp_path / "root" / "system.slice" / "modelyard.service"
    (service / "main").mkdir(parents=True)
    (service / "cgroup.controllers").write_text("cpu memory pids\n")
    (service / "cgroup.subtree_control").write_text("")
    (service / "cgroup.procs").write_text("")
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/x\n0::/system.slice/modelyard.service/main\n")
    return own, tmp_path / "root", service


def test_a_delegated_cgroup_is_found(tree):
    own, root, service = tree

    assert cgroups.delegated(own=own, root=root) == service


@pytest.mark.parametrize(
    ("file", "text"),
    [("cgroup.controllers", "cpu pids\n"), ("cgroup.procs", "17\n")],
)
def test_one_that_cannot_be_divided_is_left_alone(tree, file, text):
    own, root, service = tree
    (service / file).write_text(text)

    assert cgroups.delegated(own=own, root=root) is None


@pytest.mark.parametrize("line", ["0::/\n", "0::/only\n", "5:memory:/a/b\n", ""])
def test_without_a_cgroup_of_version_2_there_is_none(tree, line):
    own, root, _ = tree
    own.write_text(line)

    assert cgroups.delegated(own=own, root=root) is None


def test_a_process_is_held_at_its_limit(tree):
    _, _, service = tree
    groups = Cgroups(service)

    groups.hold(PROCESS, 4711)

    group = service / "engine-churn-a1b2c3"
    assert groups.usable
    assert (service / "cgroup.subtree_control").read_text() == "+memory"
    assert (group / "cgroup.procs").read_text() == "4711"
    assert int((group / "memory.max").read_text()) == 2**30 + 64 * 2**20
    assert (group / "memory.oom.group").read_text() == "1"


def test_a_kill_at_the_limit_is_known(tree):
    _, _, service = tree
    groups = Cgroups(service)
    groups.hold(PROCESS, 4711)
    events = service / "engine-churn-a1b2c3" / "memory.events"
    events.write_text("low 0\nmax 3\noom 1\noom_kill 0\n")
    assert not groups.ran_out(PROCESS.name)

    events.write_text("low 0\nmax 3\noom 1\noom_kill 1\n")

    assert groups.ran_out(PROCESS.name)


def test_without_cgroups_nothing_is_done():
    groups = Cgroups(None)

    groups.hold(PROCESS, 4711)

    assert not groups.usable
    assert not groups.ran_out(PROCESS.name)


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A service whose cgroup was given to its user, without a subgroup yet."""
    user = os.geteuid() or 1234
    monkeypatch.setattr(os, "geteuid", lambda: user)
    folder = tmp_path / "root" / "system.slice" / "modelyard.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("memory\n")
    (folder / "cgroup.subtree_control").write_text("")
    (folder / "cgroup.procs").write_text(f"{os.getpid()}\n")
    os.chown(folder, user, -1)
    own = tmp_path / "own"
    own.write_text("0::/system.slice/modelyard.service\n")
    return own, tmp_path / "root", folder


def test_a_process_makes_room_in_the_cgroup_that_was_delegated_to_it(service):
    own, root, folder = service

    cgroups.make_room(own=own, root=root)

    assert (folder / "main/cgroup.procs").read_text() == str(os.getpid())
    # As the kernel then says.
    own.write_text("0::/system.slice/modelyard.service/main\n")
    (folder / "cgroup.procs").write_text("")
    assert cgroups.delegated(own=own, root=root) == folder
    cgroups.make_room(own=own, root=root)
    assert not (folder / "main/main").exists()


def test_a_cgroup_with_other_processes_is_left_as_it_is(service):
    own, root, folder = service
    (folder / "cgroup.procs").write_text(f"{os.getpid()}\n17\n")

    cgroups.make_room(own=own, root=root)

    assert not (folder / "main").exists()


def test_a_cgroup_of_another_user_is_left_as_it_is(service, monkeypatch):
    own, root, folder = service
    other = folder.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)

    cgroups.make_room(own=own, root=root)

    assert not (folder / "main").exists()
