import fcntl
from datetime import timedelta

import pytest
from django.utils import timezone

from inference.controller import publishing
from inference.environments import building, folders, needs, pythons, settling, turn
from inference.environments.building import BuildFailed, BuildStopped
from inference.environments.comparing import Installed
from inference.environments.folders import Built
from inference.models import ModelEnvironment, SnapshotState
from tests.factories_registry import ModelVersionFactory, RegisteredModelFactory

pytestmark = pytest.mark.django_db
REQUIREMENTS = ["lightgbm==4.6"]
DIGEST = needs.digest(REQUIREMENTS, python=pythons.OWN)


@pytest.fixture(autouse=True)
def builds(settings, monkeypatch):
    settings.MODELYARD_ENVIRONMENTS = "build"
    monkeypatch.setattr(folders, "base", lambda: Installed(pythons.OWN, {}))


@pytest.fixture
def version():
    """A published version that needs what is not installed."""
    version = ModelVersionFactory(
        registered_model=RegisteredModelFactory(trusted=True),
        flavors=["python_function"],
        requirements=REQUIREMENTS,
        published=True,
    )
    settling.settle()
    version.refresh_from_db()
    return version


@pytest.fixture
def built(monkeypatch):
    """Stand for pip: `outcomes` are raised in turn, then builds succeed."""
    outcomes, begun = [], []

    def run(build):
        begun.append(build)
        build.log = b"Collecting lightgbm\n"
        build.watch(build)
        build.folder.mkdir(exist_ok=True)
        if outcomes:
            raise outcomes.pop(0)
        made = Built(pythons.OWN, {"lightgbm": "4.6"}, 1000)
        folders.mark_ready(build.folder, made)
        return made

    monkeypatch.setattr(building.Build, "run", run)
    run.outcomes, run.begun = outcomes, begun
    return run


def row() -> ModelEnvironment:
    return ModelEnvironment.objects.get(pk=DIGEST)


def test_a_needed_environment_is_built_and_its_versions_are_told(version, built):
    publishing.mark_changed()
    changed = SnapshotState.objects.get(pk=1).changed

    assert turn.take_turn() == 1

    assert (row().state, row().size_bytes) == ("ready", 1000)
    assert row().log == "Collecting lightgbm\n"
    assert built.begun[0].lines == sorted(needs.to_install(REQUIREMENTS))
    assert turn.environment_folders() == {DIGEST: str(built.begun[0].folder)}
    version.refresh_from_db()
    assert version.environment_fit["verdict"] == "fits"
    assert SnapshotState.objects.get(pk=1).changed > changed
    assert turn.take_turn() == 0


@pytest.mark.parametrize(
    "field", [{"published": False}, {"artifact_state": "remote"}], ids=str
)
def test_nothing_is_built_for_versions_that_nobody_can_call(version, built, field):
    for name, value in field.items():
        setattr(version, name, value)
    version.save()

    assert turn.take_turn() == 0
    assert not ModelEnvironment.objects.exists()


def test_nothing_is_built_unless_the_operator_allows_it(version, built, settings):
    settings.MODELYARD_ENVIRONMENTS = "base"

    assert turn.take_turn() == 0
    version.refresh_from_db()
    assert version.environment == "base"


def test_versions_with_the_same_requirements_share_an_environment(version, built):
    ModelVersionFactory(
        registered_model=version.registered_model,
        flavors=["python_function"],
        requirements=REQUIREMENTS,
        published=True,
    )
    settling.settle()

    assert turn.take_turn() == 1
    assert turn.users_of(DIGEST).count() == 2


def test_one_worker_builds_at_a_time(version, built, settings):
    with (settings.HOME.environments / "builder.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert turn.take_turn() == 0
        assert row().state == "waiting"

    assert turn.take_turn() == 1


def test_a_failure_is_tried_again_after_growing_pauses(version, built):
    built.outcomes += [BuildFailed("No such package.") for _ in range(3)]
    turn.take_turn()
    assert (row().state, row().error) == ("failed", "No such package.")
    assert row().log == "Collecting lightgbm\n"
    assert not built.begun[0].folder.exists()
    assert turn.take_turn() == 0

    for since_first, since_last, due in [
        (timedelta(0), timedelta(minutes=9), False),
        (timedelta(0), timedelta(minutes=11), True),
        (timedelta(hours=2), timedelta(minutes=110), False),
        (timedelta(hours=2), timedelta(minutes=121), True),
    ]:
        last = timezone.now() - since_last
        ModelEnvironment.objects.update(
            created_at=last - since_first, started_at=last, state="failed"
        )
        assert turn.take_turn() == due, (since_first, since_last)


def test_a_person_can_have_it_built_again_at_once(version, built):
    built.outcomes.append(BuildFailed("The index does not answer."))
    turn.take_turn()

    turn.build_again(row())

    assert row().state == "waiting"
    assert turn.take_turn() == 1
    assert row().state == "ready"


def test_a_worker_that_stops_leaves_the_build_to_the_next(version, built):
    built.outcomes.append(BuildStopped())
    stops = iter([False, True])

    turn.take_turn(stopped=lambda: next(stops))

    assert row().state == "waiting"
    assert turn.take_turn() == 1


@pytest.mark.parametrize("complete", [True, False])
def test_what_a_killed_worker_left_is_put_right(version, built, settings, complete):
    turn.take_turn()
    ModelEnvironment.objects.update(state="building")
    folder = settings.HOME.environments / DIGEST
    if not complete:
        folders.unmark(folder)
        (folder / "half").touch()
        built.outcomes.append(BuildFailed("It begins anew."))
        folder.rename(folder.with_name("other"))

    turn.take_turn()

    assert row().state == ("ready" if complete else "failed")
    assert len(built.begun) == (1 if complete else 2)
    # Nobody knows it.
    assert not folder.with_name("other").exists()


def test_an_environment_whose_folder_is_gone_is_built_anew(version, built, settings):
    turn.take_turn()
    building.remove(settings.HOME.environments / DIGEST)
    assert turn.environment_folders() == {}

    assert turn.take_turn() == 1
    assert row().state == "ready"


def test_an_unused_environment_is_removed_after_some_days(version, built, settings):
    turn.take_turn()
    week = timezone.now() - timedelta(days=8)
    ModelEnvironment.objects.update(used_at=week, created_at=week)
    turn.take_turn()
    # A version needs it.
    assert row().used_at > week

    version.published = False
    version.save()
    turn.take_turn()
    assert row().state == "ready"
    ModelEnvironment.objects.update(used_at=week)
    turn.take_turn()

    assert not ModelEnvironment.objects.exists()
    assert not (settings.HOME.environments / DIGEST).exists()


def test_a_python_that_went_away_is_said(version, built):
    turn.take_turn()
    ModelEnvironment.objects.update(state="waiting", python="3.99")

    turn.take_turn()

    assert row().error == "python3.99 is not installed on this machine."
