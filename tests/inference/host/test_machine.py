import os
import subprocess
import sys

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
