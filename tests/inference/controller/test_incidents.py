"""Deaths and failures are stored once, and a version that dies again is quarantined."""

import dataclasses
import time
from datetime import timedelta

import msgspec
import pytest
from django.utils import timezone

from inference.conditions import requests
from inference.conditions.reading import VersionStates
from inference.conditions.states import ServingState
from inference.controller import engine_records, incidents, publishing
from inference.controller.engine_links import EngineView
from inference.controller.reconciling import Reconciler
from inference.engine.wire.messages import BatchFailure
from inference.models import Engine, VersionCondition, VersionEvent
from registry.models import ModelVersion, RegisteredModel
from tests.factories_registry import RouteFactory
from tests.inference.controller.plant import (
    Plant,
    add_version,
    key_of,
    move_default,
    served,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def plant(home):
    return Plant(home)


@pytest.fixture
def route(plant):
    route = RouteFactory(default_version__registered_model__trusted=True)
    publishing.mark_changed()
    plant.rounds(3)
    return route


def kinds():
    events = VersionEvent.objects.order_by("pk")
    return [event.kind for event in events]


def quarantine(plant, version):
    """Let the host give up the process of a version."""
    (name,) = plant.own(version)
    for _ in range(2):
        plant.host.die(name, version=key_of(version), exit_code=-11, output="Oops\0")
    plant.host.reported[name] = {"state": "quarantined"}
    plant.host.down.add(name)
    del plant.host.engines[name]
    plant.rounds(2)
    return name


def release(version):
    VersionCondition.objects.filter(version=version.version).update(
        quarantined_at=None,
        reason="",
        released_at=timezone.now() + timedelta(seconds=10),
    )
    publishing.mark_changed()


def test_a_process_shows_its_own_memory_and_why_it_does_not_run(plant, route):
    (name,) = plant.own(route.default_version)
    plant.host.reported[name] = {"memory_bytes": 5 << 20}
    plant.rounds(2)
    assert Engine.objects.get(name=name).memory_bytes == 5 << 20

    problem = "It died twice within ten minutes."
    running = plant.reconciler.placer.running()[name]
    reported = msgspec.structs.replace(running.reported, problem=problem)
    engine_records.record(
        EngineView(name, "/run/a.sock", None, {}, error="the engine is not there"),
        now=timezone.now(),
        running=dataclasses.replace(running, reported=reported),
    )

    engine = Engine.objects.get(name=name)
    assert (engine.memory_bytes, engine.error) == (0, problem)


def test_a_death_is_stored_once_with_all_that_is_known(plant, route):
    (name,) = plant.own(route.default_version)
    key = key_of(route.default_version)
    plant.host.die(name, version=key, exit_code=-11, output="Oops\0", rows=3)

    plant.rounds(2)
    plant.reconciler = Reconciler(plant.host.home)
    plant.rounds(2)

    event = VersionEvent.objects.get()
    assert (event.kind, event.engine, event.host) == ("death", name, "here")
    assert (event.exit_code, event.signal, event.rows) == (-11, "SIGSEGV", 3)
    assert (event.text, event.detail) == ("It was killed by SIGSEGV.", "Oops")


def test_a_version_that_its_host_gave_up_says_so(plant, route):
    version = route.default_version
    name = quarantine(plant, version)

    assert kinds() == ["death", "death", "quarantined"]
    problem = ModelVersion.objects.get(pk=version.pk).serving_problem
    assert problem.startswith("Quarantined. Its process died twice")
    assert "SIGSEGV" in problem
    assert "is quarantined" in served().waiting_for
    (model,) = publishing.assemble(sequence=1, now=timezone.now()).models
    assert model.broken == (str(version.version),)
    # The host keeps its state as long as the plan names the process.
    plant.settle()
    assert name in plant.processes()
    assert kinds() == ["death", "death", "quarantined"]


def test_the_former_default_answers_until_a_person_releases(plant, route):
    old, new = route.default_version, add_version(route)
    move_default(route, new)
    plant.settle()

    name = quarantine(plant, new)
    plant.rounds(3)
    assert served().default_version == old.version
    assert served().former_version == old.version
    plant.settle()
    assert served().default_version == old.version

    release(new)
    plant.round()
    assert plant.processes()[name].released_at > time.time()
    # Its host has not read that yet.
    plant.rounds(3)
    assert kinds().count("quarantined") == 1
    plant.host.down.clear()
    plant.host.reported.clear()
    plant.rounds(4)
    assert served().default_version == new.version
    assert not ModelVersion.objects.exclude(serving_problem="").exists()


def test_the_former_default_is_loaded_for_it_even_after_its_hour(plant, route):
    old, new = route.default_version, add_version(route)
    move_default(route, new)
    plant.settle()
    type(served()).objects.update(moved_at=timezone.now() - timedelta(hours=2))
    publishing.mark_changed()
    plant.settle()
    assert not plant.own(old)

    quarantine(plant, new)
    plant.rounds(4)

    assert served().default_version == old.version


def test_what_its_host_runs_again_is_quarantined_no_longer(plant, route):
    quarantine(plant, route.default_version)

    plant.host.down.clear()
    plant.host.reported.clear()
    plant.rounds(3)

    assert kinds()[-1] == "released"
    assert VersionCondition.objects.get().quarantined_at is None


def test_another_artifact_is_not_quarantined(plant, route):
    quarantine(plant, route.default_version)

    ModelVersion.objects.update(artifact_digest="1" * 64)
    publishing.mark_changed()
    plant.rounds(4)

    assert VersionCondition.objects.get().quarantined_at is None
    assert served().waiting_for == ""


def give_up(plant, name, version):
    """Let the host give up one process of several."""
    for _ in range(2):
        plant.host.die(name, version=key_of(version), exit_code=-11)
    problem = "It died twice within ten minutes."
    plant.host.reported[name] = {"state": "quarantined", "problem": problem}
    plant.host.engines[name].reachable = False
    plant.rounds(2)


def test_a_version_is_quarantined_once_no_replica_of_it_survives(plant, route):
    version = route.default_version
    RegisteredModel.objects.update(process={"replicas": 2})
    publishing.mark_changed()
    plant.settle()
    first, second = plant.own(version)

    give_up(plant, first, version)
    assert not VersionCondition.objects.exists()
    assert served().default_version == version.version
    (model,) = publishing.assemble(sequence=1, now=timezone.now()).models
    assert model.versions[0].engines == (second,)

    give_up(plant, second, version)
    assert VersionCondition.objects.get().quarantined_at is not None
    assert kinds().count("quarantined") == 1


def test_a_replica_that_was_given_up_starts_when_people_ask(plant, route):
    version = route.default_version
    RegisteredModel.objects.update(process={"replicas": 2})
    publishing.mark_changed()
    plant.settle()
    first, _ = plant.own(version)
    give_up(plant, first, version)
    report = VersionStates([version.registered_model.name]).of(version)
    assert report.state is ServingState.SERVING_DEFAULT
    assert report.reason == (
        f"Its process {first} does not run. It died twice within ten minutes."
    )

    asked = timezone.now() + timedelta(seconds=10)
    requests.load_again(version, by=None, now=asked)
    plant.round()

    assert plant.processes()[first].released_at == asked.timestamp()


def test_what_nobody_wants_is_quarantined_no_longer(plant, route):
    quarantine(plant, route.default_version)

    route.enabled = False
    route.save()
    publishing.mark_changed()
    plant.settle()

    assert VersionCondition.objects.get().quarantined_at is None
    assert not plant.own(route.default_version)


def test_in_a_shared_process_only_the_version_is_quarantined(plant, route):
    RegisteredModel.objects.update(process={"isolation": "group g"})
    other = add_version(route)
    ModelVersion.objects.filter(pk=other.pk).update(published=True)
    publishing.mark_changed()
    plant.settle()
    (group,) = plant.processes().keys() - {"cpu"}
    now = time.time()

    plant.host.die(group, version=key_of(other), at=now - 700)
    plant.host.die(group, version=key_of(other), at=now - 50)
    plant.rounds(2)
    assert not VersionCondition.objects.exists()
    plant.host.die(group, version=key_of(other), at=now)
    plant.rounds(2)

    assert VersionCondition.objects.get().quarantined_at is not None
    assert set(plant.host.engines[group].loaded) == {key_of(route.default_version)}
    release(other)
    plant.rounds(2)
    assert key_of(other) in plant.host.engines[group].loaded


def test_batches_that_fail_are_stored_once_and_the_last_twenty_kept(plant, route):
    version = route.default_version
    (name,) = plant.own(version)
    engine, key = plant.host.engines[name], key_of(version)

    def fail(*numbers):
        failures = tuple(
            BatchFailure(
                at=1e9 + number,
                code="MODEL_ERROR",
                exception="ValueError",
                message=f"bad row {number}",
                trace="…",
                rows=number,
                request_ids=("r-1",),
            )
            for number in numbers
        )
        engine.loaded[key] = msgspec.structs.replace(
            engine.loaded[key], failures=failures
        )
        plant.rounds(2)

    fail(1, 2)
    plant.reconciler = Reconciler(plant.host.home)
    fail(1, 2, 3)
    assert kinds() == ["failure"] * 3
    event = VersionEvent.objects.first()
    assert (event.text, event.rows, event.request_ids) == (
        "ValueError: bad row 3",
        3,
        ["r-1"],
    )
    fail(*range(4, 40))
    assert [event.rows for event in VersionEvent.objects.all()] == [*range(39, 19, -1)]


def test_a_load_that_fails_is_stored_once_for_each_reason(plant, route):
    (engine,) = plant.own(route.default_version).values()
    key = key_of(route.default_version)
    for error in ("ImportError: x\nat y", "ImportError: x\nat y", "Another"):
        engine.loaded[key] = msgspec.structs.replace(
            engine.loaded[key], state="failed", error=error
        )
        plant.rounds(2)

    events = VersionEvent.objects.filter(kind="load_failed").order_by("pk")
    assert [event.text for event in events] == ["ImportError: x", "Another"]
    assert events[0].detail == "ImportError: x\nat y"


def test_load_again_ends_the_wait(plant, route):
    (engine,) = plant.own(route.default_version).values()
    key = key_of(route.default_version)
    engine.loaded[key] = msgspec.structs.replace(
        engine.loaded[key], state="failed", error="no memory"
    )
    plant.rounds(3)
    assert engine.commands == []

    VersionCondition.objects.create(
        model=key.model, version=key.version, load_again_at=timezone.now()
    )
    publishing.mark_changed()
    plant.rounds(3)

    assert engine.commands == [("load", key)]
    assert engine.loaded[key].state == "ready"


def test_old_events_are_deleted(plant):
    now = timezone.now()
    for age in range(250):
        VersionEvent.objects.create(
            model="m", version=1, kind="death", at=now - timedelta(hours=age), text="x"
        )
    VersionEvent.objects.create(
        model="n", version=1, kind="death", at=now - timedelta(days=91), text="x"
    )

    incidents.prune(now=now)

    assert VersionEvent.objects.count() == 200
    assert VersionEvent.objects.last().at == now - timedelta(hours=199)


def test_samples_of_memory_are_thinned_over_a_day():
    samples = []
    for minute in range(2 * 24 * 60):
        samples = engine_records.thinned(samples, ((60.0 * minute, minute),))

    assert samples[-1] == [60.0 * 2879, 2879]
    assert samples[-1][0] - samples[0][0] <= 86_400
    assert 61 + 130 <= len(samples) <= 61 + 145
    assert engine_records.thinned(samples, ((60.0, 1),)) == samples
