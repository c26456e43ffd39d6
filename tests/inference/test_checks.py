"""Test the warning of walls that this machine's kernel cannot build."""

from django.core.checks import run_checks

from inference.installation import walls


def warnings():
    return [it for it in run_checks(tags=["walls"]) if it.id == "inference.W001"]


def test_a_machine_without_walls_is_warned_of(monkeypatch):
    old = walls.Kernel(0, "this kernel has no Landlock", None, "no filters")
    monkeypatch.setattr(walls, "kernel", lambda: old)

    (warning,) = warnings()

    assert "files: open: all files of its user, because this kernel" in warning.msg
    assert "Linux 6.12" in warning.hint


def test_a_machine_with_all_walls_is_not(monkeypatch):
    new = walls.Kernel(7, "", walls.Architecture(0xC000_003E, 317, 0))
    monkeypatch.setattr(walls, "kernel", lambda: new)

    assert warnings() == []
