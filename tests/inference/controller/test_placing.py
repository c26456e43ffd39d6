"""Versions that run code have processes of their own, which follow what people want."""

import msgspec
import pytest
from django.utils import timezone

from inference.controller import publishing
from inference.controller.reconciling import Reconciler
from inference.models import Engine, LoadedVersion, VersionCondition, VersionEvent
from inference.placement import plan_file
from inference.placement.processes import group_name
from registry.models import RegisteredModel, Route
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.inference.controller.plant import (
    Plant,
    add_version,
    key_of,
    let_former_cool,
    move_default,
    served,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def plant(home):
    return Plant(home)


@pytest.fixture
def route(plant):
    """Return a route to a version that runs code, which serves."""
    return new_route(plant)


def new_route(plant, **fields):
    route = RouteFactory(default_version__registered_model__trusted=True, **fields)
    publishing.mark_changed()
    plant.rounds(3)
    return route


def process_rules(**rules):
    RegisteredModel.objects.update(process=rules)
    publishing.mark_changed()


def status(plant, version, name=None, **fields):
    """Let the process of a version report other facts about it."""
    engine = plant.host.engines[name or min(plant.own(version))]
    key = key_of(version)
    engine.loaded[key] = msgspec.structs.replace(engine.loaded[key], **fields)


def ready_on(version):
    rows = LoadedVersion.objects.filter(version=version.version, state="ready")
    return set(rows.values_list("engine__name", flat=True))


def test_code_that_is_trusted_has_a_process_of_its_own_and_serves(plant, route):
    (name,) = plant.own(route.default_version)

    assert served().default_version == route.default_version.version
    assert plant.engine.loaded == {}
    assert ready_on(route.default_version) == {name}
    engine = Engine.objects.get(name=name)
    assert (engine.kind, engine.host, engine.environment) == ("own", "here", "base")
    # It loaded its version by itself.
    assert plant.host.engines[name].commands == []


def test_a_plan_is_written_only_when_something_changed(plant, route, home):
    before = home.host_plan.stat().st_mtime_ns

    plant.rounds(5)

    assert home.host_plan.stat().st_mtime_ns == before


def test_the_old_process_ends_only_after_the_new_version_serves(plant, route):
    old = route.default_version
    plant.host.slow = True
    new = add_version(route)
    move_default(route, new)
    plant.settle()
    assert served().default_version == old.version

    (name,) = plant.own(new)
    plant.host.engines[name].finish_loading()
    plant.rounds(3)
    assert served().default_version == new.version
    assert served().former_version == old.version
    plant.settle()
    assert plant.own(old), "the former default stays warm"

    let_former_cool()
    plant.settle()
    assert not plant.own(old)
    assert set(Engine.objects.values_list("name", flat=True)) == {"cpu", name}


def test_going_back_to_the_former_default_is_instant(plant, route):
    old = route.default_version
    move_default(route, add_version(route))
    plant.settle()

    move_default(route, old)
    plant.round()

    assert served().default_version == old.version


def test_other_batching_is_told_to_the_process_that_runs(plant, route):
    (name,) = plant.own(route.default_version)
    engine = plant.host.engines[name]

    Route.objects.update(batching={"max_batch_rows": 8})
    publishing.mark_changed()
    plant.rounds(2)

    assert plant.host.engines[name] is engine
    assert engine.commands == [("load", key_of(route.default_version))]
    (version,) = plant.processes()[name].versions
    assert version.batching.max_batch_rows == 8


def test_replicas_come_and_go_and_the_route_serves_all_the_time(plant, route):
    process_rules(replicas=3)
    plant.rounds(3)
    assert len(ready_on(route.default_version)) == 3

    process_rules(replicas=1)
    plant.rounds(2)
    assert len(ready_on(route.default_version)) == 1
    assert len(plant.own(route.default_version)) == 3, "calls may be under way"
    plant.settle()
    assert len(plant.own(route.default_version)) == 1


def test_a_group_shares_a_process_that_is_told_what_to_load(plant, route):
    process_rules(isolation="group fast")
    plant.settle()
    other = ModelVersionFactory(registered_model=route.registered_model, published=True)
    publishing.mark_changed()
    plant.rounds(3)

    engine = plant.host.engines[group_name("fast")]
    assert set(engine.loaded) == {key_of(route.default_version), key_of(other)}
    assert engine.commands == [("load", key_of(other))]
    assert not plant.own(route.default_version)


def test_trust_that_is_withdrawn_ends_the_process_at_once(plant, route):
    RegisteredModel.objects.update(trusted=False)
    publishing.mark_changed()
    plant.round()

    assert not plant.own(route.default_version)


def test_what_does_not_fit_is_said_on_the_route(plant):
    plant.host.memory_bytes = 100 << 20
    first = new_route(plant)
    published = ModelVersionFactory(
        registered_model=first.registered_model, published=True
    )
    publishing.mark_changed()
    plant.rounds(2)

    (lacking,) = plant.reconciler.placer.placement.lacking
    assert lacking.key == key_of(published)
    assert "20 MB are free" in lacking.sentence


def test_a_limit_follows_from_the_memory_at_load_unless_somebody_says_one(plant, route):
    (name,) = plant.own(route.default_version)
    assert plant.processes()[name].memory_limit_bytes == 0
    form = plant.host.engines[name].loaded[key_of(route.default_version)].form

    status(plant, route.default_version, memory_bytes=100 << 20, form=form)
    plant.rounds(2)
    assert plant.processes()[name].memory_limit_bytes == (200 + 256) << 20

    process_rules(memory_mb=90)
    plant.rounds(2)
    assert plant.processes()[name].memory_limit_bytes == 90 << 20


def test_a_controller_that_starts_moves_nothing(plant, route, home):
    before = plan_file.read(home.host_plan)

    plant.reconciler = Reconciler(home)
    plant.settle()

    assert plan_file.read(home.host_plan) == before
    assert plant.host.engines[min(plant.own(route.default_version))].commands == []


def test_a_host_that_does_not_report_yet_loses_nothing(plant, route, home):
    before = plan_file.read(home.host_plan)
    home.host_report.unlink()
    plant.host.report = lambda: None

    plant.reconciler = Reconciler(home)
    plant.settle()

    assert plan_file.read(home.host_plan) == before


def test_a_slow_version_of_a_group_moves_to_a_process_of_its_own(plant, route):
    process_rules(isolation="group fast")
    plant.settle()
    version, group = route.default_version, group_name("fast")

    status(plant, version, group, single_row_s=0.3)
    plant.rounds(3)
    assert plant.own(version)
    assert group in plant.processes()
    plant.settle()

    assert group not in plant.processes()
    event = VersionEvent.objects.get(kind="moved")
    assert "300 ms" in event.text
    assert VersionCondition.objects.get().slow_since is not None
    # Another artifact may be fast.
    type(version).objects.filter(pk=version.pk).update(artifact_digest="1" * 64)
    publishing.mark_changed()
    plant.settle()
    assert not plant.own(version)
    assert VersionCondition.objects.get().slow_since is None


@pytest.mark.parametrize("why", ["calls", "memory"])
def test_a_worn_process_is_replaced_by_a_fresh_one_that_is_ready(plant, route, why):
    process_rules(recycle_after_calls=1000, recycle_after_mb=50)
    plant.rounds(2)
    (old,) = plant.own(route.default_version)
    if why == "calls":
        status(plant, route.default_version, calls=1000)
    else:
        samples = ((1.0, 10 << 20), (2.0, 60 << 20))
        plant.host.reported[old] = {"memory_samples": samples}

    plant.rounds(3)
    assert len(plant.own(route.default_version)) == 2
    plant.settle()

    (new,) = plant.own(route.default_version)
    assert new != old
    assert VersionEvent.objects.get(kind="recycled").engine == old


def test_a_leak_is_said_once(plant, route):
    (name,) = plant.own(route.default_version)
    now = timezone.now().timestamp()
    samples = tuple((now + 60.0 * m, m << 21) for m in range(60))
    plant.host.reported[name] = {"memory_samples": samples, "started_at": now}

    plant.rounds(3)
    plant.reconciler = Reconciler(plant.host.home)
    plant.rounds(3)

    assert "120 MB per hour" in VersionEvent.objects.get(kind="leak").text
    assert "leaks" in LoadedVersion.objects.get().notes
    assert len(Engine.objects.get(name=name).memory_samples) == 60
