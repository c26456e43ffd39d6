"""Test what is said of a kernel, for kernels of several ages."""

import pytest

from inference.engine.sandbox.rules import SandboxRules
from inference.installation import walls
from inference.installation.walls import Architecture, Kernel
from tests.inference.engine.sandbox.child import inside

FILTERS = Architecture(0xC000_003E, 317, 0)


@pytest.mark.parametrize(
    ("kernel", "open_walls"),
    [
        (Kernel(7, "", FILTERS), set()),
        (Kernel(6, "", FILTERS), set()),
        # Linux 6.8, 6.1 and 5.13.
        (Kernel(4, "", FILTERS), {"processes"}),
        (Kernel(2, "", FILTERS), {"files", "processes"}),
        (Kernel(1, "", FILTERS), {"files", "processes"}),
        (Kernel(0, "no Landlock", FILTERS), {"files", "processes"}),
        (
            Kernel(7, "", None, "no filters"),
            {"files", "processes", "network", "kernel"},
        ),
    ],
)
def test_each_wall_that_a_kernel_lacks_is_said(kernel, open_walls):
    assert set(walls.gaps(walls.describe(kernel))) == open_walls


def test_what_a_kernel_lacks_is_said_with_its_reason():
    none = walls.describe(Kernel(0, "no Landlock", None, "no filters"))
    older = walls.describe(Kernel(4, "", FILTERS))

    assert none["files"] == "open: all files of its user, because no Landlock"
    assert none["network"] == "open: all sockets, because no filters"
    assert older["processes"] == (
        "partly open: it can read no other process, but end those of its user: "
        "that needs Landlock 6 (Linux 6.12), this kernel has Landlock 4"
    )


def test_a_model_that_may_connect_listens_on_ports_where_landlock_is_old():
    older, newer = (
        walls.describe(Kernel(version, "", FILTERS), network=True)["network"]
        for version in (3, 4)
    )

    assert older.startswith("partly open: it may connect")
    assert newer.startswith("it may connect")


def what_holds():
    return None


def test_what_is_said_outside_holds_inside(tmp_path):
    result = inside(what_holds, rules=SandboxRules(scratch=str(tmp_path)))

    assert result.error == ""
    assert walls.available().items() <= result.walls.items()
    assert {*result.walls} - {*walls.available()} == {"environment", "limits"}
