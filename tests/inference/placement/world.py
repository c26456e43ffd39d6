"""Simulate hosts that run what the placement says, and check that nobody suffers."""

import random

import msgspec

from inference.engine.wire.messages import ProcessRules, VersionKey, VersionToLoad
from inference.placement.situation import (
    Holder,
    Machine,
    Place,
    PlacementSituation,
    Priority,
    Wanted,
)

# Steps for which gateways still name what they were told to forget.
FORGET_STEPS = 2
MACHINES = (("cpu",), ("cuda:0",), ("cuda:0", "cuda:1", "cpu"))
ENVIRONMENT = "e" * 64


def version_of(model, number=1, **fields):
    values = {
        "key": VersionKey(model, number),
        "path": f"/artifacts/{model}-{number}",
        "flavors": ("python_function",),
        "signature": {},
        "trusted": True,
    }
    return VersionToLoad(**{**values, **fields})


def wanted_of(model="m", number=1, *, priority=Priority.ROUTED, program=False, **rest):
    names = Wanted.__dataclass_fields__.keys() - {"priority", "is_program", "version"}
    own = {name: rest.pop(name) for name in names & rest.keys()}
    if program:
        rest.setdefault("flavors", ("python_function", "pytorch"))
    return Wanted(version_of(model, number, **rest), priority, program, **own)


def rules(**fields):
    return ProcessRules(**fields)


class World:
    """Hosts, wishes and processes, which change by chance."""

    def __init__(self, seed, *, place):
        self.random = random.Random(seed)
        # Memory is never short.
        self.is_roomy = seed % 3 == 0
        self.place = place
        self.hosts = [self._host(0)]
        self.wishes = {}
        self.plans = {}
        self.holding = {}
        # Steps until a place is ready; 0: it is; None: it fails.
        self.progress = {}
        # Steps since a place should be forgotten, and a version is not wanted.
        self.leaving = {}
        self.unwanted = {}
        self.bytes = {}
        self.recycle = set()
        self.placement = None
        # The controller that decides has just started.
        self.is_new = False

    def situation(self):
        return PlacementSituation(
            hosts=tuple(self.hosts),
            wanted=tuple(self.wishes.values()),
            plans=self.plans,
            holding=self.holding,
            ready=frozenset(p for p, left in self.progress.items() if left == 0),
            seated=self._seated(),
            left=frozenset(p for p, n in self.leaving.items() if n >= FORGET_STEPS),
            unwanted_bytes=self.bytes,
            releasable=frozenset(
                key for key, n in self.unwanted.items() if n >= FORGET_STEPS
            ),
            recycle=frozenset(self.recycle),
        )

    def _seated(self):
        # Another controller does not know them.
        if self.placement is None or self.is_new:
            return frozenset()
        return frozenset(
            Place(holder, key)
            for key, holders in self.placement.holders.items()
            for holder in holders
        )

    def step(self, *, calm=False):
        """Let something happen, decide, check, and carry out the decision."""
        before = dict(self.wishes)
        hosts = list(self.hosts)
        recycled = set(self.recycle)
        self.is_new = not calm and self.random.random() < 0.03
        if not calm:
            for _ in range(self.random.randint(0, 2)):
                self._happen()
        self._progress(calm=calm)
        situation = self.situation()
        placement = self.place(situation)
        unchanged = {
            key
            for key, wish in self.wishes.items()
            if before.get(key) == wish
            and hosts == self.hosts
            and recycled == self.recycle
        }
        self._check(situation, placement, before, unchanged)
        self._carry_out(placement)
        self.is_new = False
        again = self.place(self.situation())
        # Where memory is short, replicas may move once more, to make room for others;
        # `settle` checks that this comes to an end.
        alone = all(it.version.process.replicas == 1 for it in self.wishes.values())
        fits = not placement.lacking and recycled == self.recycle
        if self.is_roomy or (fits and alone):
            assert again.plans == placement.plans, "it changes its mind"
            assert again.holders == placement.holders

    def settle(self):
        """Let nothing happen any more; everything must get to its place."""
        for _ in range(40):
            self.step(calm=True)
        places = self._places(self.placement)
        lacking = {it.key for it in self.placement.lacking}
        assert self.placement.staying.keys() <= lacking, "something never leaves"
        assert places == set(self.progress)
        for it in self.placement.lacking:
            if it.sentence.endswith("It is not loaded."):
                self._check_rank(it)
        before = self.placement.plans
        self.step(calm=True)
        assert self.placement.plans == before

    # What happens

    def _happen(self):
        what = self.random.choices(
            (self._wish, self._forget, self._change, self._machine, self._recycle),
            weights=(5, 2, 4, 1, 2),
        )[0]
        what()

    def _host(self, number):
        devices = self.random.choice(MACHINES)
        memory = {
            device: self.random.choice((200, 1000, 4000))
            for device in (*devices, "cpu")
        }
        if self.is_roomy:
            memory = {}
        environments = {ENVIRONMENT: "/e"} if self.random.random() < 0.7 else {}
        return Machine(f"host-{number}", devices, memory, environments)

    def _machine(self):
        if len(self.hosts) < 3 and self.random.random() < 0.5:
            self.hosts.append(self._host(len(self.hosts)))
            return
        index = self.random.randrange(len(self.hosts))
        host = self.hosts[index]
        memory = {
            device: nbytes * self.random.choice((1, 2)) // self.random.choice((1, 2))
            for device, nbytes in host.memory_bytes.items()
        }
        self.hosts[index] = Machine(host.name, host.devices, memory, host.environments)

    def _wish(self):
        model = f"model-{self.random.randrange(8)}"
        number = self.random.randint(1, 2)
        wish = wanted_of(
            model,
            number,
            priority=self.random.choice(list(Priority)),
            program=model < "model-3",
            memory_bytes=self.random.choice((0, 50, 100, 300, 900)),
            trusted=self.random.random() < 0.9,
            environment=ENVIRONMENT if self.random.random() < 0.15 else "base",
            process=self._rules(),
        )
        if wish.version.key not in self.wishes:
            self._load_anew(wish.version.key)
            self.wishes[wish.version.key] = wish
            self.unwanted.pop(wish.version.key, None)

    def _rules(self):
        isolation = self.random.choice(("", "", "", "own", "shared", "group a"))
        return rules(
            isolation=isolation,
            replicas=self.random.choice((1, 1, 1, 2, 3)),
            network=self.random.random() < 0.1,
        )

    def _forget(self):
        if self.wishes:
            key = self.random.choice(sorted(self.wishes, key=str))
            del self.wishes[key]
            self.unwanted[key] = 0

    def _change(self):
        if not self.wishes:
            return
        key = self.random.choice(sorted(self.wishes, key=str))
        wish = self.wishes[key]
        version, fields = wish.version, {}
        match self.random.randrange(6):
            case 0:
                fields = {"process": self._rules()}
            case 1:
                path = f"{version.path}+" if len(version.path) < 30 else "/a"
                fields = {"path": path}
                self._load_anew(key)
            case 2:
                fields = {"trusted": not version.trusted}
            case 3:
                fields = {"environment": self.random.choice(("base", ENVIRONMENT))}
            case 4:
                wish = _replaced(wish, slow=True)
            case 5:
                wish = _replaced(wish, priority=self.random.choice(list(Priority)))
        version = msgspec.structs.replace(version, **fields)
        self.wishes[key] = _replaced(wish, version=version)

    def _load_anew(self, key):
        """Let places load another artifact; until then they do not answer."""
        here = {place for place in self.progress if place.key == key}
        self.progress |= dict.fromkeys(here, 3)

    def _recycle(self):
        own = [
            Holder(host, process.name)
            for host, plan in sorted(self.plans.items())
            for process in plan.processes
            if process.kind == "own"
        ]
        if own:
            self.recycle.add(self.random.choice(own))

    def _progress(self, *, calm):
        for place, left in self.progress.items():
            if left:
                self.progress[place] = left - 1
            elif left is None and (calm or self.random.random() < 0.3):
                self.progress[place] = 1
            elif not calm and self.random.random() < 0.02:
                # Its process died, and starts again.
                self.progress[place] = 2
        for steps in (self.leaving, self.unwanted):
            for it in steps:
                steps[it] += 1

    # What must hold

    def _check(self, situation, placement, before, unchanged):
        self._check_processes(placement)
        lacking = {it.key: it for it in placement.lacking}
        absent = {key for key, it in lacking.items() if not it.is_placed}
        after = self._places(placement)
        # Where memory is short, what leaves may let replicas move.
        is_quiet = before == self.wishes and len(unchanged) == len(before)
        is_quiet &= not (lacking or (self.placement and self.placement.lacking))
        for key, wish in self.wishes.items():
            holders = placement.holders.get(key, frozenset())
            assert holders or key in absent, f"{key} is nowhere, and nobody says so"
            if wish.priority is Priority.ROUTED and not holders:
                assert "environment" in lacking[key].sentence
            if self.placement is None:
                continue
            had = {p for p in situation.ready if p.key == key and not self._old(p)}
            has = {p for p in after & had if p not in placement.leaving}
            gives_way = key in absent and not holders
            assert not had or has or gives_way, f"{key} serves no more"
            if key in unchanged and not self.is_new and (self.is_roomy or is_quiet):
                once = self.placement.holders.get(key, frozenset())
                if not self.is_roomy and wish.version.process.replicas > 1:
                    continue
                assert once <= holders, f"{key} moved for nothing"
        for place in self._places(self.placement) if self.placement else ():
            if self._old(place) and not self._loads_anew(placement, place):
                assert place not in after, "it answers with an artifact of before"
            elif place.key in self.wishes and place not in after:
                assert place in situation.left, "gateways still name it"
            if place.key not in self.wishes:
                assert place in after or place.key in situation.releasable
        self._check_memory(placement, after)

    def _check_rank(self, lacking):
        """Nothing that is needed less has the memory."""
        wish = self.wishes[lacking.key]
        for host in self.hosts:
            for process in self.placement.plans[host.name].processes:
                if process.kind == "own" and process.device == "cpu":
                    other = self.wishes[process.versions[0].key]
                    assert (
                        other.priority <= wish.priority
                        or other.memory_bytes < lacking.needed_bytes
                        or wish.version.environment not in ("base", *host.environments)
                    )

    def _old(self, place):
        """Return whether it has another artifact, or trust that was withdrawn."""
        wish = self.wishes.get(place.key)
        if wish is None:
            return False
        for process in self.plans[place.holder.host].processes:
            for before in process.versions:
                if (process.name, before.key) == (place.holder.process, place.key):
                    now = wish.version
                    withdrawn = before.trusted and not now.trusted
                    return before.path != now.path or (
                        withdrawn and not wish.is_program
                    )
        return False

    def _loads_anew(self, placement, place):
        """Return whether a shared process is told to load it again, in its place."""
        return place.holder.process.startswith(
            "group"
        ) and place.holder in placement.holders.get(place.key, ())

    def _check_processes(self, placement):
        names = [p.name for plan in placement.plans.values() for p in plan.processes]
        others = [
            name for name in names if not name.startswith(("cpu", "cuda", "group"))
        ]
        assert len(set(others)) == len(others)
        assert all(len(name) <= 24 for name in names)
        for host in self.hosts:
            plan = placement.plans[host.name]
            engines = [p for p in plan.processes if p.kind == "device"]
            assert [p.device for p in engines] == list(host.devices)
            for process in plan.processes:
                assert process.device in (*host.devices, "cpu")
                assert process.kind != "own" or len(process.versions) == 1
                assert len({v.environment for v in process.versions}) <= 1
                for version in process.versions:
                    wish = self.wishes.get(version.key)
                    assert version.trusted or wish is None or wish.is_program
        for key, holders in placement.holders.items():
            wish = self.wishes[key]
            for holder in holders:
                if holder.process in ("cpu", "cuda-0", "cuda-1"):
                    assert wish.is_program or not wish.version.trusted

    def _check_memory(self, placement, after):
        """What no route needs starts only where there is room."""
        began = after - self._places(self.placement) if self.placement else after
        for host in self.hosts:
            processes = {p.name: p for p in placement.plans[host.name].processes}
            for device, budget in host.memory_bytes.items():
                here = [
                    place
                    for place in after
                    if place.holder.host == host.name
                    and processes[place.holder.process].device == device
                    and processes[place.holder.process].kind != "device"
                ]
                used = sum(self._size(place.key) for place in here)
                new = [
                    place
                    for place in here
                    if place in began
                    and self._size(place.key)
                    and self.wishes[place.key].priority is not Priority.ROUTED
                ]
                assert not new or used <= budget, f"{new} have no room"

    def _size(self, key):
        wish = self.wishes.get(key)
        return wish.memory_bytes if wish else self.bytes.get(key, 0)

    def _places(self, placement):
        return {
            Place(holder, key)
            for part in (placement.holders, placement.staying)
            for key, holders in part.items()
            for holder in holders
        }

    def _carry_out(self, placement):
        places = self._places(placement)
        self.progress = {
            place: self.progress[place]
            if place in self.progress
            else self.random.choice((1, 2, 5, None))
            for place in sorted(places, key=str)
        }
        self.leaving = {it: self.leaving.get(it, 0) for it in placement.leaving}
        for key, wish in self.wishes.items():
            self.bytes[key] = wish.memory_bytes
        self.plans = placement.plans
        self.holding = {
            Holder(host, process.name): frozenset(
                place.key for place in places if place[0] == (host, process.name)
            )
            for host, plan in placement.plans.items()
            for process in plan.processes
            if process.kind == "device"
        }
        existing = {
            Holder(h, p.name) for h, plan in self.plans.items() for p in plan.processes
        }
        self.recycle &= existing
        self.placement = placement


def _replaced(wish, **fields):
    names = Wanted.__dataclass_fields__
    return Wanted(**{name: getattr(wish, name) for name in names} | fields)
