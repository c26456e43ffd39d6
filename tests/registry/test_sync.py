from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from registry import sync, sync_run
from registry.mlflow.types import ModelFile, RegistryUnreachable
from registry.models import Alias, ModelVersion, RegisteredModel, RegistrySync, Route
from registry.signals import registry_changed, version_replaced
from tests.factories_registry import (
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)
from tests.fakes import FakeMlflow

pytestmark = pytest.mark.django_db


@pytest.fixture
def mlflow():
    return FakeMlflow()


@pytest.fixture
def changes():
    """Count the announcements to other apps."""
    received = []

    def receive(**kwargs):
        received.append(kwargs["sender"])

    registry_changed.connect(receive)
    yield received
    registry_changed.disconnect(receive)


def version_of(name: str, number: int) -> ModelVersion:
    return ModelVersion.objects.get(registered_model__name=name, version=number)


def test_models_versions_aliases_tags_and_metrics_arrive(mlflow, changes):
    mlflow.add(
        "iris",
        1,
        2,
        aliases={"champion": 2, "best": 1},
        description="Flowers",
        tags={"team": "botany"},
    )
    mlflow.metrics_of["iris", 2] = {"accuracy": 0.9, "loss": None}
    mlflow.params_of["iris", 2] = {"depth": "3"}
    mlflow.user = "ada"

    outcome = sync.synchronise(mlflow)

    model = RegisteredModel.objects.get(name="iris")
    version = version_of("iris", 2)
    assert outcome.changed == ("iris",)
    assert (model.description, model.tags) == ("Flowers", {"team": "botany"})
    assert version.metrics == {"accuracy": 0.9, "loss": None}
    assert version.params == {"depth": "3"}
    assert version.trained_by == "ada"
    assert version.signature == {"inputs": [{"type": "double", "name": "width"}]}
    assert version.metadata == {"task": "regression"}
    assert version.flavors == ["pytorch"]
    aliases = model.aliases.values_list("name", "version__version")
    assert dict(aliases) == {"champion": 2, "best": 1}
    assert changes


def test_an_unchanged_registry_writes_nothing_but_the_state_of_the_sync(
    mlflow, changes
):
    mlflow.add("iris", 1, 2, aliases={"champion": 2})
    mlflow.metrics_of["iris", 1] = {"accuracy": 0.9}
    sync.synchronise(mlflow)
    changes.clear()

    with CaptureQueriesContext(
        connection,
    ) as queries:
        outcome = sync.synchronise(mlflow)

    written = [
        query["sql"]
        for query in queries.captured_queries
        if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))
        and "registry_registrysync" not in query["sql"]
    ]
    assert written == []
    assert outcome.changed == ()
    assert changes == []


def test_a_moved_alias_moves(mlflow, changes):
    mlflow.add("iris", 1, 2, aliases={"champion": 1, "old": 1})
    sync.synchronise(mlflow)
    changes.clear()

    mlflow.add("iris", 1, 2, aliases={"champion": 2})
    sync.synchronise(mlflow)

    aliases = Alias.objects.values_list("name", "version__version")
    assert dict(aliases) == {"champion": 2}
    assert changes


def test_the_champion_becomes_the_default_of_a_model_without_a_route(mlflow):
    mlflow.add("iris", 1, 2, aliases={"champion": 1, "challenger": 2})

    sync.synchronise(mlflow)

    route = Route.objects.get()
    assert route.default_version == version_of("iris", 1)
    assert route.canary_version is None
    assert version_of("iris", 1).artifact_state == "ready"
    assert "champion" in route.history.get().history_change_reason


def test_a_model_without_a_champion_gets_no_route(mlflow):
    mlflow.add("iris", 1, aliases={"challenger": 1})

    sync.synchronise(mlflow)

    assert not Route.objects.exists()
    assert mlflow.downloads == []


def test_a_moved_champion_does_not_move_an_existing_route(mlflow):
    mlflow.add("iris", 1, 2, aliases={"champion": 1})
    sync.synchronise(mlflow)

    mlflow.add("iris", 1, 2, aliases={"champion": 2})
    sync.synchronise(mlflow)

    assert Route.objects.get().default_version.version == 1


def test_what_disappears_is_marked_and_kept_for_its_route(mlflow):
    mlflow.add("iris", 1, 2, aliases={"champion": 1})
    sync.synchronise(mlflow)

    mlflow.add("iris", 2)
    sync.synchronise(mlflow)

    assert version_of("iris", 1).missing_since is not None
    assert version_of("iris", 2).missing_since is None
    assert Route.objects.get().default_version.version == 1


def test_a_model_that_disappears_takes_its_versions_along_and_both_return(
    mlflow, changes
):
    mlflow.add("iris", 1)
    sync.synchronise(mlflow)
    kept = mlflow.remote.pop("iris")
    changes.clear()

    sync.synchronise(mlflow)
    model = RegisteredModel.objects.get()
    assert model.missing_since == version_of("iris", 1).missing_since is not None
    assert changes
    changes.clear()
    sync.synchronise(mlflow)
    assert changes == []

    mlflow.remote["iris"] = kept
    sync.synchronise(mlflow)
    assert RegisteredModel.objects.get().missing_since is None
    assert version_of("iris", 1).missing_since is None


def test_a_version_registered_anew_under_its_number_is_read_and_fetched_again(mlflow):
    mlflow.add("iris", 1, aliases={"champion": 1})
    sync.synchronise(mlflow)
    replaced = []

    def hear(model, version, **_):
        replaced.append((model, version))

    version_replaced.connect(hear)
    digest = version_of("iris", 1).artifact_digest

    mlflow.add("iris", 1, aliases={"champion": 1})
    model = mlflow.remote["iris"]
    other = model.versions[0]
    mlflow.remote["iris"] = type(model)(
        name="iris",
        aliases=model.aliases,
        versions=(
            type(other)(
                version=1,
                source="models:/m-another",
                run_id="",
                status="READY",
                registered_at=other.registered_at,
            ),
        ),
    )
    mlflow.files["iris", 1] = ModelFile(
        flavors=("sklearn",), signature={"inputs": [{"type": "long", "name": "n"}]}
    )
    mlflow.artifacts["iris", 1] = {"MLmodel": b"another"}
    sync.synchronise(mlflow)

    version = version_of("iris", 1)
    assert version.flavors == ["sklearn"]
    assert version.artifact_digest not in ("", digest)
    assert replaced == [("iris", 1)]


def test_an_unreachable_mlflow_leaves_the_last_good_state_and_is_told(mlflow, changes):
    mlflow.add("iris", 1, aliases={"champion": 1})
    sync.synchronise(mlflow)
    succeeded_at = RegistrySync.objects.get().succeeded_at
    changes.clear()
    mlflow.unreachable = "MLflow is away."

    outcome = sync.synchronise(mlflow)

    state = RegistrySync.objects.get()
    assert outcome.error == state.error == "MLflow is away."
    assert state.succeeded_at == succeeded_at
    assert state.attempted_at > succeeded_at
    assert RegisteredModel.objects.get().missing_since is None
    assert changes == []

    mlflow.unreachable = ""
    sync.synchronise(mlflow)
    assert RegistrySync.objects.get().error == ""


def test_invalid_metadata_is_kept_apart_and_harms_no_other_model(mlflow):
    mlflow.add("bad", 1)
    mlflow.files["bad", 1] = ModelFile(
        flavors=("pytorch",), metadata={"task": "guessing"}, problems=("No inputs.",)
    )
    mlflow.add("iris", 1)

    sync.synchronise(mlflow)

    errors = version_of("bad", 1).metadata_errors
    assert errors[0] == "No inputs."
    assert "guessing" in errors[1]
    assert version_of("iris", 1).metadata_errors == []


def test_an_unreadable_artifact_is_told_at_its_version_and_read_again_later(mlflow):
    mlflow.add("iris", 1)
    mlflow.unreadable["iris", 1] = "The artifact holds a link: x."
    sync.synchronise(mlflow)
    assert version_of("iris", 1).metadata_errors == ["The artifact holds a link: x."]

    mlflow.unreadable.clear()
    sync.synchronise(mlflow)

    assert version_of("iris", 1).metadata_errors == []
    assert version_of("iris", 1).flavors == ["pytorch"]


def test_only_one_sync_runs_at_a_time(mlflow):
    mlflow.add("iris", 1)
    RegistrySync.objects.create(pk=1, running_since=timezone.now())

    outcome = sync.synchronise(mlflow)

    assert not outcome.ran
    assert "running" in outcome.error
    assert not RegisteredModel.objects.exists()


def test_only_one_sync_runs_at_a_time_in_one_installation(mlflow):
    mlflow.add("iris", 1)
    others = []
    registry = mlflow.models
    mlflow.models = lambda: others.append(sync.synchronise(mlflow)) or registry()

    assert sync.synchronise(mlflow).ran
    assert [other.ran for other in others] == [False]


def test_a_sync_that_was_killed_here_blocks_nobody(mlflow):
    mlflow.add("iris", 1)
    RegistrySync.objects.create(
        pk=1, running_since=timezone.now(), running_on=sync_run.here()
    )

    assert sync.synchronise(mlflow).ran
    assert RegistrySync.objects.get().running_since is None


def test_a_sync_that_was_killed_elsewhere_blocks_only_for_a_while(mlflow):
    mlflow.add("iris", 1)
    killed = timezone.now() - sync_run.LOCK_EXPIRES_AFTER - timedelta(seconds=1)
    RegistrySync.objects.create(pk=1, running_since=killed)

    assert sync.synchronise(mlflow).ran
    assert RegistrySync.objects.get().running_since is None


def test_an_unexpected_failure_is_told_and_frees_the_lock(mlflow):
    mlflow.add("iris", 1)
    del mlflow.files["iris", 1]

    outcome = sync.synchronise(mlflow)

    state = RegistrySync.objects.get()
    assert "KeyError" in outcome.error
    assert state.error == outcome.error
    assert state.running_since is None


def test_what_is_wanted_and_not_cached_is_fetched_even_if_nothing_changed(mlflow):
    mlflow.add("iris", 1)
    sync.synchronise(mlflow)
    model = RegisteredModel.objects.get()
    RouteFactory(registered_model=model, default_version=version_of("iris", 1))

    sync.synchronise(mlflow)

    assert version_of("iris", 1).artifact_state == "ready"


def test_a_run_that_mlflow_does_not_show_keeps_no_version_from_being_registered(mlflow):
    mlflow.add("iris", 1, 2)
    mlflow.metrics_of = {("iris", number): {"loss": 0.5} for number in (1, 2)}
    answer = mlflow.training

    def forbid_the_first(name, version):
        if version.version == 1:
            raise RegistryUnreachable("MLflow did not show it (PERMISSION_DENIED).")
        return answer(name, version)

    mlflow.training = forbid_the_first
    outcome = sync.synchronise(mlflow)

    assert outcome.error == ""
    assert version_of("iris", 1).flavors == ["pytorch"]
    assert version_of("iris", 1).metrics == {}
    assert version_of("iris", 2).metrics == {"loss": 0.5}
    mlflow.training = answer
    sync.synchronise(mlflow)
    assert version_of("iris", 1).metrics == {"loss": 0.5}


@pytest.mark.parametrize("asks", ["training", "model_file"])
def test_quick_refusals_keep_no_other_version_from_its_answer(mlflow, asks):
    mlflow.add("iris", *range(1, 29))
    mlflow.metrics_of["iris", 28] = {"loss": 0.5}
    answer = getattr(mlflow, asks)

    def refuse(name, version):
        if getattr(version, "version", version) < 28:
            raise RegistryUnreachable("MLflow did not show it (PERMISSION_DENIED).")
        return answer(name, version)

    setattr(mlflow, asks, refuse)
    sync.synchronise(mlflow)

    assert ModelVersion.objects.count() == 28
    assert version_of("iris", 28).metrics == {"loss": 0.5}
    assert version_of("iris", 28).flavors == ["pytorch"]


def test_a_change_of_trust_made_here_survives(mlflow):
    model = RegisteredModelFactory(name="iris", trusted=True, public=True)
    ModelVersionFactory(registered_model=model, version=1, published=True)
    mlflow.add("iris", 1)

    sync.synchronise(mlflow)

    model.refresh_from_db()
    assert model.trusted
    assert model.public
    assert version_of("iris", 1).published


def metrics_asked(mlflow):
    """Collect the versions whose metrics are asked from now on."""
    asked = []
    answer = mlflow.training

    def note(name, version):
        asked.append((name, version.version))
        return answer(name, version)

    mlflow.training = note
    return asked


def test_an_unchanged_registry_costs_the_same_however_large_it_is(
    mlflow, django_assert_max_num_queries, monkeypatch
):
    monkeypatch.setattr(sync, "AGAIN", 10)
    for number in range(40):
        mlflow.add(f"model-{number}", 1, 2, aliases={"champion": 2})
    sync.synchronise(mlflow)
    asked = metrics_asked(mlflow)

    with django_assert_max_num_queries(16):
        outcome = sync.synchronise(mlflow)

    assert (outcome.models, outcome.changed) == (40, ())
    assert len(asked) == 20
    # As many versions in use as other versions.
    assert sorted(number for _, number in asked) == [1] * 10 + [2] * 10


def test_all_metrics_are_asked_for_again_in_time(mlflow, monkeypatch):
    monkeypatch.setattr(sync, "AGAIN", 3)
    mlflow.add("iris", *range(1, 11))
    sync.synchronise(mlflow)
    mlflow.metrics_of = {("iris", number): {"late": 1.0} for number in range(1, 11)}

    for _ in range(200):
        sync.synchronise(mlflow)
        if not ModelVersion.objects.exclude(metrics={"late": 1.0}).exists():
            break

    assert not ModelVersion.objects.exclude(metrics={"late": 1.0}).exists()


def test_new_versions_are_all_read_at_once(mlflow, monkeypatch):
    monkeypatch.setattr(sync, "AGAIN", 1)
    mlflow.add("iris", 1)
    sync.synchronise(mlflow)
    asked = metrics_asked(mlflow)

    mlflow.add("iris", *range(1, 9))
    sync.synchronise(mlflow)

    assert set(asked) == {("iris", number) for number in range(1, 9)}
    assert version_of("iris", 8).flavors == ["pytorch"]


def files_asked(mlflow) -> list[tuple[str, int]]:
    asked = []
    answer = mlflow.model_file
    mlflow.model_file = lambda *version: asked.append(version) or answer(*version)
    return asked


def test_requirements_and_python_arrive(mlflow):
    mlflow.add("iris", 1)
    mlflow.files["iris", 1] = ModelFile(
        flavors=("sklearn",), requirements=("scikit-learn==1.5.2",), python="3.11.7"
    )

    sync.synchronise(mlflow)

    version = version_of("iris", 1)
    assert version.requirements == ["scikit-learn==1.5.2"]
    assert version.python_version == "3.11.7"


def test_versions_without_requirements_are_read_once_more_those_in_use_first(
    mlflow, monkeypatch
):
    monkeypatch.setattr(sync, "AGAIN", 10)
    mlflow.add("iris", *range(1, 29))
    sync.synchronise(mlflow)
    ModelVersion.objects.update(python_version="")
    ModelVersion.objects.filter(version__gte=27).update(published=True)
    asked = files_asked(mlflow)

    for _ in range(5):
        sync.synchronise(mlflow)

    numbers = [number for _, number in asked]
    assert sorted(numbers) == list(range(1, 29))
    assert set(numbers[:2]) == {27, 28}
    assert not ModelVersion.objects.exclude(python_version="unknown").exists()


def test_a_known_version_that_cannot_be_read_again_stays_as_it_is(mlflow):
    mlflow.add("iris", 1)
    sync.synchronise(mlflow)
    ModelVersion.objects.update(python_version="")
    mlflow.unreadable["iris", 1] = "The artifact holds a link: x."

    sync.synchronise(mlflow)

    assert version_of("iris", 1).metadata_errors == []


@pytest.mark.parametrize("asks", ["training", "model_file"])
def test_a_store_that_is_down_holds_up_no_sync(mlflow, monkeypatch, asks):
    mlflow.add("iris", *range(1, 29))
    monkeypatch.setattr(sync, "PATIENCE_S", 0.0)
    asked = []

    def fail(*version):
        asked.append(version)
        raise RegistryUnreachable("The store does not answer.")

    setattr(mlflow, asks, fail)

    assert sync.synchronise(mlflow).ran
    assert len(asked) == 1
    assert ModelVersion.objects.count() == 28


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite stores anything")
def test_a_model_that_cannot_be_stored_keeps_no_other_from_it(mlflow):
    mlflow.add("a" * 300, 1)
    mlflow.add("iris", 1)

    outcome = sync.synchronise(mlflow)

    assert outcome.changed == ("iris",)
    assert "a" * 300 in outcome.error
    assert RegistrySync.objects.get().error == outcome.error


def test_the_artifact_of_a_fallback_is_fetched_again(mlflow):
    mlflow.add("iris", 1, 2)
    sync.synchronise(mlflow)
    RouteFactory(
        registered_model=RegisteredModel.objects.get(),
        default_version=version_of("iris", 1),
        fallback_version=version_of("iris", 2),
    )

    sync.synchronise(mlflow)

    assert version_of("iris", 2).artifact_state == "ready"
