"""Place versions in engine processes, and tell their hosts; see `placement/`.

A host reports in a file and reads its plan from another. This machine's host is the
only one whose files are here.
"""

import socket
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import structlog

from inference.controller.decision import Engines, Reports
from inference.controller.wishes import Wish, is_program, size_of
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.installation.home import Home, engine_of_device
from inference.placement import plan_file, report_file
from inference.placement.deciding import kind_of, place
from inference.placement.processes import (
    EngineProcess,
    HostPlan,
    HostReport,
    ProcessReport,
)
from inference.placement.situation import (
    Holder,
    Machine,
    Place,
    Placement,
    PlacementSituation,
    Wanted,
)

# Of the memory of a device, models together get this share.
_SHARE = 0.8
# What a process of its own takes beside its model.
_PROCESS_BYTES = 60 << 20
# The limit of a process: what its version took when it was loaded, with room.
_ROOM_FACTOR = 2
_ROOM_BYTES = 256 << 20

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A process of a host: as planned, and as its host reports it."""

    host: str
    planned: EngineProcess
    reported: ProcessReport | None = None

    @property
    def state(self) -> str:
        return "" if self.reported is None else self.reported.state


class Placer:
    """Keep the plans of hosts equal to what the placement decides.

    Times are monotonic seconds.
    """

    def __init__(self, home: Home, *, grace_s: float) -> None:
        self._home = home
        self._grace_s = grace_s
        self._report: tuple[int, HostReport] | None = None
        self._plans: dict[str, HostPlan] | None = None
        self._situation: PlacementSituation | None = None
        self._placement = Placement({}, {}, {}, frozenset(), ())
        self._leaving_since: dict[Place, float] = {}
        # Measured when it was loaded, by key and artifact; and the last by key.
        self._measured: dict[tuple[VersionKey, str], int] = {}
        self._bytes: dict[VersionKey, int] = {}
        self._recycle: set[Holder] = set()
        # The last wish, which keeps its id from being used again, and its description.
        self._described: tuple[int, int, Wish, tuple[Wanted, ...]] | None = None
        # What was wanted from the engines of devices.
        self._told: dict[Place, VersionToLoad] = {}

    @property
    def placement(self) -> Placement:
        return self._placement

    def reports(self) -> dict[str, HostReport]:
        """Return the last reports of the hosts, by their names."""
        path = self._home.host_report
        try:
            written = path.stat().st_mtime_ns
        except OSError:
            written = 0
        if self._report is None or self._report[0] != written:
            report = report_file.read(path)
            if report is not None:
                self._report = (written, report)
        return {} if self._report is None else {self._report[1].host: self._report[1]}

    def running(self) -> dict[str, Running]:
        """Return the processes that plans name, by the names of their engines."""
        reports = self.reports()
        found = {}
        for host, plan in self._current_plans().items():
            reported: dict[str, ProcessReport] = {}
            if host in reports:
                reported = {one.name: one for one in reports[host].processes}
            for process in plan.processes:
                found[process.name] = Running(host, process, reported.get(process.name))
        return found

    def leaving(self, engine: str) -> frozenset[VersionKey]:
        """Return the versions that gateways should not call on this engine."""
        return frozenset(
            it.key for it in self._placement.leaving if it.holder.process == engine
        )

    def recycle(self, engine: str) -> bool:
        """Replace the process of one version gently; return whether that is new."""
        running = self.running().get(engine)
        if running is None or running.planned.kind != "own":
            return False
        holder = Holder(running.host, engine)
        is_new = holder not in self._recycle
        self._recycle.add(holder)
        return is_new

    def told(self, engine: str, version: VersionToLoad) -> None:
        """Note that an engine was told to load a version."""
        host = next(
            (
                it.host
                for it in self._placement.holders.get(version.key, ())
                if it.process == engine
            ),
            None,
        )
        if host is not None:
            self._told[Place(Holder(host, engine), version.key)] = version

    def measured(self, key: VersionKey, path: str) -> int:
        return self._measured.get((key, path), 0)

    def place(
        self,
        wish: Wish,
        reports: Reports,
        *,
        unnamed: AbstractSet[VersionKey],
        memory: Mapping[str, int],
        devices: Mapping[str, str],
        now_s: float,
    ) -> Placement:
        """Decide, and tell the hosts what changed.

        `reports` are those of the engines that answer; `devices` are their devices, and
        `memory` is all of an accelerator's, by the name of its engine.
        """
        self._measure(wish, reports, devices)
        situation = self._describe(
            wish, reports, unnamed=unnamed, memory=memory, now_s=now_s
        )
        if situation != self._situation:
            self._situation = situation
            self._apply(place(situation), now_s=now_s)
        return self._placement

    def _apply(self, placement: Placement, *, now_s: float) -> None:
        self._placement = placement
        plans = {**self._current_plans(), **placement.plans}
        for host, plan in placement.plans.items():
            if plan != self._current_plans().get(host):
                self._write(host, plan)
        self._plans = plans
        self._leaving_since = {
            it: self._leaving_since.get(it, now_s) for it in placement.leaving
        }
        existing = {
            Holder(host, process.name)
            for host, plan in plans.items()
            for process in plan.processes
        }
        self._recycle &= existing
        self._told = {
            it: version
            for it, version in self._told.items()
            if it.holder in placement.holders.get(it.key, ())
            or it.holder in placement.staying.get(it.key, ())
        }

    def _write(self, host: str, plan: HostPlan) -> None:
        plan_file.write(self._home.host_plan, plan)
        names = [process.name for process in plan.processes]
        logger.info("host_plan_written", host=host, processes=names)

    def _current_plans(self) -> dict[str, HostPlan]:
        if self._plans is None:
            plan = plan_file.read(self._home.host_plan)
            hosts = self.reports()
            # The plan does not say its host: it is the one that reports here.
            host = next(iter(hosts), socket.gethostname())
            if plan is None or not hosts:
                return {} if plan is None else {host: plan}
            self._plans = {host: plan}
        return self._plans

    def _machines(self, wish: Wish, memory: Mapping[str, int]) -> tuple[Machine, ...]:
        machines = []
        for host, report in sorted(self.reports().items()):
            devices = report.devices or ("cpu",)
            free = {}
            if report.memory_bytes:
                free["cpu"] = int(report.memory_bytes * _SHARE)
            for device in devices:
                if device != "cpu" and (total := memory.get(engine_of_device(device))):
                    free[device] = int(total * _SHARE)
            machines.append(Machine(host, devices, free, wish.environments))
        if machines:
            return tuple(machines)
        # Until a host reports, it has what it had.
        return tuple(
            Machine(
                host,
                tuple(it.device for it in plan.processes if it.kind == "device"),
                environments=wish.environments,
            )
            for host, plan in self._current_plans().items()
        )

    def _measure(
        self, wish: Wish, reports: Reports, devices: Mapping[str, str]
    ) -> None:
        for engine, versions in reports.items():
            for key, status in versions.items():
                version = wish.to_load.get(key)
                if (
                    version is not None
                    and status.state == "ready"
                    and status.memory_bytes
                    and status.form == wish.forms[key]
                    and (key, version.path) not in self._measured
                    and devices.get(engine) == "cpu"
                ):
                    self._measured[key, version.path] = status.memory_bytes

    def _describe(
        self,
        wish: Wish,
        reports: Reports,
        *,
        unnamed: AbstractSet[VersionKey],
        memory: Mapping[str, int],
        now_s: float,
    ) -> PlacementSituation:
        host_of = {name: it.host for name, it in self.running().items()}
        ready, outdated = set(), set()
        holding: dict[Holder, frozenset[VersionKey]] = {}
        for engine, versions in reports.items():
            if engine not in host_of:
                continue
            holder = Holder(host_of[engine], engine)
            holding[holder] = frozenset(versions)
            for key, status in versions.items():
                one = Place(holder, key)
                is_fresh = status.form in ("", wish.forms.get(key, status.form))
                is_loaded = status.state == "ready" or (
                    status.state == "evicted" and not status.pinned
                )
                if is_fresh and is_loaded:
                    ready.add(one)
                if not is_fresh and self._is_outdated(one, wish.to_load[key]):
                    outdated.add(one)
        for engine, host in host_of.items():
            holder = Holder(host, engine)
            if holder not in holding:
                # It does not answer now; it will have what it had.
                holding[holder] = frozenset(
                    key
                    for part in (self._placement.holders, self._placement.staying)
                    for key, holders in part.items()
                    if holder in holders
                )
        wanted = self._all_wanted(wish)
        blocked = wish.quarantined.keys() & wish.to_load.keys()
        if blocked:
            blocked -= {it.version.key for it in wanted}
        return PlacementSituation(
            hosts=self._machines(wish, memory),
            wanted=wanted,
            plans=self._current_plans(),
            holding=holding,
            ready=ready,
            seated={
                Place(holder, key)
                for key, holders in self._placement.holders.items()
                for holder in holders
            },
            left={
                it
                for it, since_s in self._leaving_since.items()
                if now_s - since_s >= self._grace_s
            },
            unwanted_bytes=self._bytes,
            releasable=unnamed | blocked,
            outdated=outdated,
            recycle=set(self._recycle),
        )

    def _is_outdated(self, one: Place, now: VersionToLoad) -> bool:
        """Return whether an engine of a device has another artifact of a version."""
        before = self._told.get(one)
        if before is None or one.holder in self._placement.holders.get(one.key, ()):
            return False
        return before.path != now.path

    def _all_wanted(self, wish: Wish) -> tuple[Wanted, ...]:
        """Describe what is wanted; anew only if that or a measurement changed."""
        measured = len(self._measured)
        if self._described is None or self._described[:2] != (id(wish), measured):
            wanted = [self._wanted(wish, key) for key in wish.to_load]
            known = tuple(it for it in wanted if it is not None)
            self._described = id(wish), measured, wish, known
            self._bytes = self._bytes | {
                it.version.key: it.memory_bytes for it in known
            }
        return self._described[3]

    def _wanted(self, wish: Wish, key: VersionKey) -> Wanted | None:
        """Describe a version; None: it must not share a process with others."""
        version, condition = wish.to_load[key], wish.conditions.get(key)
        measured = self.measured(key, version.path)
        limit = version.process.memory_mb << 20
        if not limit and measured:
            limit = _ROOM_FACTOR * measured + _ROOM_BYTES
        program = is_program(version.path, version.flavors)
        one = Wanted(
            version=version,
            priority=wish.priorities[key],
            is_program=program,
            memory_bytes=measured or size_of(version.path),
            memory_limit_bytes=limit,
            slow=condition is not None and condition.slow_since is not None,
            released_at=wish.released_at(key),
        )
        kind = kind_of(one)
        nbytes = one.memory_bytes
        if key in wish.quarantined:
            if kind != "own":
                return None
            # Its host runs no process of it.
            nbytes = 0
        elif kind != "device":
            nbytes += _PROCESS_BYTES
        return replace(one, memory_bytes=nbytes)


def engines_of(places: Mapping[VersionKey, AbstractSet[Holder]]) -> Engines:
    """Return the names of the engines for holders; hosts' names are not told apart."""
    return {
        key: frozenset(holder.process for holder in holders)
        for key, holders in places.items()
    }
