"""Find the Pythons of this machine."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from inference.environments.needs import OLDEST_PYTHON

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def find(minor: str) -> Path | None:
    """Return the program of a Python such as 3.12, on the path or beside this one."""
    if minor == OWN:
        return Path(sys.executable)
    beside = os.pathsep.join(
        (str(Path(sys.executable).parent), str(Path(sys.base_prefix, "bin")))
    )
    for path in (None, beside):
        program = shutil.which(f"python{minor}", path=path)
        if program is not None and _runs(program, minor):
            return Path(program)
    return None


def _runs(program: str, minor: str) -> bool:
    """Return whether it is that Python: version managers leave names that fail."""
    try:
        answer = subprocess.run(
            [program, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip() == minor


@functools.cache
def installed() -> tuple[str, ...]:
    """Return the Pythons of this machine that engine processes can run with."""
    major, oldest = OLDEST_PYTHON
    minors = (f"{major}.{number}" for number in range(oldest, oldest + 10))
    return tuple(minor for minor in minors if find(minor) is not None)


@functools.cache
def obstacle(minor: str) -> str:
    """Return why engine processes cannot run with a Python; empty: they can."""
    if tuple(map(int, minor.split("."))) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return f"engine processes need Python {oldest} or later"
    if find(minor) is None:
        return f"python{minor} is not installed on this machine"
    return ""
