"""Starts Modelyard's processes on one machine, restarts those that die, stops them all.

A child never outlives its supervisor: on Linux the kernel sends it SIGTERM when the
supervisor is gone, however it went.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from inference.installation.home import Home

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1
_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 10.0
# Of a session's nice value, while others set theirs.
_AUTOGROUP_TRIES = 5
# A child that has run this long has recovered; its next death starts over.
_STABLE_AFTER_S = 20.0
# A log file that has grown to this becomes `….log.1`, in place of the one before.
_LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: its command, how it stops, and its place at stopping.

    Lower `stop_phase`s stop first: what takes traffic in, then what works on it,
    then what those depend on. `nice` keeps the processes of people and of background
    work from delaying predictions on a small machine.
    """

    name: str
    command: tuple[str, ...]
    stop_phase: int
    nice: int = 0
    stop_timeout_s: float = 15.0
    environment: Mapping[str, str] = field(default_factory=dict)
    # Variables of the supervisor that the process must not see.
    hidden: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Child:
    spec: ProcessSpec
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    start_again_at: float = 0.0


class Supervisor:
    """Keeps the processes of `specs` running until `stop`."""

    def __init__(
        self,
        specs: tuple[ProcessSpec, ...],
        *,
        home: Home,
        clock: Callable[[], float] = time.monotonic,
        log_to_files: bool = True,
        log_bytes: int = _LOG_BYTES,
    ) -> None:
        """Write logs to files, or else to the standard output of this process."""
        self._home = home
        self._log_to_files = log_to_files
        self._log_bytes = log_bytes
        self._clock = clock
        self._children = [_Child(spec) for spec in specs]
        self._stopping = threading.Event()

    def start(self) -> None:
        for child in self._children:
            self._start(child)

    def run(self) -> None:
        """Watch the processes until `request_stop`, then stop them."""
        try:
            while not self._stopping.wait(0.1):
                self.tend()
        finally:
            self.stop()

    def request_stop(self) -> None:
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def tend(self) -> None:
        """Notice the dead, start again those whose wait is over, rotate their logs."""
        now = self._clock()
        for child in self._children:
            self._rotate_log(child.spec.name)
            if child.process is None:
                if now >= child.start_again_at:
                    self._start(child)
                continue
            status = child.process.poll()
            if status is None:
                continue
            child.process = None
            if now - child.started_at > _STABLE_AFTER_S:
                child.deaths = 0
            wait_s = min(_FIRST_BACKOFF_S * 2**child.deaths, _LONGEST_BACKOFF_S)
            child.deaths += 1
            child.start_again_at = now + wait_s
            log.warning(
                "process_died",
                name=child.spec.name,
                status=status,
                restart_in_s=wait_s,
                log=str(self.log_path(child.spec.name))
                if self._log_to_files
                else "stdout",
            )

    def pids(self) -> dict[str, int]:
        """The running processes by name."""
        return {
            child.spec.name: child.process.pid
            for child in self._children
            if child.process is not None
        }

    def deaths(self) -> dict[str, int]:
        """How often each process has died since it last ran well."""
        return {child.spec.name: child.deaths for child in self._children}

    def log_path(self, name: str) -> Path:
        return self._home.logs / f"{name}.log"

    def stop(self) -> None:
        """Stop every process, phase by phase; kill what does not stop in time."""
        self._stopping.set()
        for phase in sorted({child.spec.stop_phase for child in self._children}):
            group = [
                (child.spec.name, child.process)
                for child in self._children
                if child.spec.stop_phase == phase and child.process is not None
            ]
            for _, process in group:
                _signal_group(process, signal.SIGTERM)
            deadline = self._clock() + max(
                child.spec.stop_timeout_s
                for child in self._children
                if child.spec.stop_phase == phase
            )
            for name, process in group:
                try:
                    process.wait(max(0.0, deadline - self._clock()))
                except subprocess.TimeoutExpired:
                    log.error("process_killed", name=name, pid=process.pid)
                # Helpers that a process left in its group end with it.
                _signal_group(process, signal.SIGKILL)
                process.wait()
        for child in self._children:
            child.process = None

    def _rotate_log(self, name: str) -> None:
        """Keep a log within its size while its process goes on writing to it.

        The file is copied and emptied: what appends to it need not open it again. Only
        what is written between the two is lost, a line at most.
        """
        path = self.log_path(name)
        if not self._log_to_files or not path.exists():
            return
        if path.stat().st_size > self._log_bytes:
            try:
                shutil.copyfile(path, path.with_suffix(".log.1"))
            except OSError as error:
                # On a full disk the newest lines are worth more than the oldest.
                log.warning("log_not_kept", name=name, reason=error.strerror)
            os.truncate(path, 0)

    def _start(self, child: _Child) -> None:
        parent = os.getpid()
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in child.spec.hidden
        }
        with contextlib.ExitStack() as files:
            output = None
            if self._log_to_files:
                path = self.log_path(child.spec.name)
                output = files.enter_context(path.open("ab"))
            child.process = subprocess.Popen(
                child.spec.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **inherited,
                    **child.spec.environment,
                    "MODELYARD_PROCESS": child.spec.name,
                },
                # A session of its own: Ctrl-C reaches the supervisor alone, which
                # stops the processes in order.
                start_new_session=True,
                preexec_fn=lambda: prepare_child(parent, child.spec.nice),
            )
        child.started_at = self._clock()
        log.info("process_started", name=child.spec.name, pid=child.process.pid)


def prepare_child(parent: int, nice: int = 0) -> None:
    """Run in the child before exec, so that it ends with its parent."""
    if nice:
        os.nice(nice)
        _nice_session(nice)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def _nice_session(nice: int) -> None:
    """Let the whole session of this process stand back, and not in itself alone.

    Where sessions share the processors first (sched(7), autogroup), nice values count
    within a session only, and each of our processes has one of its own.
    """
    for _ in range(_AUTOGROUP_TRIES):
        try:
            Path("/proc/self/autogroup").write_text(str(nice))
        except BlockingIOError:
            # Without privileges one may be set each tenth of a second.
            time.sleep(0.1)
        except OSError:
            return
        else:
            return


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
