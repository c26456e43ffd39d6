"""Decide which engine processes exist on which host, and which versions each holds.

Without I/O and without a clock. Programs share the engine of each device. Whatever runs
its author's code has a process of its own, or one of a group. The steps:

1. Give each version its *seats*, by priority, as if nothing else was there. What is
   there already keeps its seat if it fits, so that little moves.
2. What has no seat any more *stays* until its version is ready on all its seats and
   gateways do not name the old place any more, or until nobody can name the version.
3. New processes start where there is room beside all that stays. Versions of routes do
   not wait for room.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from inference.engine.wire.messages import BASE_ENVIRONMENT, VersionKey, VersionToLoad
from inference.installation.home import engine_of_device
from inference.placement.processes import (
    EngineProcess,
    HostPlan,
    Kind,
    group_name,
    process_name,
)
from inference.placement.situation import (
    UNKNOWN_MEMORY,
    Holder,
    Lacking,
    Machine,
    Place,
    Placement,
    PlacementSituation,
    Priority,
    Wanted,
)

_GROUP = "group "
_MIB = 1 << 20


def place(situation: PlacementSituation) -> Placement:
    """Decide anew; the same situation with its own plans leads to the same plans."""
    return _Round(situation).decide()


class _Found(NamedTuple):
    """A version that is in a process now."""

    place: Place
    process: EngineProcess
    # None in the engine of a device: plans do not say.
    version: VersionToLoad | None


class _Demand(NamedTuple):
    """One of the seats that a version asks for."""

    wanted: Wanted
    kind: Kind
    # The seat's number among those of its version.
    number: int
    # Name of the process, without a replica's number; of a group: its name.
    name: str
    # Host and device of an engine; None: wherever it fits.
    fixed: tuple[str, str] | None = None

    @property
    def key(self) -> VersionKey:
        return self.wanted.version.key

    @property
    def is_indispensable(self) -> bool:
        return self.wanted.priority is Priority.ROUTED and self.number == 0


class _Seat(NamedTuple):
    demand: _Demand
    holder: Holder
    device: str
    # Memory that it takes there.
    nbytes: int
    # The version is there already.
    exists: bool

    @property
    def place(self) -> Place:
        return Place(self.holder, self.demand.key)


class _Memory:
    """What is free on each device of each host."""

    def __init__(self, hosts: Iterable[Machine]) -> None:
        self._free = {
            (host.name, device): nbytes
            for host in hosts
            for device, nbytes in host.memory_bytes.items()
        }

    def free(self, host: str, device: str) -> int:
        return max(self._left(host, device), 0)

    def take(self, host: str, device: str, nbytes: int) -> None:
        self._free[host, device] = self._left(host, device) - nbytes

    def _left(self, host: str, device: str) -> int:
        """Return what is left, which is negative where routes took more."""
        return self._free.get((host, device), UNKNOWN_MEMORY)


class _Round:
    """One decision."""

    def __init__(self, situation: PlacementSituation) -> None:
        self._situation = situation
        self._hosts = {host.name: host for host in situation.hosts}
        self._wanted = {one.version.key: one for one in situation.wanted}
        self._found: dict[VersionKey, list[_Found]] = defaultdict(list)
        # Processes that exist or are about to, and their names.
        self._holders: set[Holder] = set()
        self._names: set[str] = set()
        self._seats: dict[VersionKey, list[_Seat]] = defaultdict(list)
        # Versions that leave to make room.
        self._gives_way: set[VersionKey] = set()
        self._lacking: list[Lacking] = []

    def decide(self) -> Placement:
        self._look()
        self._seat_all()
        staying, leaving = self._stay()
        started = self._start(staying)
        holders: dict[VersionKey, set[Holder]] = defaultdict(set)
        for seat in started:
            holders[seat.place.key].add(seat.holder)
        stay: dict[VersionKey, set[Holder]] = defaultdict(set)
        for found in staying:
            stay[found.place.key].add(found.place.holder)
        return Placement(
            plans=self._plans(started, staying),
            holders={key: frozenset(some) for key, some in holders.items()},
            staying={key: frozenset(some) for key, some in stay.items()},
            leaving=leaving,
            lacking=tuple(sorted(self._lacking, key=_alphabetical)),
        )

    def _look(self) -> None:
        """Note which versions are where now."""
        for host in self._hosts.values():
            for process in self._situation.plans.get(host.name, HostPlan()).processes:
                holder = Holder(host.name, process.name)
                held: dict[VersionKey, VersionToLoad | None]
                if process.kind != "device":
                    held = {version.key: version for version in process.versions}
                elif process.device in host.devices:
                    held = dict.fromkeys(self._situation.holding.get(holder, ()))
                else:
                    continue
                self._holders.add(holder)
                self._names.add(process.name)
                for key, version in held.items():
                    found = _Found(Place(holder, key), process, version)
                    self._found[key].append(found)
        # Where there is one too many, the first stays.
        for several in self._found.values():
            several.sort(
                key=lambda it: (
                    it.place not in self._situation.seated,
                    it.place not in self._situation.ready,
                    it.place.holder,
                )
            )

    def _seat_all(self) -> None:
        memory = _Memory(self._hosts.values())
        demands = [one for wanted in self._wanted.values() for one in self._ask(wanted)]
        for _, equals in itertools.groupby(sorted(demands, key=_rank), key=_worth):
            # What is there stays where it is, so it takes its memory first.
            new = [it for it in list(equals) if not self._keep(it, memory)]
            for demand in new:
                self._seat(demand, memory)

    def _ask(self, wanted: Wanted) -> Iterator[_Demand]:
        """Yield the seats that a version should have."""
        version = wanted.version
        replicas = max(version.process.replicas, 1)
        kind = kind_of(wanted)
        if kind == "group":
            name = version.process.isolation.removeprefix(_GROUP)
            # A host has one process of a group.
            for number in range(max(min(replicas, len(self._hosts)), 1)):
                yield _Demand(wanted, "group", number, name)
            return
        engines: list[tuple[str, str]] = []
        if kind == "device":
            engines = self._engines_of_devices(version.key)
            # One replica is what nobody asked for: every engine has each program.
            engines = engines[:replicas] if replicas > 1 else engines
            for number, (host, device) in enumerate(engines):
                yield _Demand(
                    wanted, "device", number, engine_of_device(device), (host, device)
                )
            if replicas == 1 or not wanted.is_program:
                return
        for number in range(len(engines), replicas):
            yield _Demand(wanted, "own", number, process_name(version))

    def _engines_of_devices(self, key: VersionKey) -> list[tuple[str, str]]:
        """Return hosts and devices: those that have the version first, then spread."""
        having = {found.place.holder for found in self._found.get(key, ())}
        engines = [
            (Holder(host.name, engine_of_device(device)) not in having, rank, host.name)
            for host in self._hosts.values()
            for rank, device in enumerate(host.devices)
        ]
        return [
            (host, self._hosts[host].devices[rank]) for _, rank, host in sorted(engines)
        ]

    def _keep(self, demand: _Demand, memory: _Memory) -> bool:
        """Take a seat that the version has, if it fits; return whether it does."""
        needed = demand.wanted.memory_bytes
        if demand.fixed is not None:
            host, device = demand.fixed
            # The engine of a device itself lets versions leave its memory.
            needed = min(needed, memory.free(host, device))
            self._sit(demand, Holder(host, demand.name), device, needed, memory)
            return True
        for holder, device in self._where_it_is(demand):
            if memory.free(holder.host, device) >= needed:
                self._sit(demand, holder, device, needed, memory)
                return True
        return False

    def _seat(self, demand: _Demand, memory: _Memory) -> None:
        """Choose a new seat."""
        needed = demand.wanted.memory_bytes
        there = self._choose(demand, memory)
        if there is None:
            environment = demand.wanted.version.environment
            words = f"No host has its environment {environment[:12]}."
            if not self._hosts:
                words = "There is no host."
            self._lacking.append(Lacking(demand.key, needed, 0, words))
            return
        free = memory.free(there[0].host, there[1])
        if free < needed:
            self._lack(demand, free)
        if free >= needed:
            self._sit(demand, *there, needed, memory)
        elif demand.is_indispensable:
            here = self._where_it_is(demand)
            self._sit(demand, *(here[0] if here else there), needed, memory)
        elif demand.number == 0:
            self._gives_way.add(demand.key)

    def _lack(self, demand: _Demand, free: int, *, until: str = "") -> None:
        needed = demand.wanted.memory_bytes
        if demand.is_indispensable:
            words = "A route needs it, so it is loaded all the same."
        elif demand.number:
            words = f"There is no process number {demand.number + 1} of it{until}."
        else:
            words = f"It is not loaded{until}."
        self._lacking.append(
            Lacking(
                demand.key,
                needed,
                free,
                f"It needs {_size(needed)} of memory; {_size(free)} are free. {words}",
                is_placed=demand.is_indispensable,
            )
        )

    def _sit(
        self,
        demand: _Demand,
        holder: Holder,
        device: str,
        nbytes: int,
        memory: _Memory,
    ) -> None:
        place = Place(holder, demand.key)
        exists = any(it.place == place for it in self._found.get(demand.key, ()))
        self._seats[demand.key].append(_Seat(demand, holder, device, nbytes, exists))
        self._holders.add(holder)
        self._names.add(holder.process)
        memory.take(holder.host, device, nbytes)

    def _where_it_is(self, demand: _Demand) -> list[tuple[Holder, str]]:
        """Return the processes that have the version now and can keep it."""
        used = {seat.holder for seat in self._seats.get(demand.key, ())}
        return [
            (found.place.holder, found.process.device)
            for found in self._found.get(demand.key, ())
            if found.place.holder not in used and self._suits(found, demand)
        ]

    def _suits(self, found: _Found, demand: _Demand) -> bool:
        holder, process = found.place.holder, found.process
        version = demand.wanted.version
        if holder in self._situation.recycle or process.kind != demand.kind:
            return False
        if process.device not in _devices(version, self._hosts[holder.host]):
            return False
        if process.kind == "group":
            return process.name == _group(demand, process.device)
        return (
            process.network == version.process.network
            and process.name.partition(".")[0] == demand.name
        )

    def _choose(self, demand: _Demand, memory: _Memory) -> tuple[Holder, str] | None:
        """Return a new place: the best one with room, else the one with the most."""
        version = demand.wanted.version
        used = [seat.holder for seat in self._seats.get(demand.key, ())]
        name = self._unused_name(version) if demand.kind == "own" else ""
        places = []
        for host in self._hosts.values():
            if version.environment not in (BASE_ENVIRONMENT, *host.environments):
                continue
            beside = sum(1 for holder in used if holder.host == host.name)
            for rank, device in enumerate(_devices(version, host)):
                holder = Holder(host.name, name or _group(demand, device))
                if holder in used:
                    continue
                free = memory.free(host.name, device)
                lacks = max(0, demand.wanted.memory_bytes - free)
                is_new = holder not in self._holders
                places.append((lacks, beside, is_new, rank, -free, holder, device))
        return min(places)[-2:] if places else None

    def _unused_name(self, version: VersionToLoad) -> str:
        """Name another process of the version; two versions may have the same names."""
        names = (process_name(version, number) for number in itertools.count())
        return next(name for name in names if name not in self._names)

    def _stay(self) -> tuple[list[_Found], frozenset[Place]]:
        """Return what stays without a seat, and which of it gateways should forget."""
        situation = self._situation
        staying, leaving = [], set()
        for key, several in self._found.items():
            wanted = self._wanted.get(key)
            seats = {seat.place for seat in self._seats.get(key, ())}
            is_served = bool(seats) and seats <= situation.ready
            for found in several:
                place = found.place
                if place in seats or self._must_stop(found, wanted):
                    continue
                if wanted is None:
                    if key not in situation.releasable:
                        staying.append(found)
                elif not is_served and key not in self._gives_way:
                    staying.append(found)
                elif place not in situation.left:
                    staying.append(found)
                    leaving.add(place)
        return staying, frozenset(leaving)

    def _must_stop(self, found: _Found, wanted: Wanted | None) -> bool:
        """Return whether it must not answer any more, whoever else can."""
        if found.place in self._situation.outdated:
            return True
        if wanted is None or found.version is None:
            return False
        before, now = found.version, wanted.version
        is_withdrawn = before.trusted and not now.trusted and not wanted.is_program
        return before.path != now.path or is_withdrawn

    def _start(self, staying: Iterable[_Found]) -> list[_Seat]:
        """Return the seats that can be taken now; others wait for something to go."""
        memory = _Memory(self._hosts.values())
        for found in staying:
            if found.process.kind != "device":
                key = found.place.key
                wanted = self._wanted.get(key)
                nbytes = self._situation.unwanted_bytes.get(key, 0)
                if wanted is not None:
                    nbytes = wanted.memory_bytes
                memory.take(found.place.holder.host, found.process.device, nbytes)
        seats = [seat for several in self._seats.values() for seat in several]
        waiting = []
        started = []
        for seat in seats:
            if seat.exists or seat.demand.fixed or seat.demand.is_indispensable:
                memory.take(seat.holder.host, seat.device, seat.nbytes)
                started.append(seat)
            else:
                waiting.append(seat)
        for seat in sorted(waiting, key=lambda seat: _rank(seat.demand)):
            free = memory.free(seat.holder.host, seat.device)
            if free < seat.nbytes:
                self._lack(seat.demand, free, until=" until something else leaves")
                continue
            memory.take(seat.holder.host, seat.device, seat.nbytes)
            started.append(seat)
        return started

    def _plans(
        self, started: Iterable[_Seat], staying: Iterable[_Found]
    ) -> dict[str, HostPlan]:
        seats: dict[Holder, list[_Seat]] = defaultdict(list)
        for seat in started:
            seats[seat.holder].append(seat)
        kept: dict[Holder, list[_Found]] = defaultdict(list)
        for found in staying:
            kept[found.place.holder].append(found)
        processes: dict[str, list[EngineProcess]] = {name: [] for name in self._hosts}
        for holder in sorted(seats.keys() | kept.keys()):
            if seats[holder] and seats[holder][0].demand.kind != "device":
                process = _process(holder.process, seats[holder], kept[holder])
                processes[holder.host].append(process)
            elif not seats[holder] and kept[holder][0].process.kind != "device":
                versions = _versions([], kept[holder])
                process = msgspec.structs.replace(
                    kept[holder][0].process, versions=versions
                )
                processes[holder.host].append(process)
        return {
            host.name: HostPlan(
                processes=(
                    *(
                        EngineProcess(name=engine_of_device(device), device=device)
                        for device in host.devices
                    ),
                    *processes[host.name],
                ),
                environments=dict(host.environments),
            )
            for host in self._hosts.values()
        }


def _worth(demand: _Demand) -> tuple[Priority, bool]:
    """Return who gets memory first: the first process of each, by who needs it."""
    return demand.wanted.priority, demand.number > 0


def _rank(demand: _Demand) -> tuple[object, ...]:
    key = demand.key
    return *_worth(demand), key.model, key.version, demand.number


def kind_of(wanted: Wanted) -> Kind:
    """Return what kind of process a version should have."""
    version = wanted.version
    isolation = version.process.isolation
    if not wanted.is_program and not version.trusted:
        # The engine of a device refuses it without running anything of it.
        return "device"
    if wanted.slow and isolation != "shared":
        return "own"
    if isolation.startswith(_GROUP):
        return "group"
    if isolation == "own":
        return "own"
    if wanted.is_program:
        return "device"
    return "group" if isolation == "shared" else "own"


def _devices(version: VersionToLoad, host: Machine) -> tuple[str, ...]:
    """Return where a process of the version may compute, the best first."""
    if "pytorch" not in version.flavors:
        return ("cpu",)
    return (*(device for device in host.devices if device != "cpu"), "cpu")


def _group(demand: _Demand, device: str) -> str:
    version = demand.wanted.version
    return group_name(
        demand.name,
        device=device,
        environment=version.environment,
        network=version.process.network,
    )


def _process(name: str, seats: list[_Seat], kept: Iterable[_Found]) -> EngineProcess:
    first = seats[0]
    wanted = [seat.demand.wanted for seat in seats]
    limits = [one.memory_limit_bytes for one in wanted]
    version = first.demand.wanted.version
    return EngineProcess(
        name=name,
        device=first.device,
        kind=first.demand.kind,
        environment=version.environment,
        versions=_versions(wanted, kept),
        memory_limit_bytes=sum(limits) if all(limits) else 0,
        max_run_s=max(one.version.process.max_run_s for one in wanted),
        network=version.process.network,
        released_at=max(one.released_at for one in wanted),
    )


def _versions(
    wanted: Iterable[Wanted], kept: Iterable[_Found]
) -> tuple[VersionToLoad, ...]:
    versions = [one.version for one in wanted]
    versions += [found.version for found in kept if found.version is not None]
    return tuple(sorted(versions, key=_alphabetical))


def _alphabetical(it: VersionToLoad | Lacking) -> tuple[str, int]:
    return it.key.model, it.key.version


def _size(nbytes: int) -> str:
    if nbytes >= 1 << 30:
        return f"{nbytes / (1 << 30):.1f} GB"
    return f"{round(nbytes / _MIB)} MB"
