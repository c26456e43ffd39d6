"""A controller without its process, with a host that does what its plan says."""

import time
from datetime import timedelta

from django.utils import timezone

from inference.controller import engine_records, publishing
from inference.controller.engine_links import EngineLink
from inference.controller.reconciling import Reconciler
from inference.engine.wire.messages import VersionKey
from inference.models import ServingRoute
from inference.placement import plan_file, report_file
from inference.placement.processes import Death, HostReport, ProcessReport
from registry.models import Route
from tests.factories_registry import ModelVersionFactory
from tests.fakes import FakeControlledEngine, ManualClock


class FakeHost:
    """Run the processes of the plan as fake engines; report what tests set."""

    def __init__(self, home):
        self.home = home
        self.engines = {}
        self.memory_bytes = 0
        self.deaths = []
        # Fields of the reports on processes, by their names.
        self.reported = {}
        # Processes that do not come up.
        self.down = set()
        self.slow = False
        self.report()

    def run(self):
        plan = plan_file.read(self.home.host_plan)
        processes = {} if plan is None else {p.name: p for p in plan.processes}
        for name in self.engines.keys() - processes.keys():
            del self.engines[name]
        for name in processes.keys() - self.engines.keys() - self.down:
            self.engines[name] = self.start(processes[name])
        self.report()

    def start(self, process):
        engine = FakeControlledEngine()
        engine.slow = self.slow
        for version in process.versions:
            engine.load(version)
        engine.commands.clear()
        return engine

    def die(self, name, *, version=None, at=None, **fields):
        death = {"reason": "It was killed by SIGSEGV.", "signal": "SIGSEGV", **fields}
        at = at or time.time() + len(self.deaths)
        self.deaths.append(Death(at=at, process=name, version=version, **death))

    def report(self):
        plan = plan_file.read(self.home.host_plan)
        report_file.write(
            self.home.host_report,
            HostReport(
                host="here",
                at=time.time(),
                devices=("cpu",),
                memory_bytes=self.memory_bytes,
                processes=tuple(
                    ProcessReport(
                        **{
                            "name": process.name,
                            "state": "running",
                            **self.reported.get(process.name, {}),
                        }
                    )
                    for process in (plan.processes if plan else ())
                ),
                deaths=tuple(self.deaths),
            ),
        )


class Plant:
    """A round does what the controller does; `engine` is that of the device."""

    def __init__(self, home):
        self.clock = ManualClock()
        self.host = FakeHost(home)
        self.engine = FakeControlledEngine()
        self.host.engines["cpu"] = self.engine
        self.links = {}
        self.reconciler = Reconciler(home)
        self._follow()

    def round(self, *, publish=True):
        self.host.report()
        self._record()
        self.reconciler.reconcile(self.links, now_s=self.clock())
        self.host.run()
        self._follow()
        self._record()
        if publish and publishing.pending_sequence() is not None:
            self.reconciler.saw_published(publishing.publish(now=timezone.now()).models)
        self.clock.advance(0.5)

    def rounds(self, count):
        for _ in range(count):
            self.round()

    def settle(self):
        """Let the grace of everything pass."""
        self.rounds(30)

    def _follow(self):
        for name in self.links.keys() - self.host.engines.keys():
            del self.links[name]
        for name, engine in self.host.engines.items():
            if name not in self.links:
                self.links[name] = EngineLink(
                    name=name, address=f"/{name}.sock", client=engine
                )

    def _record(self):
        placer = self.reconciler.placer
        running = placer.running()
        for name, link in self.links.items():
            link.poll()
            one = running.get(name)
            engine_records.record(
                link.view,
                now=timezone.now(),
                running=one,
                leaving=placer.leaving(name),
                leaks=one is not None and self.reconciler.incidents.is_leaking(one),
            )
        engine_records.forget(running.keys() | {"cpu"})

    def processes(self):
        plan = plan_file.read(self.host.home.host_plan)
        return {process.name: process for process in plan.processes}

    def own(self, version):
        """Return the engines of the processes of a version, by name."""
        key = key_of(version)
        return {
            name: self.host.engines.get(name)
            for name, process in self.processes().items()
            if process.kind == "own" and process.versions[0].key == key
        }


def key_of(version):
    return VersionKey(version.registered_model.name, version.version)


def served():
    return ServingRoute.objects.get()


def add_version(route):
    return ModelVersionFactory(registered_model=route.registered_model)


def let_former_cool():
    """Let an hour pass since the routes moved."""
    ServingRoute.objects.update(moved_at=timezone.now() - timedelta(hours=2))
    publishing.mark_changed()


def move_default(route, version):
    Route.objects.filter(pk=route.pk).update(default_version=version)
    publishing.mark_changed()
