import pytest

from inference.engine.settings import EngineSettings
from inference.engine.wire.notes import Note
from inference.host import bounds
from inference.host.bounds import Use
from inference.placement.processes import EngineProcess

SETTINGS = EngineSettings(max_scratch_bytes=1000, max_processes=5)
NOW = 1000.0
USE = Use(notes=(), beat=NOW, stopped_at=None, memory_bytes=0)


def piece(seconds, *, loading=False):
    return Note("churn v1", 3, 1, NOW - seconds, loading)


def broken(use, **process):
    spec = EngineProcess(name="a", device="cpu", **process)
    return bounds.broken(use, spec, SETTINGS, now=NOW)


@pytest.mark.parametrize(
    "use",
    [
        USE,
        USE._replace(notes=(piece(59.9),)),
        # A load may take long, and holds the interpreter meanwhile.
        USE._replace(notes=(piece(3600, loading=True),), beat=NOW - 3600),
        USE._replace(beat=NOW - 29),
        # It has not begun yet.
        USE._replace(beat=0.0),
        USE._replace(stopped_at=NOW - 1),
        USE._replace(scratch_bytes=1000, processes=5),
        # Without a limit.
        USE._replace(memory_bytes=2**40),
    ],
)
def test_what_keeps_within_its_bounds_goes_on(use):
    assert broken(use) == ""


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (USE._replace(notes=(piece(60.1),)), "longer than 60 s"),
        (USE._replace(notes=(piece(99, loading=True), piece(61))), "max_run_s"),
        (USE._replace(beat=NOW - 31), "did nothing for 30 s"),
        (USE._replace(stopped_at=NOW - 3.1), "SIGSTOP"),
        (USE._replace(scratch_bytes=1001), "scratch folder"),
        (USE._replace(scratch_bytes=None), "cannot be measured"),
        (USE._replace(processes=6), "6 processes of its own; the limit is 5"),
    ],
)
def test_what_breaks_a_bound_is_named(use, words):
    assert words in broken(use)


def test_a_version_may_set_its_own_time():
    use = USE._replace(notes=(piece(1.5),))

    assert "longer than 1 s" in broken(use, max_run_s=1.0)
    assert broken(use, max_run_s=2.0) == ""


def test_memory_over_the_limit_is_named():
    use = USE._replace(memory_bytes=600 * 2**20)

    words = broken(use, memory_limit_bytes=500 * 2**20)

    assert words == "it used 600 MB; its limit is 500 MB."
    assert broken(use, memory_limit_bytes=600 * 2**20) == ""
