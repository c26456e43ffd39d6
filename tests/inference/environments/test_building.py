"""Builds with a made-up pip; tests/…/test_side_by_side.py has the real one."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference.environments import building, guard
from inference.environments.building import (
    LOG_BYTES,
    Build,
    BuildFailed,
    BuildStopped,
    Limits,
)
from tests.waiting import wait_until

# Stands for the Python that makes an environment.
MAKES = """#!/bin/sh
{script}
"""


@pytest.fixture
def build_with(tmp_path):
    """Return a build whose first step is a script."""

    def make(script: str, *, timeout_s=60.0, max_bytes=10**9, stopped=lambda: False):
        python = tmp_path / "python"
        python.write_text(MAKES.format(script=script))
        python.chmod(0o755)
        return Build(
            folder=tmp_path / "environment",
            python=python,
            lines=["a==1"],
            limits=Limits(timeout_s=timeout_s, max_bytes=max_bytes),
            watch=lambda _: None,
            stopped=stopped,
        )

    return make


def test_the_reason_is_what_pip_calls_an_error(build_with):
    build = build_with(
        "echo Collecting a; echo 'ERROR: No matching distribution for a==1'; exit 1"
    )

    with pytest.raises(BuildFailed, match=r"^Python could not make it: No matching"):
        build.run()
    assert b"Collecting a" in build.log


def test_without_an_error_the_last_lines_are_the_reason(build_with):
    build = build_with("for i in 1 2 3 4 5; do echo line $i; done; exit 3")

    with pytest.raises(BuildFailed, match=r"line 3 line 4 line 5$"):
        build.run()


def test_a_build_ends_in_time_with_all_that_it_started(build_with, tmp_path):
    build = build_with(
        f"sleep 300 & echo $! > {tmp_path}/pid; sleep 300", timeout_s=1.0
    )

    with pytest.raises(BuildFailed, match="not built within 1 seconds"):
        build.run()
    wait_until(lambda: not is_running(tmp_path / "pid"), what="its end")


def test_a_build_that_hangs_after_its_output_ends_in_time(build_with):
    build = build_with("exec >&- 2>&-; sleep 300", timeout_s=1.0)

    with pytest.raises(BuildFailed, match="not built within"):
        build.run()


def test_what_a_step_leaves_behind_holds_nothing_up(build_with):
    began = time.monotonic()
    build = build_with("sleep 300 & exit 1")

    with pytest.raises(BuildFailed):
        build.run()
    assert time.monotonic() - began < 30


def test_too_large_an_environment_is_given_up(build_with, monkeypatch):
    monkeypatch.setattr(building, "_MEASURE_S", 0.0)
    build = build_with(
        "mkdir -p $4; head -c 3000000 /dev/zero > $4/big; sleep 300",
        max_bytes=2_000_000,
    )

    with pytest.raises(BuildFailed, match=r"larger than 0\.0 GB"):
        build.run()


def test_a_worker_that_ends_stops_its_build(build_with):
    began = time.monotonic()
    build = build_with("sleep 300", stopped=lambda: time.monotonic() > began + 1)

    with pytest.raises(BuildStopped):
        build.run()


def test_the_log_is_bounded_and_has_no_passwords(build_with):
    build = build_with(
        "yes line | head -c 300000; echo Looking in https://me:secret@host/simple; "
        "exit 1"
    )

    with pytest.raises(BuildFailed):
        build.run()
    assert len(build.log) == LOG_BYTES
    assert b"secret" not in build.log
    assert b"https://***@host/simple" in build.log


def test_pip_gets_the_operators_configuration_but_no_credentials(tmp_path):
    passed = building.environment(
        {
            "PIP_INDEX_URL": "https://index.example",
            "https_proxy": "http://proxy.example",
            "PATH": "/bin",
            "SECRET_KEY": "s",
            "DATABASE_URL": "d",
            "MLFLOW_TRACKING_PASSWORD": "p",
            "PYTHONPATH": "/x",
        },
        temporary=tmp_path / "none",
    )

    assert set(passed) == {
        *("PIP_INDEX_URL", "https_proxy", "PATH"),
        *("PYTHONNOUSERSITE", "PYTHONUNBUFFERED"),
    }


def test_a_killed_worker_takes_its_build_along(tmp_path):
    """As the kernel does it: the worker's end of the pipe is closed."""
    process = subprocess.Popen(
        [
            *(sys.executable, guard.__file__, "sh", "-c"),
            f"sleep 300 & echo $! > {tmp_path}/pid; sleep 300",
        ],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    wait_until(
        lambda: (tmp_path / "pid").exists() and is_running(tmp_path / "pid"),
        what="its start",
    )

    process.stdin.close()

    assert process.wait(timeout=30) == -signal.SIGKILL
    wait_until(lambda: not is_running(tmp_path / "pid"), what="its end")


def is_running(file: Path) -> bool:
    text = file.read_text().strip()
    if not text:
        return True
    try:
        state = Path(f"/proc/{text}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
