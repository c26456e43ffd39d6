"""Start Modelyard's processes on one machine, restart dead ones, and stop them all.

On Linux a child never outlives its supervisor: the kernel sends it SIGTERM when the
supervisor ends for any reason.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from inference.installation import log_files
from inference.installation.home import Home

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1
_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 10.0
# Tries to set a session's nice value, which fails while other sessions set theirs.
_AUTOGROUP_TRIES = 5
# A child that has run this long has recovered; its next death counts as the first.
_STABLE_AFTER_S = 20.0


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: its command, and when and how it stops.

    Lower `stop_phase`s stop first: processes that accept traffic, then those that work
    on it, then those that the others need. `nice` keeps the site and background work
    from delaying predictions on a small machine.
    """

    name: str
    command: tuple[str, ...]
    stop_phase: int
    nice: int = 0
    stop_timeout_s: float = 15.0
    environment: Mapping[str, str] = field(default_factory=dict)
    # Environment variables of the supervisor that the process must not see.
    hidden: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Child:
    spec: ProcessSpec
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    start_again_at: float = 0.0


class Supervisor:
    """Keep the processes of `specs` running until `stop`."""

    def __init__(
        self,
        specs: tuple[ProcessSpec, ...],
        *,
        home: Home,
        clock: Callable[[], float] = time.monotonic,
        log_to_files: bool = True,
        log_bytes: int = log_files.LOG_BYTES,
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
        """Notice dead processes, restart those whose wait is over, rotate logs."""
        now = self._clock()
        for child in self._children:
            if self._log_to_files:
                log_files.rotate(self.log_path(child.spec.name), most=self._log_bytes)
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
        """Return the ids of the running processes by name."""
        return {
            child.spec.name: child.process.pid
            for child in self._children
            if child.process is not None
        }

    def deaths(self) -> dict[str, int]:
        """Return how often each process has died since it last ran well."""
        return {child.spec.name: child.deaths for child in self._children}

    def log_path(self, name: str) -> Path:
        return self._home.logs / f"{name}.log"

    def stop(self) -> None:
        """Stop all processes, phase by phase; kill those that do not stop in time."""
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
                # Child processes left in the group end too.
                _signal_group(process, signal.SIGKILL)
                process.wait()
        for child in self._children:
            child.process = None

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
                # In its own session, so that Ctrl-C reaches only the supervisor, which
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
    """Set the nice value of this process's whole session.

    With autogroups (sched(7)), Linux divides processor time between sessions first and
    nice values count only within a session, and each of our processes has its own.
    """
    for _ in range(_AUTOGROUP_TRIES):
        try:
            Path("/proc/self/autogroup").write_text(str(nice))
        except BlockingIOError:
            # Unprivileged processes may set one each tenth of a second.
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
