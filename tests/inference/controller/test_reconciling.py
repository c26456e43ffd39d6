"""Engines and serving routes follow the database."""

import pytest
from django.utils import timezone

from inference.controller import publishing
from inference.controller.callable_versions import read_catalog
from inference.controller.reconciling import UNLOAD_GRACE_S, Reconciler
from inference.engine.wire.messages import Batching, VersionKey, VersionStatus
from inference.models import Engine, LoadedVersion, ServingRoute
from inference.placement.retries import FIRST_WAIT_S
from inference.snapshot import snapshot_file
from registry import sync
from registry.mlflow.types import ModelFile
from registry.models import ModelVersion, RegisteredModel, Route
from tests.factories_jobs import make_job
from tests.factories_registry import (
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)
from tests.fakes import FakeMlflow
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


def test_a_new_route_is_loaded_then_served(plant):
    route = RouteFactory(with_canary=True)

    plant.rounds(2)

    assert set(plant.engine.loaded) == {
        key_of(route.default_version),
        key_of(route.canary_version),
    }
    assert served().default_version == route.default_version.version
    assert served().canary_weight_percent == 10
    assert served().waiting_for == ""
    assert LoadedVersion.objects.filter(state="ready").count() == 2


def test_what_the_route_waits_for_is_stored(plant):
    route = RouteFactory()
    plant.engine.slow = True

    plant.rounds(2)

    assert served().default_version is None
    assert "loading on engine cpu" in served().waiting_for
    plant.engine.finish_loading()
    plant.rounds(1)
    assert served().default_version == route.default_version.version


def test_a_missing_artifact_is_the_reason_and_loads_once_it_is_there(plant):
    route = RouteFactory(default_version__artifact_state="remote")
    plant.rounds(2)
    assert "not in the local cache" in served().waiting_for
    assert plant.engine.commands == []

    ModelVersion.objects.update(artifact_state="ready")
    publishing.mark_changed()
    plant.rounds(2)

    assert served().default_version == route.default_version.version


def test_the_new_default_is_loaded_before_the_old_one_is_unloaded(plant):
    route = RouteFactory()
    plant.rounds(2)
    old, new = key_of(route.default_version), add_version(route)

    move_default(route, new)
    plant.rounds(3)
    kept = dict(plant.engine.loaded)
    let_former_cool()
    plant.clock.advance(UNLOAD_GRACE_S)
    plant.rounds(2)

    assert set(kept) == {old, key_of(new)}
    assert set(plant.engine.loaded) == {key_of(new)}
    assert plant.engine.commands == [
        ("load", old),
        ("load", key_of(new)),
        # It stays loaded, as long as nothing else needs the memory.
        ("load", old),
        ("unload", old),
    ]


def test_the_old_version_stays_while_no_new_snapshot_is_published(plant):
    route = RouteFactory()
    plant.rounds(2)

    move_default(route, add_version(route))
    for _ in range(10):
        plant.round(publish=False)
        plant.clock.advance(UNLOAD_GRACE_S)

    assert key_of(route.default_version) in plant.engine.loaded


def test_a_controller_that_just_started_gives_loaded_versions_their_grace(plant, home):
    route = RouteFactory()
    plant.rounds(2)
    extra = key_of(add_version(route))
    plant.engine.loaded[extra] = VersionStatus(key=extra, state="ready")
    plant.reconciler = Reconciler(home)

    plant.rounds(1)
    kept = extra in plant.engine.loaded
    plant.clock.advance(UNLOAD_GRACE_S)
    plant.rounds(1)

    assert kept
    assert extra not in plant.engine.loaded


def test_a_version_that_fails_keeps_the_last_good_one_serving(plant):
    route = RouteFactory()
    plant.rounds(2)
    broken = add_version(route)
    # A text from a model, with characters that PostgreSQL cannot store.
    plant.engine.broken[key_of(broken)] = "the example is not reproduced\0 \ud83d"

    move_default(route, broken)
    plant.rounds(3)

    assert served().default_version == route.default_version.version
    assert "the example is not reproduced" in served().waiting_for
    row = LoadedVersion.objects.get(version=broken.version)
    assert (row.state, row.error) == ("failed", "the example is not reproduced ?")


def test_a_failed_version_is_tried_again_in_time(plant):
    route = RouteFactory()
    plant.engine.broken[key_of(route.default_version)] = "out of memory"
    plant.rounds(5)
    assert len(plant.engine.commands) == 1
    plant.engine.broken.clear()

    plant.clock.advance(FIRST_WAIT_S)
    plant.rounds(2)

    assert served().default_version == route.default_version.version


def test_a_refused_version_is_tried_again_only_when_its_model_becomes_trusted(plant):
    route = RouteFactory()
    key = key_of(route.default_version)
    plant.engine.broken[key], plant.engine.refused = "not trusted", {key}
    plant.rounds(3)
    plant.clock.advance(10 * FIRST_WAIT_S)
    plant.rounds(3)
    assert len(plant.engine.commands) == 1
    plant.engine.broken.clear()

    RegisteredModel.objects.update(trusted=True)
    publishing.mark_changed()
    plant.rounds(2)

    assert served().default_version == route.default_version.version


def test_an_engine_that_restarted_empty_gets_its_versions_again(plant):
    RouteFactory()
    plant.rounds(2)
    before = set(plant.engine.loaded)

    plant.engine.restart_empty()
    plant.rounds(1)

    assert set(plant.engine.loaded) == before
    assert served().default_version is not None


def test_an_engine_that_does_not_answer_is_shown_and_its_route_stays(plant):
    RouteFactory()
    plant.rounds(2)

    plant.engine.reachable = False
    plant.rounds(2)

    engine = Engine.objects.get()
    assert engine.state == Engine.State.UNREACHABLE
    assert engine.error == "no such socket"
    assert served().default_version is not None


def test_a_moved_weight_is_in_the_next_snapshot(plant, home):

    route = RouteFactory(with_canary=True)
    plant.rounds(2)

    Route.objects.update(canary_weight_percent=50, default_weight_percent=50)
    publishing.mark_changed()
    plant.rounds(1)

    (model,) = snapshot_file.read(home.snapshot).models
    assert [variant.weight_percent for variant in model.variants] == [50, 50]
    assert model.name == route.registered_model.name


def test_each_move_of_weights_deals_sticky_callers_anew(plant, home):
    RouteFactory(with_canary=True, sticky="key")
    salts = []

    for weight in (10, 50, 50):
        Route.objects.update(
            canary_weight_percent=weight, default_weight_percent=100 - weight
        )
        publishing.mark_changed()
        plant.rounds(2)
        salts.append(snapshot_file.read(home.snapshot).models[0].salt)

    assert salts[0] != salts[1] == salts[2]
    assert len(salts[0]) == 32


def test_a_route_that_is_switched_off_is_removed_and_unloaded(plant):
    RouteFactory()
    plant.rounds(2)

    Route.objects.update(enabled=False)
    publishing.mark_changed()
    plant.rounds(2)
    plant.clock.advance(UNLOAD_GRACE_S)
    plant.rounds(1)

    assert not ServingRoute.objects.exists()
    assert plant.engine.loaded == {}


def test_a_version_that_an_unfinished_job_needs_stays_loaded(plant):
    route = RouteFactory()
    plant.rounds(2)
    needed = key_of(route.default_version)
    make_job(model=needed.model, version=needed.version)

    move_default(route, add_version(route))
    plant.rounds(3)
    plant.clock.advance(UNLOAD_GRACE_S)
    plant.rounds(2)

    assert needed in plant.engine.loaded


def test_jobs_keep_their_own_pairs_of_model_and_version_only(home):
    """Version 1 of one model and version 2 of another, not all four."""
    versions = [
        ModelVersionFactory(registered_model=model, version=number)
        for model in (RegisteredModelFactory(), RegisteredModelFactory())
        for number in (1, 2)
    ]
    for version in (versions[0], versions[3]):
        key = key_of(version)
        make_job(model=key.model, version=key.version)
    make_job(model=key.model, version=1, status="completed")

    catalog = read_catalog(with_jobs=True)

    needed = {(entry.name, number) for entry in catalog for number in entry.versions}
    assert needed == {
        (version.registered_model.name, version.version)
        for version in (versions[0], versions[3])
    }


def test_nothing_is_written_while_nothing_changes(plant, django_assert_num_queries):
    RouteFactory()
    plant.rounds(3)

    with django_assert_num_queries(1):
        plant.reconciler.reconcile(plant.links, now_s=plant.clock())


def test_a_changed_batching_reaches_the_engine_and_stops_nothing(plant):
    route = RouteFactory()
    plant.rounds(3)
    key = key_of(route.default_version)
    before = len(plant.engine.commands)

    Route.objects.update(batching={"max_batch_rows": 8})
    publishing.mark_changed()
    plant.round()

    assert plant.engine.loaded[key].batching == Batching(max_batch_rows=8)
    assert served().waiting_for == ""
    assert LoadedVersion.objects.get().state == "ready"
    plant.rounds(3)
    assert len(plant.engine.commands) == before + 1


def test_the_routes_batching_goes_over_the_versions_own(plant):
    own = {"batching": {"max_batch_rows": 4, "max_wait_ms": 3}}
    version = ModelVersionFactory(metadata=own)
    RouteFactory(
        registered_model=version.registered_model,
        default_version=version,
        batching={"max_batch_rows": 8},
    )

    plant.rounds(2)

    (loaded,) = plant.engine.loaded.values()
    assert loaded.batching == Batching(max_batch_rows=8, max_wait_ms=3)


def test_only_what_is_merely_published_may_leave_an_engine(plant):
    route = RouteFactory()
    published = ModelVersionFactory(
        registered_model=route.registered_model, published=True
    )
    publishing.mark_changed()
    plant.rounds(3)
    pinned = {key: one.pinned for key, one in plant.engine.loaded.items()}
    assert pinned == {key_of(route.default_version): True, key_of(published): False}

    move_default(route, published)
    plant.rounds(3)

    assert plant.engine.loaded[key_of(published)].pinned


def test_a_route_waits_for_a_version_that_had_left_its_engine(plant):
    route = RouteFactory()
    published = ModelVersionFactory(
        registered_model=route.registered_model, published=True
    )
    publishing.mark_changed()
    plant.rounds(3)
    key, old = key_of(published), served().default_version
    plant.engine.loaded[key] = VersionStatus(key=key, state="evicted", pinned=False)
    plant.round()
    assert LoadedVersion.objects.get(version=published.version).state == "evicted"

    plant.engine.slow = True
    move_default(route, published)
    plant.rounds(2)

    assert served().default_version == old
    assert "loading" in served().waiting_for
    plant.engine.finish_loading()
    plant.rounds(2)
    assert served().default_version == published.version


def test_a_fallback_is_loaded_and_kept_while_it_is_named(plant):
    route = RouteFactory()
    fallback = add_version(route)
    Route.objects.filter(pk=route.pk).update(fallback_version=fallback)
    publishing.mark_changed()

    plant.rounds(2)
    plant.clock.advance(UNLOAD_GRACE_S + 1)
    plant.rounds(2)

    assert key_of(fallback) in plant.engine.loaded
    assert plant.engine.loaded[key_of(fallback)].pinned

    Route.objects.filter(pk=route.pk).update(fallback_version=None)
    publishing.mark_changed()
    plant.rounds(2)
    plant.clock.advance(UNLOAD_GRACE_S + 1)
    plant.rounds(2)

    assert key_of(fallback) not in plant.engine.loaded


def test_a_model_registered_anew_is_loaded_anew_in_its_place(plant, home):
    mlflow = FakeMlflow()
    mlflow.add("iris", 1, aliases={"champion": 1})
    sync.synchronise(mlflow)
    plant.rounds(2)
    key = VersionKey("iris", 1)
    old = plant.engine.asked[key]
    plant.rounds(2)
    assert plant.engine.commands == [("load", key)]

    # Deleted and registered again in between: another v1, from the same place.
    mlflow.add("iris", 1, aliases={"champion": 1}, registered_at=timezone.now())
    mlflow.files["iris", 1] = ModelFile(
        flavors=("pytorch",), signature={"inputs": [{"type": "double", "name": "n"}]}
    )
    mlflow.artifacts["iris", 1] = {"MLmodel": b"another"}
    sync.synchronise(mlflow)
    plant.engine.slow = True
    plant.rounds(2)
    waiting = served().waiting_for
    plant.engine.finish_loading()
    plant.rounds(2)

    new = plant.engine.asked[key]
    assert plant.engine.commands == [("load", key)] * 2
    assert new.path != old.path
    assert new.signature["columns"][0]["name"] == "n"
    assert "loading on engine" in waiting
    assert served().waiting_for == ""


@pytest.mark.parametrize("change", ["trust", "rules"])
def test_trust_and_rules_that_changed_reach_engines(plant, change):
    route = RouteFactory()
    plant.rounds(2)

    if change == "trust":
        RegisteredModel.objects.update(trusted=True)
    else:
        version = route.default_version
        version.metadata |= {"rules": {"width": {"min": 3}}}
        version.save()
    publishing.mark_changed()
    plant.rounds(2)

    if change == "rules":
        load = ("load", key_of(route.default_version))
        assert plant.engine.commands == [load] * 2
    else:
        # It runs code now, so it has a process of its own.
        (engine,) = plant.own(route.default_version).values()
        assert engine.asked[key_of(route.default_version)].trusted


def test_an_engine_that_restores_an_old_form_is_told_the_new_one(plant):
    route = RouteFactory()
    plant.rounds(2)
    key = key_of(route.default_version)
    remembered = dict(plant.engine.loaded)
    ModelVersion.objects.update(artifact_digest="1" * 64)
    publishing.mark_changed()
    plant.rounds(2)

    plant.engine.loaded = remembered
    plant.rounds(2)

    assert plant.engine.commands == [("load", key)] * 3
    assert plant.engine.asked[key].path.endswith("1" * 64)


def problem_of(version):
    return ModelVersion.objects.get(pk=version.pk).serving_problem


def published_model():
    (model,) = publishing.assemble(sequence=1, now=timezone.now()).models
    return model


def test_a_version_that_fails_says_so_on_its_row_and_to_gateways(plant):
    route = RouteFactory()
    version = route.default_version
    plant.engine.broken[key_of(version)] = "it needs trust"

    plant.rounds(2)

    assert problem_of(version) == "It failed on engine cpu: it needs trust"
    assert published_model().broken == (str(version.version),)
    assert published_model().stuck
    count = publishing.models_change_count()
    plant.rounds(3)
    assert publishing.models_change_count() == count

    plant.engine.broken.clear()
    plant.clock.advance(FIRST_WAIT_S)
    plant.rounds(3)

    assert problem_of(version) == ""
    assert not published_model().broken
    assert not published_model().stuck


def test_a_version_that_cannot_be_read_is_broken_and_one_that_is_fetched_is_not(plant):
    route = RouteFactory(with_canary=True)
    default, canary = route.default_version, route.canary_version
    ModelVersion.objects.filter(pk=default.pk).update(signature={"inputs": []})
    ModelVersion.objects.filter(pk=canary.pk).update(artifact_state="remote")

    plant.rounds(2)

    assert "It cannot be loaded" in problem_of(default)
    assert "input signature" in problem_of(default)
    assert problem_of(canary) == ""
    assert published_model().stuck


def test_a_failure_stands_while_no_engine_runs_and_for_another_controller(plant, home):
    route = RouteFactory()
    plant.engine.broken[key_of(route.default_version)] = "it is broken"
    plant.rounds(2)

    plant.engine.reachable = False
    plant.reconciler = Reconciler(home)
    plant.rounds(2)

    assert "it is broken" in problem_of(route.default_version)
