"""Build one environment with pip, within bounds of time and size. Without Django.

pip reads the operator's own configuration (PIP_INDEX_URL, pip.conf and so on). It gets
no other variable of this process, because building a package may run its code.
"""

import errno
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import inference
from inference.environments import folders, guard
from inference.environments.folders import Built
from inference.installation import disk

# The end of the output that is kept.
LOG_BYTES = 64 * 1024
_TICK_S = 0.5
_MEASURE_S = 5.0
# Models and everybody else need the rest of the disk.
_FREE_BYTES = 500_000_000
_PASSED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NETRC",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_DIRS",
        "XDG_CONFIG_HOME",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
    }
)
# Starts what an engine starts, and lists what is installed.
_TRIAL = """
import json, platform, re, sys
import mlflow.pyfunc
import inference.engine.runners.runner
from importlib.metadata import distributions
packages = {
    re.sub(r"[-_.]+", "-", found.name).lower(): found.version
    for found in distributions() if found.name
}
with open(sys.argv[1], "w") as file:
    json.dump({"python": platform.python_version(), "packages": packages}, file)
"""


class BuildFailed(Exception):
    """The environment cannot be built; the text may be shown."""


class BuildStopped(Exception):
    """Somebody asked to stop."""


@dataclass(frozen=True, slots=True)
class Limits:
    timeout_s: float
    max_bytes: int


@dataclass(slots=True)
class Build:
    """One build; `log` is the end of its output so far."""

    folder: Path
    python: Path
    lines: Sequence[str]
    limits: Limits
    # Called twice a second.
    watch: Callable[["Build"], None]
    stopped: Callable[[], bool]
    log: bytes = b""
    _ends_at: float = field(init=False)
    _measured_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._ends_at = time.monotonic() + self.limits.timeout_s

    def run(self) -> Built:
        """Build from the beginning; raise BuildFailed or BuildStopped."""
        try:
            return self._run()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise BuildFailed(f"Its folder could not be written: {reason}.") from error
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    @property
    def _temporary(self) -> Path:
        return self.folder / "tmp"

    def _run(self) -> Built:
        remove(self.folder)
        own = self.folder / "bin" / "python"
        self._call(
            "Python could not make it",
            [self.python, "-m", "venv", "--without-pip", self.folder],
        )
        self._temporary.mkdir()
        wanted = self.folder / "requirements.txt"
        wanted.write_text("".join(f"{line}\n" for line in self.lines))
        self._call(
            "pip could not install it",
            [
                *(sys.executable, "-m", "pip", "--python", own, "install"),
                *("--no-input", "--disable-pip-version-check"),
                *("--progress-bar", "off", "--no-warn-script-location"),
                *("--prefer-binary", "--requirement", wanted),
            ],
        )
        listed = self._temporary / "listed.json"
        self._call(
            "Engine processes do not start in it",
            [own, "-c", _TRIAL, listed],
            # Our own code comes from where it runs now.
            PYTHONPATH=str(Path(inference.__file__).parents[1]),
            MLFLOW_TRACKING_URI="file:///nonexistent",
        )
        installed = folders.read_list(listed)
        if installed is None:
            raise BuildFailed("It does not tell what is installed in it.")
        shutil.rmtree(self._temporary)
        size = size_of(self.folder)
        built = Built(installed.python, installed.packages, size)
        folders.mark_ready(self.folder, built)
        return built

    def _call(self, what: str, command: Sequence[str | Path], **variables: str) -> None:
        """Run one step and keep its output; raise BuildFailed if it fails."""
        start = len(self.log)
        self._add(f"$ {' '.join(map(str, command[:6]))} …\n".encode())
        process = subprocess.Popen(
            [sys.executable, guard.__file__, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment(os.environ, temporary=self._temporary), **variables},
            cwd=self.folder if self.folder.is_dir() else self.folder.parent,
            start_new_session=True,
        )
        try:
            self._follow(process)
        finally:
            # With all that it left behind in its group.
            _kill(process)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if process.returncode:
            raise BuildFailed(f"{what}: {reason(self.log[start:] or self.log)}")

    def _follow(self, process: "subprocess.Popen[bytes]") -> None:
        """Read its output until it ends; raise if it must not go on."""
        output = process.stdout
        assert output is not None
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            next_look = 0.0
            while True:
                if time.monotonic() >= next_look:
                    self._look()
                    next_look = time.monotonic() + _TICK_S
                if selector.select(_TICK_S):
                    read = os.read(output.fileno(), 65536)
                    self._add(read)
                    if read:
                        continue
                    # Closed, perhaps before it ends.
                    while process.poll() is None:
                        self._look()
                        time.sleep(_TICK_S / 5)
                    return
                if process.poll() is not None:
                    return  # a process that it left behind holds the output open

    def _look(self) -> None:
        self.watch(self)
        if self.stopped():
            raise BuildStopped
        now = time.monotonic()
        if now > self._ends_at:
            raise BuildFailed(
                f"It was not built within {self.limits.timeout_s:,.0f} seconds."
            )
        if now - self._measured_at < _MEASURE_S:
            return
        if size_of(self.folder) > self.limits.max_bytes:
            most = self.limits.max_bytes / 1e9
            raise BuildFailed(f"It is larger than {most:,.1f} GB.")
        if shutil.disk_usage(self.folder.parent).free < _FREE_BYTES:
            raise BuildFailed("The disk is almost full.")
        # Large environments take long to measure.
        self._measured_at = time.monotonic() + (time.monotonic() - now) * 10

    def _add(self, output: bytes) -> None:
        self.log = (self.log + without_passwords(output))[-LOG_BYTES:]


def environment(variables: Mapping[str, str], *, temporary: Path) -> dict[str, str]:
    """Return the variables that pip gets."""
    passed = {
        name: value
        for name, value in variables.items()
        if name.upper() in _PASSED or name.startswith("PIP_")
    }
    return {
        **passed,
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        **({"TMPDIR": str(temporary)} if temporary.is_dir() else {}),
    }


def reason(output: bytes) -> str:
    """Return the lines of pip's output that say what is wrong, or the last ones."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("$ ")]
    errors = [
        line.removeprefix("ERROR:").strip()
        for line in lines
        if line.startswith("ERROR:")
    ]
    return " ".join(errors[-3:] or lines[-3:])[:1000] or "it said nothing."


def without_passwords(output: bytes) -> bytes:
    return re.sub(rb"://[^/\s@]+@", b"://***@", output)


def remove(folder: Path) -> None:
    """Remove an environment; first its mark, so that half of it is never ready."""
    folders.unmark(folder)
    shutil.rmtree(folder, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk; raises OSError."""
    used = disk.used_bytes(folder)
    if used is None:
        raise OSError(errno.EACCES, "a folder cannot be read", str(folder))
    return used


def _kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nothing is left of it.
        return
