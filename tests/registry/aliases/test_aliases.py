"""A route's alias follows its default, leads it, or both, but never in a circle."""

from dataclasses import replace
from datetime import timedelta

import pytest
from celery import current_app
from django.db import transaction
from django.utils import timezone

from accounts.usage import reading
from inference.controller.rollouts import conduct
from inference.models import Rollout
from registry import routes, sync
from registry.aliases import moving
from registry.mlflow.types import RegistryUnreachable
from registry.models import AliasState, ModelVersion, RegistrySync, Route
from tests.factories import UserFactory
from tests.fakes import FakeMlflow

pytestmark = pytest.mark.django_db(transaction=True)

PROMOTION, ALIAS, BOTH = "promotion", "alias", "both"
DOWN = "MLflow at http://mlflow did not list its models."


@pytest.fixture(autouse=True)
def queued(monkeypatch):
    """Collect what would go to workers."""
    asked = []

    def ask(name, args=(), **_):
        asked.append((name, *args))

    monkeypatch.setattr(current_app, "send_task", ask)
    return asked


@pytest.fixture
def mlflow(home):
    """Three versions of `churn`; version 1 has the alias and is the default."""
    fake = FakeMlflow()
    fake.add("churn", 1, 2, 3, aliases={"champion": 1})
    assert not sync.synchronise(fake).error
    return fake


@pytest.fixture
def person():
    return UserFactory.create(username="grace")


def follow(direction, **fields):
    route = Route.objects.get()
    route.alias, route.alias_follows = "champion", direction
    for name, value in fields.items():
        setattr(route, name, value)
    routes.save(route, by=None, reason="told to")
    return route


def promote(number, by):
    return routes.make_default(ModelVersion.objects.get(version=number), by=by)


def default():
    return Route.objects.get().default_version.version


def champion(mlflow):
    return mlflow.remote["churn"].aliases.get("champion")


def problem():
    return AliasState.objects.get().problem


@pytest.mark.parametrize("direction", [PROMOTION, BOTH])
def test_promoting_moves_the_alias(mlflow, person, queued, direction):
    route = follow(direction)
    promote(2, person)

    assert ("registry.tasks.move_alias", route.pk) in queued
    assert moving.move(mlflow, route.pk)

    assert champion(mlflow) == 2
    assert AliasState.objects.get().wanted_version is None


@pytest.mark.parametrize("direction", ["off", ALIAS])
def test_promoting_moves_no_alias_that_does_not_follow(
    mlflow, person, queued, direction
):
    follow(direction)
    promote(2, person)
    sync.synchronise(mlflow)

    assert champion(mlflow) == 1
    assert default() == 2
    assert "registry.tasks.move_alias" not in [name for name, *_ in queued]


def test_what_is_rolled_back_moves_no_alias(mlflow, person, queued):
    follow(PROMOTION)
    with transaction.atomic():
        promote(2, person)
        transaction.set_rollback(True)

    assert "registry.tasks.move_alias" not in [name for name, *_ in queued]
    assert AliasState.objects.get().wanted_version is None


def test_while_mlflow_is_down_the_move_waits_and_the_route_says_so(mlflow, person):
    route = follow(PROMOTION)
    promote(2, person)
    mlflow.unreachable = DOWN

    assert not moving.move(mlflow, route.pk)
    assert sync.synchronise(mlflow).error
    assert problem() == (
        f"The alias could not be moved, and each sync tries again: {DOWN}"
    )
    mlflow.unreachable = ""
    sync.synchronise(mlflow)

    assert champion(mlflow) == 2
    assert problem() == ""


def test_only_the_newest_default_is_set_when_mlflow_is_back(mlflow, person):
    follow(PROMOTION)
    promote(2, person)
    promote(3, person)

    sync.synchronise(mlflow)

    assert mlflow.moved == [("churn", "champion", 3)]


def test_a_default_that_changes_while_mlflow_is_slow_is_set_as_well(mlflow, person):
    route = follow(BOTH)
    promote(2, person)
    set_alias = mlflow.set_alias

    def slowly(name, alias, version):
        set_alias(name, alias, version)
        if version == 2:
            promote(3, person)
            # The worker of that promotion finds this move under way.
            assert moving.move(mlflow, route.pk)

    mlflow.set_alias = slowly
    moving.move(mlflow, route.pk)
    sync.synchronise(mlflow)

    assert [version for _, _, version in mlflow.moved] == [2, 3]
    assert (champion(mlflow), default()) == (3, 3)


@pytest.mark.parametrize("direction", [ALIAS, BOTH])
def test_moving_the_alias_promotes_at_the_next_sync(mlflow, direction):
    follow(direction)
    mlflow.point("churn", "champion", 2)

    sync.synchronise(mlflow)

    assert default() == 2
    record = Route.objects.get().history.first()
    assert record.history_change_reason == (
        "v2 became the default: the alias champion was moved to it in MLflow"
    )


@pytest.mark.parametrize("direction", ["off", PROMOTION])
def test_moving_an_alias_that_does_not_lead_promotes_nothing(mlflow, direction):
    follow(direction)
    mlflow.point("churn", "champion", 2)

    sync.synchronise(mlflow)

    assert default() == 1
    assert champion(mlflow) == 2


def test_both_ways_never_go_in_a_circle(mlflow, person):
    route = follow(BOTH)
    promote(2, person)
    moving.move(mlflow, route.pk)
    for _ in range(3):
        sync.synchronise(mlflow)
    assert mlflow.moved == [("churn", "champion", 2)]
    assert default() == 2

    mlflow.point("churn", "champion", 3)
    for _ in range(3):
        sync.synchronise(mlflow)

    assert default() == 3
    assert mlflow.moved == [("churn", "champion", 2)]
    changes = Route.objects.get().history.filter(history_change_reason__contains="be")
    assert changes.count() == 2


def test_an_alias_that_went_there_and_back_between_two_syncs_moves_nothing(mlflow):
    follow(BOTH)
    for number in (2, 3, 1):
        mlflow.point("churn", "champion", number)

    sync.synchronise(mlflow)

    assert default() == 1


def test_an_answer_older_than_a_promotion_does_not_undo_it(mlflow, person):
    route = follow(BOTH)
    models = mlflow.models

    def slowly():
        answer = models()
        promote(2, person)
        moving.move(mlflow, route.pk)
        return answer

    mlflow.models = slowly
    sync.synchronise(mlflow)
    mlflow.models = models
    sync.synchronise(mlflow)

    assert (default(), champion(mlflow)) == (2, 2)


def test_an_alias_on_a_version_that_cannot_be_served_moves_nothing(mlflow):
    follow(BOTH)
    ModelVersion.objects.filter(version=2).update(serving_problem="It has no weights.")
    mlflow.point("churn", "champion", 2)

    sync.synchronise(mlflow)

    assert default() == 1
    assert problem() == (
        "The alias was moved, and nothing else was: churn v2 cannot be served: It has "
        "no weights."
    )
    ModelVersion.objects.filter(version=2).update(serving_problem="")
    sync.synchronise(mlflow)
    assert (default(), problem()) == (2, "")


def test_a_decision_by_hand_ends_what_the_alias_could_not_do(mlflow, person):
    follow(ALIAS)
    ModelVersion.objects.filter(version=2).update(serving_problem="It has no weights.")
    mlflow.point("churn", "champion", 2)
    sync.synchronise(mlflow)

    promote(3, person)
    ModelVersion.objects.filter(version=2).update(serving_problem="")
    sync.synchronise(mlflow)

    assert (default(), problem()) == (3, "")


def test_a_deleted_default_and_its_alias_move_nothing(mlflow):
    follow(BOTH)
    mlflow.add("churn", 2, 3)

    sync.synchronise(mlflow)

    assert default() == 1
    assert problem() == "MLflow has no alias champion."
    assert mlflow.moved == []


def test_a_wish_for_a_deleted_version_is_said_and_not_lost(mlflow, person):
    follow(PROMOTION)
    promote(2, person)
    mlflow.add("churn", 1, 3, aliases={"champion": 1})

    sync.synchronise(mlflow)

    assert "MLflow has no churn v2." in problem()
    assert AliasState.objects.get().wanted_version == 2
    promote(3, person)
    sync.synchronise(mlflow)
    assert (champion(mlflow), problem()) == (3, "")


def test_one_that_cannot_be_moved_does_not_keep_the_sync_from_its_work(mlflow, person):
    follow(PROMOTION)
    promote(2, person)
    mlflow.add("churn", 1, 3, 4, aliases={"champion": 1})

    outcome = sync.synchronise(mlflow)

    assert outcome.changed == ("churn",)
    assert RegistrySync.objects.get().error == ""


def test_aliases_that_mlflow_refuses_keep_no_other_from_being_moved(mlflow, person):
    for number in range(5):
        mlflow.add(f"refused-{number}", 1, 2, aliases={"champion": 1})
    sync.synchronise(mlflow)
    for route in Route.objects.all():
        route.alias, route.alias_follows = "champion", PROMOTION
        routes.save(route, by=None, reason="told to")
    for version in ModelVersion.objects.filter(version=2):
        routes.make_default(version, by=person)
    answer = mlflow.set_alias

    def refuse(name, alias, version):
        if name != "churn":
            raise RegistryUnreachable("MLflow did not move it (PERMISSION_DENIED).")
        answer(name, alias, version)

    mlflow.set_alias = refuse
    sync.synchronise(mlflow)

    assert champion(mlflow) == 2


def test_an_mlflow_that_moves_nothing_costs_a_sync_little(mlflow, monkeypatch, person):
    mlflow.add("iris", 1, 2, aliases={"champion": 1})
    sync.synchronise(mlflow)
    for route in Route.objects.all():
        route.alias, route.alias_follows = "champion", PROMOTION
        routes.save(route, by=None, reason="told to")
    for version in ModelVersion.objects.filter(version=2):
        routes.make_default(version, by=person)
    monkeypatch.setattr(moving, "PATIENCE_S", 0.0)
    asked = []

    def fail(*alias):
        asked.append(alias)
        raise RegistryUnreachable("MLflow did not answer.")

    mlflow.set_alias = fail
    sync.synchronise(mlflow)

    assert len(asked) == 1


def test_an_alias_that_fails_unexpectedly_keeps_the_sync_from_no_other(
    mlflow, monkeypatch
):
    mlflow.add("iris", 1, 2, aliases={"champion": 1})
    sync.synchronise(mlflow)
    for route in Route.objects.all():
        route.alias, route.alias_follows = "champion", ALIAS
        routes.save(route, by=None, reason="told to")
    for name in ("churn", "iris"):
        mlflow.point(name, "champion", 2)
    make_default = routes.make_default

    def fail(version, **fields):
        if version.registered_model.name == "churn":
            raise TypeError("no such thing")
        return make_default(version, **fields)

    monkeypatch.setattr(routes, "make_default", fail)

    assert sync.synchronise(mlflow).error == ""

    defaults = Route.objects.values_list(
        "registered_model__name", "default_version__version"
    )
    assert dict(defaults) == {"churn": 1, "iris": 2}
    assert AliasState.objects.get(route__registered_model__name="churn").problem == (
        "The alias could not be followed (TypeError), and each sync tries again. The "
        "log of the worker says more."
    )


def test_an_alias_that_breaks_callers_adds_up_no_usage_each_minute(mlflow, monkeypatch):
    follow(ALIAS)
    mlflow.files["churn", 4] = replace(
        mlflow.files["churn", 1],
        signature={"inputs": [{"type": "double", "name": "height"}]},
    )
    mlflow.add("churn", 1, 2, 3, 4, aliases={"champion": 4})
    asked = []
    monkeypatch.setattr(
        reading, "callers_of", lambda *_, **__: asked.append(1) or ([], 0)
    )

    for _ in range(2):
        sync.synchronise(mlflow)

    assert default() == 1
    assert "Column width: is gone" in problem()
    assert not asked


def test_moving_the_alias_starts_a_rollout_if_the_route_says_so(mlflow, person):
    follow(BOTH, alias_starts="rollout")
    mlflow.point("churn", "champion", 2)

    for _ in range(2):
        sync.synchronise(mlflow)

    rollout = Rollout.objects.get()
    assert rollout.version.version == 2
    assert default() == 1
    conduct.promote(rollout, by=person)
    sync.synchronise(mlflow)
    assert (default(), champion(mlflow)) == (2, 2)
    assert Rollout.objects.count() == 1


def test_a_rollout_that_was_rolled_back_is_not_started_again(mlflow, person):
    follow(BOTH, alias_starts="rollout")
    mlflow.point("churn", "champion", 2)
    sync.synchronise(mlflow)

    conduct.roll_back(Rollout.objects.get(), by=person)
    sync.synchronise(mlflow)

    assert Rollout.objects.count() == 1
    assert default() == 1


def test_an_unfinished_rollout_of_another_version_is_said_and_waited_for(
    mlflow, person
):
    follow(ALIAS, alias_starts="rollout")
    first = conduct.start(ModelVersion.objects.get(version=3), by=person)
    mlflow.point("churn", "champion", 2)

    sync.synchronise(mlflow)
    assert "has an unfinished rollout" in problem()
    assert Route.objects.get().canary_version.version == 3
    conduct.roll_back(first, by=person)
    sync.synchronise(mlflow)

    assert problem() == ""
    assert Route.objects.get().canary_version.version == 2


def test_a_move_whose_worker_was_killed_is_done_by_a_later_sync(mlflow, person):
    follow(PROMOTION)
    promote(2, person)
    in_a_minute = timezone.now() + timedelta(minutes=1)
    AliasState.objects.update(claimed_until=in_a_minute)

    sync.synchronise(mlflow)
    assert champion(mlflow) == 1
    AliasState.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    sync.synchronise(mlflow)

    assert champion(mlflow) == 2
