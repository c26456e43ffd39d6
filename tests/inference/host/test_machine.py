import contextlib
import os
import subprocess
import sys

import pytest

from inference.host import machine
from inference.host.machine import Family, Stat


def test_children_and_grandchildren_are_found():
    family = Family(
        [
            Stat(10, "S", 1, 10),
            Stat(11, "S", 10, 10),
            Stat(12, "S", 11, 12),
            Stat(20, "S", 1, 20),
        ]
    )

    assert [one.pid for one in family.offspring(10)] == [11, 12]
    assert [one.pid for one in family.children(10)] == [11]
    assert family.offspring(20) == []
    assert sorted(one.pid for one in family.offspring(1)) == [10, 11, 12, 20]


def test_a_circle_of_ids_that_changed_hands_ends():
    family = Family([Stat(1, "S", 2, 1), Stat(2, "S", 1, 1)])

    assert {one.pid for one in family.offspring(1)} == {1, 2}


def test_a_long_chain_is_followed():
    family = Family(Stat(pid + 1, "S", pid, 1) for pid in range(1, 5000))

    assert len(family.offspring(1)) == 4999


def test_a_real_process_is_read():
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        found = machine.stat(child.pid)
        assert found is not None
        assert found.parent == os.getpid()
        assert child.pid in {one.pid for one in machine.everyone()}
        assert machine.rss(child.pid) > 0
        child.communicate(b"\n")

    assert machine.stat(child.pid) is None
    assert machine.rss(child.pid) == 0


def test_memory_of_the_machine_is_read():
    total, free = machine.free_memory()

    assert 0 < free < total


def test_processes_are_found_by_their_variables_and_by_what_they_map(tmp_path):
    own = {**os.environ, "TMPDIR": f"{tmp_path}/scratch/risk"}
    mapping = (
        "import mmap, sys; file = open(sys.argv[1], 'r+b'); "
        "kept = mmap.mmap(file.fileno(), 0); file.close(); print(); input()"
    )
    (tmp_path / "engine-risk.notes").write_bytes(b"\0" * 100)
    commands = [
        (["-c", mapping, str(tmp_path / "engine-risk.notes")], None),
        (["-c", "print(); input()"], own),
        (["-c", "print(); input()", f"{tmp_path}/scratch/"], None),
    ]
    with contextlib.ExitStack() as running:
        children = [
            running.enter_context(
                subprocess.Popen(
                    [sys.executable, *command],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for command, environment in commands
        ]
        for child in children:
            child.stdout.readline()

        found = machine.users_of(f"{tmp_path}/engine-", f"{tmp_path}/scratch/")

        assert sorted(found) == sorted(child.pid for child in children[:2])
        for child in children:
            child.communicate(b"\n")


MEBIBYTE = 2**20


@pytest.fixture
def folders(tmp_path):
    proc, container = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    container.mkdir()
    (proc / "meminfo").write_text("MemTotal: 8192 kB\nMemAvailable: 4096 kB\n")
    (container / "memory.max").write_text(f"{4 * MEBIBYTE}\n")
    (container / "memory.current").write_text(f"{3 * MEBIBYTE}\n")
    (container / "memory.stat").write_text(f"anon 1\ninactive_file {MEBIBYTE}\n")
    return {"proc": proc, "container": container}


def test_the_limit_of_a_container_is_its_memory(folders):
    assert machine.free_memory(**folders) == (4 * MEBIBYTE, 2 * MEBIBYTE)


def test_a_limit_beyond_the_machine_holds_nothing(folders):
    (folders["container"] / "memory.max").write_text(f"{64 * MEBIBYTE}\n")

    assert machine.free_memory(**folders) == (8 * MEBIBYTE, 4 * MEBIBYTE)


@pytest.mark.parametrize("limit", ["max\n", None])
def test_without_a_limit_the_machine_counts(folders, limit):
    file = folders["container"] / "memory.max"
    file.unlink() if limit is None else file.write_text(limit)

    assert machine.free_memory(**folders) == (8 * MEBIBYTE, 4 * MEBIBYTE)
