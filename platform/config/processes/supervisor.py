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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from inference.installation.home import Home
from inference.installation.log_lines import log_files

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1
_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 10.0
# Tries to set a session's nice value, which fails while other sessions set theirs.
_AUTOGROUP_TRIES = 5
# A child that has run this long has recovered; its next death counts as the first.
_STABLE_AFTER_S = 20.0
# The longest wait of a process that lets others start first.
_LONGEST_WAIT_S = 10.0
# A new process that does not work by then ends an upgrade.
_MOST_STARTING_S = 60.0
# A process has made its file shortly before it works.
_SETTLING_S = 0.5
_ROTATE_S = 0.5


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
    # Its first start waits until models answer, but not for long.
    starts_late: bool = False
    # A file that it makes in `run` when it works, as a pattern.
    sign_of_work: str = ""
    # It replaces what it runs on SIGHUP, so that this is never away.
    renews_itself: bool = False
    # Its successor works before it ends, because both may listen for the same callers.
    overlaps: bool = False
    # Lower ones are replaced first.
    renew_phase: int = 0


@dataclass(slots=True)
class _Child:
    spec: ProcessSpec
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    started_wall: float = 0.0
    deaths: int = 0
    start_again_at: float = 0.0
    # It has not started yet and need not before `start_again_at`.
    waits: bool = False
    # Its end is expected: it is replaced.
    renewing: bool = False


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
        process_table: Sequence[str] = (),
        started: Callable[[], bool] = lambda: True,
    ) -> None:
        """Write logs to files, or else to the standard output of this process.

        `process_table` is a command that prints the processes of the code that is
        installed by now, or says why it cannot start. `started` tells whether the
        processes that start late need wait no longer.
        """
        self._home = home
        self._log_to_files = log_to_files
        self._log_bytes = log_bytes
        self._clock = clock
        self._children = [_Child(spec) for spec in specs]
        self._stopping = threading.Event()
        self._process_table = tuple(process_table)
        self._started = started
        self._renewing: Iterator[None] | None = None
        self._renew_asked = False
        self._rotate_at = 0.0

    def start(self) -> None:
        for child in self._children:
            if child.spec.starts_late:
                child.waits = True
                child.start_again_at = self._clock() + _LONGEST_WAIT_S
            else:
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

    def request_renewal(self) -> None:
        """Replace the processes one after another; they run the code of then."""
        self._renew_asked = True

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def tend(self) -> None:
        """Notice dead processes, restart those whose wait is over, rotate logs."""
        now = self._clock()
        if self._renew_asked and self._renewing is None:
            self._renew_asked = False
            self._renewing = self._renew()
        if self._renewing is not None and next(self._renewing, self) is self:
            self._renewing = None
        if self._log_to_files and now >= self._rotate_at:
            self._rotate_at = now + _ROTATE_S
            for child in self._children:
                log_files.rotate(self.log_path(child.spec.name), most=self._log_bytes)
        for child in self._children:
            if child.renewing:
                continue
            if child.process is None:
                if now >= child.start_again_at or (child.waits and self._started()):
                    self._start(child)
                continue
            status = child.process.poll()
            if status is None:
                continue
            child.process = None
            if now - child.started_at > _STABLE_AFTER_S:
                child.deaths = 0
            log.warning(
                "process_died",
                name=child.spec.name,
                status=status,
                restart_in_s=self._let_wait(child),
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

    def _renew(self) -> Iterator[None]:
        """Replace all processes; yield while there is nothing to do but to wait.

        Background work and the controller come before the gateways, which read what
        the controller writes. What goes wrong ends it: the other processes stay.
        """
        try:
            specs = yield from self._specs_of_new_code()
        except (OSError, ValueError) as error:
            log.error("upgrade_refused", reason=str(error))
            return
        log.info("upgrade_started", processes=[spec.name for spec in specs])
        known = {child.spec.name: child for child in self._children}
        for spec in sorted(specs, key=lambda spec: spec.renew_phase):
            if spec.name not in known:
                self._children.append(known.setdefault(spec.name, _Child(spec)))
            child = known[spec.name]
            child.renewing = True
            try:
                yield from self._replace(child, spec)
            finally:
                child.renewing = False
            if spec.sign_of_work and not self._works(child):
                log.error("upgrade_stopped", name=spec.name, reason="it does not work")
                return
        for name in known.keys() - {spec.name for spec in specs}:
            child = known[name]
            child.renewing = True
            yield from self._end(child.process, child.spec)
            self._children.remove(child)
        log.info("upgrade_ended")

    def _specs_of_new_code(
        self,
    ) -> Generator[None, None, tuple[ProcessSpec, ...]]:
        """Return the processes of the code that is installed by now.

        Raise ValueError with what it says if it cannot start.
        """
        asked = subprocess.Popen(
            self._process_table, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with asked:
            while asked.poll() is None:
                yield
            said, problem = asked.communicate()
        if asked.returncode:
            lines = problem.decode(errors="replace").strip().splitlines()
            raise ValueError(lines[-1] if lines else "")
        return msgspec.json.decode(said, type=tuple[ProcessSpec, ...])

    def _replace(self, child: _Child, spec: ProcessSpec) -> Iterator[None]:
        former = child.process
        child.spec = spec
        if spec.renews_itself and former is not None:
            with contextlib.suppress(ProcessLookupError):
                former.send_signal(signal.SIGHUP)
            return
        if not spec.overlaps:
            yield from self._end(former, spec)
        child.process = None
        self._start(child)
        deadline = self._clock() + _MOST_STARTING_S
        while spec.sign_of_work and self._clock() < deadline:
            if self._works(child):
                break
            if child.process is None or child.process.poll() is not None:
                break
            yield
        settled = self._clock() + _SETTLING_S
        while self._clock() < settled:
            yield
        if not spec.overlaps:
            return
        if self._works(child):
            yield from self._end(former, spec)
        elif former is not None:
            yield from self._end(child.process, spec)
            child.process = former

    def _end(
        self, process: "subprocess.Popen[bytes] | None", spec: ProcessSpec
    ) -> Iterator[None]:
        if process is None:
            return
        _signal_group(process, signal.SIGTERM)
        deadline = self._clock() + spec.stop_timeout_s
        while process.poll() is None and self._clock() < deadline:
            yield
        _signal_group(process, signal.SIGKILL)
        process.wait()

    def _works(self, child: _Child) -> bool:
        return child.process is not None and any(
            _changed_at(path) >= child.started_wall
            for path in self._home.run.glob(child.spec.sign_of_work)
        )

    def _let_wait(self, child: _Child) -> float:
        """Count a death; return after how many seconds the process starts again."""
        wait_s: float = min(
            _FIRST_BACKOFF_S * 2.0 ** min(child.deaths, 16), _LONGEST_BACKOFF_S
        )
        child.deaths += 1
        child.start_again_at = self._clock() + wait_s
        return wait_s

    def _start(self, child: _Child) -> None:
        """Start a process, later if the system cannot: others must not end for it."""
        child.waits = False
        try:
            child.process = self._popen(child.spec)
        except (OSError, subprocess.SubprocessError) as error:
            log.error(
                "process_not_started",
                name=child.spec.name,
                reason=str(error),
                restart_in_s=self._let_wait(child),
            )
            return
        child.started_at = self._clock()
        child.started_wall = time.time()
        log.info("process_started", name=child.spec.name, pid=child.process.pid)

    def _popen(self, spec: ProcessSpec) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        inherited = {
            name: value for name, value in os.environ.items() if name not in spec.hidden
        }
        with contextlib.ExitStack() as files:
            output = None
            if self._log_to_files:
                path = self.log_path(spec.name)
                output = files.enter_context(path.open("ab"))
            return subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **inherited,
                    **spec.environment,
                    "MODELYARD_PROCESS": spec.name,
                },
                # In its own session, so that Ctrl-C reaches only the supervisor, which
                # stops the processes in order.
                start_new_session=True,
                preexec_fn=lambda: prepare_child(parent, spec.nice),
            )


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


def _changed_at(path: Path) -> float:
    """Return when a file was last written; 0: it is gone, as its successor is there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
