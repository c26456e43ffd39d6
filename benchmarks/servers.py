"""Start a server to be measured, wait until it is ready, and stop it."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil


class NotReady(Exception):
    """The server did not answer in time; the message ends with its last output."""


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    ready_url: str,
    cwd: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 120,
) -> Iterator[psutil.Process]:
    """Run `command` until the block ends; enter it when `ready_url` returns 200."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        _await(process, ready_url, log, timeout_s)
        yield psutil.Process(process.pid)
    finally:
        _stop(process)


def _await(
    process: subprocess.Popen[bytes], url: str, log: Path, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(url, timeout=2) as response,
        ):
            if response.status == 200:
                return
        time.sleep(0.2)
    raise NotReady("\n".join(log.read_text(errors="replace").splitlines()[-15:]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def memory_mb(process: psutil.Process) -> float:
    """Return the proportional set size of a process and its descendants."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += member.memory_full_info().pss
    return total / 1024**2
