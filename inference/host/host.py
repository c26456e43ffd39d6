"""Run the engine processes of the plan, restart them, and report.

The plan is a file of this machine, so the host needs no control plane. Engines are
forked by zygotes and adopted by the host, which is their subreaper: it learns how each
of them ended. It ends what breaks a bound, notes which version died and how, and does
not start a version again that died twice within ten minutes.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from inference.engine.settings import EngineSettings
from inference.engine.wire.messages import BASE_ENVIRONMENT
from inference.engine.wire.orders import Forked, NotForked
from inference.host import bounds, cgroups, deaths, machine, output, scratch
from inference.host.bounds import Use
from inference.host.cgroups import Cgroups
from inference.host.child import Child
from inference.host.deaths import Deaths
from inference.host.machine import Family
from inference.host.zygote_link import ZygoteLink
from inference.installation import walls
from inference.installation.home import Home, engine_of_device
from inference.metrics.own_reports import INTERVAL_S, ReportFile
from inference.placement import plan_file, report_file
from inference.placement.processes import Death, EngineProcess, HostPlan, HostReport

logger = structlog.get_logger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_TICK_S = 0.1
_REPORT_S = 0.5
_OFFSPRING_S = 1.0
_SCRATCH_S = 5.0
_LEFTOVERS_S = 3600.0
# Logs of processes that are gone are kept for so long.
_KEEP_LOGS_S = 7 * 24 * 3600.0
# Notes are looked at in each tick; what has to be read from files, less often.
_USE_S = 0.3
# A process is killed if it has not ended so long after it should have drained.
_GRACE_S = 2.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
# A process that has run so long has recovered: its next death counts as the first.
_STABLE_S = 60.0
# A fork takes milliseconds, but the zygote may still import.
_MOST_STARTING_S = 120.0
# What an empty process has beyond its zygote, at most.
_OWN_BYTES = 64 * 1024 * 1024
# A process that was replaced has loaded its versions by then, or waits for memory.
_RENEWED_S = 2.0
# The kernel would choose somebody else.
_LEAST_FREE = 0.03


class EngineHost:
    """One machine's engine processes; `run` returns after `request_stop`."""

    def __init__(
        self,
        home: Home,
        devices: Sequence[str],
        settings: EngineSettings,
        *,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        logs_to_stdout: bool = False,
    ) -> None:
        self._home = home
        self._devices = tuple(devices)
        self._settings = settings
        self._name = name or socket.gethostname()
        self._clock = clock
        self._wall_clock = wall_clock
        self._logs_to_stdout = logs_to_stdout
        self._plan = HostPlan()
        self._plan_seen: object = None
        self._children: dict[str, Child] = {}
        self._zygotes: dict[str, ZygoteLink] = {}
        # When each zygote may start again.
        self._zygotes_at: dict[str, float] = {}
        # New zygotes, and the processes that they have still to replace.
        self._fresh: dict[str, ZygoteLink] = {}
        self._renewing: list[Child] = []
        self._renew_asked = False
        self._deaths = Deaths(home.host_deaths)
        self._cgroups = Cgroups(cgroups.delegated())
        self._family = Family()
        # Children that nobody knew when they were last looked for: of models that
        # died, or that left their parent on purpose.
        self._strangers: set[int] = set()
        # Processes that ended before their zygote said who they are.
        self._ended: dict[int, int] = {}
        # Bytes in the scratch folders of processes, by their ids.
        self._scratch: dict[int, int | None] = {}
        self._measuring = threading.Thread()
        self._due: dict[str, float] = {}
        self._own_report: ReportFile | None = None
        self._stopping = False
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)

    def request_stop(self) -> None:
        self._stopping = True

    def request_renewal(self) -> None:
        """Replace zygotes and engine processes; they run the code of now."""
        self._renew_asked = True

    def run(self) -> None:
        """Run until `request_stop`, then stop all processes."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._own_report = ReportFile(self._home.own_reports, "host")
        # A child's end wakes the host at once.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._end_orphans()
        scratch.finish(self._home.scratch(""))
        try:
            while not self._stopping:
                self.tick()
                self._sleep(_TICK_S)
        finally:
            self._stop_all()

    def tick(self) -> None:
        """Follow the plan, notice deaths, watch bounds, report."""
        self._read_plan()
        self._hear_zygotes()
        self._reap()
        now = self._clock()
        if self._is_due("offspring", _OFFSPRING_S, now):
            self._look_for_children()
        if self._is_due("scratch", _SCRATCH_S, now):
            self._measure_scratch()
        if self._is_due("use", _USE_S, now):
            for child in self._children.values():
                self._measure(child, now)
        self._renew(now)
        for child in list(self._children.values()):
            self._tend(child, now)
        self._free_memory()
        if self._is_due("leftovers", _LEFTOVERS_S, now):
            self._remove_leftovers()
        if self._is_due("report", _REPORT_S, now):
            self._report()
        if self._own_report and self._is_due("own_report", INTERVAL_S, now):
            self._report_itself(self._own_report)

    # Plan

    def _read_plan(self) -> None:
        """Follow the plan's file if it has changed."""
        try:
            found = self._home.host_plan.stat()
            seen: object = (found.st_mtime_ns, found.st_ino, found.st_size)
        except OSError:
            seen = ()
        if seen == self._plan_seen:
            return
        self._plan_seen = seen
        plan = plan_file.read(self._home.host_plan)
        if plan is not None:
            self._plan = plan
        self._follow(self._plan)

    def _follow(self, plan: HostPlan) -> None:
        wanted = {
            name: EngineProcess(name=name, device=device)
            for device in self._devices
            for name in [engine_of_device(device)]
        }
        wanted |= {process.name: process for process in plan.processes}
        for name, process in wanted.items():
            child = self._children.get(name)
            if child is None:
                child = self._children[name] = Child(process, self._home)
            elif child.unwanted:
                child.unwanted = False
            released = process.released_at > child.process.released_at
            if process.memory_limit_bytes != child.process.memory_limit_bytes:
                self._cgroups.limit(process)
            child.process = process
            child.quarantined = self._deaths.quarantined(process)
            child.fragile = self._deaths.fragile(process)
            if released:
                child.deaths, child.start_at, child.problem = 0, 0.0, ""
                if child.state == "quarantined":
                    child.state = "waiting"
        for name, child in self._children.items():
            if name not in wanted:
                child.unwanted = True
        for environment in self._zygotes.keys() - {BASE_ENVIRONMENT}:
            if environment not in plan.environments:
                self._zygotes.pop(environment).close()

    # Zygotes

    def _zygote(self, environment: str, now: float) -> ZygoteLink | None:
        """Return the zygote of an environment, started if need be."""
        link = self._zygotes.get(environment)
        if link is None and now >= self._zygotes_at.get(environment, 0.0):
            link = self._start_zygote(environment)
            if link is not None:
                self._zygotes[environment] = link
        return link

    def _start_zygote(self, environment: str) -> ZygoteLink | None:
        folder = self._plan.environments.get(environment, "")
        if environment != BASE_ENVIRONMENT and not folder:
            return None
        log = None
        if not self._logs_to_stdout:
            log = self._home.logs / f"zygote-{environment[:12]}.log"
        self._zygotes_at[environment] = self._clock() + _FIRST_PAUSE_S
        try:
            return ZygoteLink(environment, folder, log=log)
        except OSError as error:
            logger.error(
                "zygote_not_started", environment=environment, reason=str(error)
            )
            self._zygotes_at[environment] = self._clock() + _LONGEST_PAUSE_S
            return None

    def _links(self) -> list[ZygoteLink]:
        return [*self._zygotes.values(), *self._fresh.values()]

    def _hear_zygotes(self) -> None:
        for environment, link in list(self._zygotes.items()):
            for reply in link.replies():
                self._heard(reply, link)
            if link.process.poll() is None:
                continue
            # Its engines go on; who waited for it asks the next one.
            logger.warning(
                "zygote_died", environment=environment, status=link.process.returncode
            )
            for name in link.waiting:
                child = self._children.get(name)
                if child is not None and not child.pid:
                    self._pause(child, "its zygote died.")
            link.close()
            del self._zygotes[environment]
            if link.works:
                # The next process that starts does not wait for its imports.
                self._zygote(environment, self._clock())

    def _end_zygote(self, environment: str, reason: str) -> None:
        """Let another zygote take over from one that hangs."""
        link = self._zygotes.get(environment)
        if link is not None and link.ready:
            logger.error("zygote_ended", environment=environment, reason=reason)
            link.process.kill()

    def _heard(self, reply: Any, link: ZygoteLink) -> None:
        child = self._children.get(reply.name)
        if child is None or child.pid:
            # The plan dropped it meanwhile, or it was asked for twice.
            if isinstance(reply, Forked) and reply.pid not in self._ended:
                _kill(reply.pid)
            return
        if isinstance(reply, NotForked):
            self._pause(child, reply.reason)
        elif isinstance(reply, Forked):
            child.pid = reply.pid
            if (code := self._ended.pop(reply.pid, None)) is not None:
                child.started_at = self._clock()
                self._died(child, code)
                return
            self._cgroups.hold(child.process, reply.pid)
            if reply.memory_bytes:
                child.most_empty_bytes = reply.memory_bytes + _OWN_BYTES
            child.state = "running"
            child.problem = ""
            child.started_at = self._clock()
            child.started_wall = self._wall_clock()
            logger.info("engine_started", engine=child.name, pid=child.pid)

    def _renew(self, now: float) -> None:
        """Start new zygotes; those that are ready replace processes one by one."""
        if self._renew_asked:
            self._renew_asked = False
            for environment in [*self._zygotes]:
                if environment not in self._fresh:
                    link = self._start_zygote(environment)
                    if link is not None:
                        self._fresh[environment] = link
        for environment, link in [*self._fresh.items()]:
            for reply in link.replies():
                self._heard(reply, link)
            gone = link.process.poll() is not None
            if not gone and not link.ready:
                continue
            del self._fresh[environment]
            if gone or environment not in self._zygotes:
                # The former zygote goes on.
                logger.error("zygote_not_renewed", environment=environment)
                link.close()
                continue
            self._zygotes.pop(environment).close()
            self._zygotes[environment] = link
            self._renewing += [
                child
                for child in self._children.values()
                if child.pid and child.process.environment == environment
            ]
        busy = any(
            child.state in ("starting", "stopping")
            or (child.pid and now - child.started_at < _RENEWED_S)
            for child in self._children.values()
        )
        if self._renewing and not busy:
            child = self._renewing.pop(0)
            if child.pid and child.state == "running":
                self._end(child, now)

    # Processes

    def _tend(self, child: Child, now: float) -> None:
        if child.pid:
            self._watch(child, now)
        elif child.unwanted:
            child.clean_up()
            self._cgroups.remove(child.name)
            del self._children[child.name]
        elif child.state == "starting":
            if now - child.started_at > _MOST_STARTING_S:
                self._pause(child, "its zygote did not answer.")
                self._end_zygote(child.process.environment, "it did not answer")
        elif child.walled and child.quarantined and self._holds_nothing_else(child):
            child.state = "quarantined"
            child.problem = "It died twice within ten minutes."
        elif now >= child.start_at:
            self._start(child, now)

    @staticmethod
    def _holds_nothing_else(child: Child) -> bool:
        keys = {version.key for version in child.process.versions}
        return keys <= set(child.quarantined)

    def _start(self, child: Child, now: float) -> None:
        environment = child.process.environment
        link = self._zygote(environment, now)
        if link is None:
            if environment not in (*self._plan.environments, BASE_ENVIRONMENT):
                child.problem = "Its environment is not there."
            return
        folder = self._plan.environments.get(environment)
        readable = (folder,) if folder else ()
        child.state = "starting"
        child.started_at = now
        try:
            order = child.order(
                host_pid=os.getpid(),
                readable=readable,
                logs_to_stdout=self._logs_to_stdout,
            )
        except OSError as error:
            self._pause(child, f"its files cannot be made ({error.strerror}).")
            return
        if not link.ask(order):
            self._pause(child, "its zygote took no more orders.")

    def _pause(self, child: Child, reason: str) -> None:
        """Let a process wait before it starts again, longer each time."""
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(child.deaths, 16), _LONGEST_PAUSE_S)
        child.deaths += 1
        child.state = "waiting"
        child.start_at = self._clock() + pause_s
        child.problem = f"It starts again in {pause_s:g} s: {reason}"
        logger.warning(
            "engine_waits", engine=child.name, seconds=pause_s, reason=reason
        )

    def _watch(self, child: Child, now: float) -> None:
        if child.unwanted and child.state != "stopping":
            self._end(child, now)
        if child.state == "stopping" or child.asked:
            if now >= child.kill_at:
                _kill_all(child.pid)
            return
        if child.walled and self._holds_nothing_else(child) and child.quarantined:
            self._end(child, now)
            return
        use = Use(
            notes=child.notes(),
            beat=child.beat(),
            stopped_at=child.stopped_at,
            memory_bytes=child.memory_bytes,
            scratch_bytes=self._scratch.get(child.pid, 0),
            processes=1 + len(self._family.offspring(child.pid)),
        )
        found = bounds.broken(use, child.process, self._settings, now=now)
        if found:
            self._kill(child, found)

    def _measure(self, child: Child, now: float) -> None:
        if not child.pid:
            return
        child.measure()
        child.sample(self._wall_clock())
        output.rotate(child.log)
        leader = machine.stat(child.pid)
        if leader is None or leader.state not in "Tt":
            child.stopped_at = None
        elif child.stopped_at is None:
            child.stopped_at = now

    def _measure_scratch(self) -> None:
        """Measure scratch folders in a thread: many files take seconds."""
        if self._measuring.is_alive():
            return
        folders = {
            child.pid: child.scratch
            for child in self._children.values()
            if child.pid and child.walled
        }

        def measure() -> None:
            self._scratch = {
                pid: scratch.measure(folder) for pid, folder in folders.items()
            }

        self._measuring = threading.Thread(target=measure, daemon=True)
        self._measuring.start()

    def _look_for_children(self) -> None:
        """Measure the children of engine processes; end those that nobody has."""
        self._family = Family(machine.everyone())
        known = {child.pid for child in self._children.values()}
        known |= {link.process.pid for link in self._links()}
        for child in self._children.values():
            if child.pid:
                others = self._family.offspring(child.pid)
                some = [one.pid for one in others[:256]]
                child.measure(sum(map(machine.own_memory, some)))
        for link in self._zygotes.values():
            found = machine.stat(link.process.pid)
            was_stopped, link.stopped = (
                link.stopped,
                found is not None and (found.state == "T"),
            )
            # A debugger stops it for a moment, too.
            if was_stopped and link.stopped:
                self._end_zygote(link.environment, "it had been stopped")
        me = os.getpid()
        strangers = {
            one.pid
            for one in self._family.children(me)
            if one.pid not in known and one.state != "Z"
        }
        if any(child.state == "starting" for child in self._children.values()):
            # One that was just forked may be ours before its zygote said so.
            strangers.clear()
        for pid in strangers & self._strangers:
            logger.warning("stray_process_ended", pid=pid)
            _kill(pid)
        self._strangers = strangers

    def _free_memory(self) -> None:
        """If the machine's memory ends, end what uses most of it."""
        total, free = machine.free_memory()
        if free > total * _LEAST_FREE or any(
            # One at a time: a large process takes a while to give its memory back.
            child.pid and child.asked
            for child in self._children.values()
        ):
            return
        largest = max(
            (c for c in self._children.values() if c.pid and c.walled),
            key=lambda child: child.memory_bytes,
            default=None,
        )
        if largest is not None and largest.memory_bytes > total * _LEAST_FREE:
            self._kill(
                largest,
                f"the machine had no memory left, and it used most of it "
                f"({largest.memory_bytes // 2**20} MB).",
            )

    def _end(self, child: Child, now: float) -> None:
        """Ask a process to finish what it has accepted, and to end."""
        child.state = "stopping"
        child.kill_at = now + self._settings.drain_s + _GRACE_S
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)
            os.kill(child.pid, signal.SIGCONT)

    def _kill(self, child: Child, reason: str) -> None:
        child.asked = reason
        child.kill_at = self._clock() + 1.0
        logger.error("engine_ended", engine=child.name, pid=child.pid, reason=reason)
        _kill_all(child.pid)

    # Deaths

    def _reap(self) -> None:
        """Learn of all children that ended; also of orphans of engines."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            for link in self._links():
                if link.process.pid == pid:
                    link.process.returncode = code
            child = next((c for c in self._children.values() if c.pid == pid), None)
            if child is not None:
                self._died(child, code)
            elif any(it.state == "starting" for it in self._children.values()):
                self._ended[pid] = code
            else:
                self._ended.clear()

    def _died(self, child: Child, code: int) -> None:
        pid, child.pid = child.pid, 0
        # Whatever it started ends with it. Those of other sessions are strangers now.
        for one in machine.everyone():
            if one.session == pid:
                _kill(one.pid)
        exit_code, signal_name = deaths.ended_by(code)
        if child.state == "stopping" and not child.asked:
            logger.info("engine_stopped", engine=child.name, status=code)
            child.state = "waiting"
            return
        if self._cgroups.ran_out(child.name):
            child.asked = child.asked or "it used more memory than its limit."
            self._cgroups.remove(child.name)
        key, note = deaths.attribute(child.process, child.notes())
        if exit_code == os.EX_CONFIG and not child.beat():
            # It had loaded nothing: this machine is at fault, not a version.
            key = note = None
        reason = deaths.sentence(
            asked=child.asked, exit_code=exit_code, signal_name=signal_name, note=note
        )
        now = self._wall_clock()
        death = Death(
            at=now,
            process=child.name,
            version=key,
            reason=reason,
            exit_code=exit_code,
            signal=signal_name,
            output=child.tail(),
            rows=note.rows if note is not None else 0,
            loading=note is not None and note.loading,
        )
        self._deaths.add(death)
        logger.error(
            "engine_died",
            engine=child.name,
            pid=pid,
            version=str(key) if key else None,
            reason=reason,
            exit_code=exit_code,
            signal=signal_name,
        )
        with contextlib.suppress(OSError):
            self._home.engine_socket(child.name).unlink(missing_ok=True)
        child.quarantined = self._deaths.quarantined(child.process)
        child.fragile = self._deaths.fragile(child.process)
        if self._clock() - child.started_at > _STABLE_S:
            child.deaths = 0
        if child.deaths == 0 and exit_code != os.EX_CONFIG:
            # The first time it starts again at once: its callers wait.
            child.deaths = 1
            child.state, child.problem, child.start_at = "waiting", reason, 0.0
        else:
            self._pause(child, reason)
        self._due["report"] = 0.0

    def _end_orphans(self) -> None:
        """End what models of an earlier host left, which was killed."""
        runs, scratches = self._home.engine_notes(""), self._home.scratch("")
        for pid in machine.users_of(str(runs).removesuffix(".notes"), f"{scratches}/"):
            logger.warning("orphan_ended", pid=pid)
            _kill(pid)

    def _remove_leftovers(self) -> None:
        """Remove files of processes that are gone, or that an earlier host had."""
        for folder in self._home.scratch("").glob("*"):
            if folder.name not in self._children and not scratch.is_removed(folder):
                with contextlib.suppress(OSError):
                    scratch.clear(folder)
        oldest = self._wall_clock() - _KEEP_LOGS_S
        for log in self._home.logs.glob("engine-*.log*"):
            name = log.name.removeprefix("engine-").partition(".log")[0]
            with contextlib.suppress(OSError):
                if name not in self._children and log.stat().st_mtime < oldest:
                    log.unlink()
        for lock in self._home.engine.glob("*.lock"):
            if lock.stem not in self._children:
                with contextlib.suppress(OSError), lock.open() as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    lock.unlink()

    # Report

    def _report(self) -> None:
        total, free = machine.free_memory()
        report = HostReport(
            host=self._name,
            at=self._wall_clock(),
            devices=self._devices,
            memory_bytes=total,
            memory_used_bytes=total - free,
            walls=self._walls(),
            processes=tuple(child.report() for child in self._children.values()),
            deaths=tuple(self._deaths.all),
        )
        try:
            report_file.write(self._home.host_report, report)
        except OSError as error:
            logger.error("report_not_written", outage="report", reason=error)
        else:
            logger.info("report_written", outage_over="report")

    def _report_itself(self, file: ReportFile) -> None:
        try:
            file.write()
        except OSError as error:
            logger.error("report_not_written", outage="own report", reason=error)
        else:
            logger.info("report_written", outage_over="own report")

    def _walls(self) -> dict[str, str]:
        """Say what holds the processes of this machine."""
        memory = "held by the kernel" if self._cgroups.usable else "watched by the host"
        return walls.available() | {"memory": memory}

    # Time

    def _is_due(self, name: str, interval_s: float, now: float) -> bool:
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + interval_s
        return True

    def _sleep(self, seconds: float) -> None:
        """Wait for a child's end, a zygote's reply, or the next tick."""
        waiting: list[Any] = [self._woken, *self._links()]
        ready, _, _ = select.select(waiting, [], [], seconds)
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)

    def _stop_all(self) -> None:
        now = self._clock()
        for link in self._links():
            link.close()
        self._zygotes.clear()
        self._fresh.clear()
        for child in self._children.values():
            if child.pid:
                self._end(child, now)
        while any(child.pid for child in self._children.values()):
            self._reap()
            if self._clock() >= now + self._settings.drain_s + _GRACE_S:
                for child in self._children.values():
                    if child.pid:
                        logger.error("engine_killed", engine=child.name, pid=child.pid)
                        _kill_all(child.pid)
            self._sleep(0.02)
        for child in self._children.values():
            child.clean_up()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _kill_all(leader: int) -> None:
    """Kill a process and all that it started."""
    found = Family(machine.everyone()).offspring(leader)
    _kill(leader)
    for one in found:
        _kill(one.pid)
