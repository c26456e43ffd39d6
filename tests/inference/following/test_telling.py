"""Followers are told each fact once."""

from datetime import timedelta

import pytest
from django.utils import timezone

from inference.controller.rollouts import conduct
from inference.following import followers, inbox, telling
from inference.models import Message, VersionCondition, VersionEvent
from registry import routes
from tests.factories_registry import (
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)
from tests.factories_serving import VersionEventFactory
from tests.inference.following.people import scientist, told

pytestmark = pytest.mark.django_db

Kind = VersionEvent.Kind


@pytest.fixture
def version():
    return ModelVersionFactory(registered_model__name="iris", version=3)


@pytest.fixture
def grace(version):
    return scientist(follows=version.registered_model)


def look():
    telling.look(now=timezone.now())


def fail(version, text="no room", **facts):
    VersionEventFactory(
        of=version, kind=Kind.LOAD_FAILED, at=timezone.now(), text=text, **facts
    )
    look()


def test_a_new_version_is_told_once(version, grace):
    look()
    assert told(grace) == []

    ModelVersionFactory(registered_model=version.registered_model, version=4)
    look()
    look()

    assert told(grace) == ["iris has a new version: v4."]


def test_many_new_versions_are_one_message(version, grace):
    for number in range(4, 10):
        ModelVersionFactory(registered_model=version.registered_model, version=number)
    look()

    assert told(grace) == ["iris has 6 new versions: v4 to v9."]


def test_a_failed_load_and_a_quarantine_are_told(version, grace):
    fail(version, "No module named lightgbm")
    VersionEventFactory(
        of=version, kind=Kind.QUARANTINED, at=timezone.now(), text="It died twice."
    )
    look()
    look()

    assert told(grace) == [
        "iris v3 could not be loaded. No module named lightgbm",
        "iris v3 is quarantined. It died twice.",
    ]


def test_a_version_that_fails_a_hundred_times_is_one_message(version, grace):
    for number in range(100):
        VersionEventFactory(
            of=version, kind=Kind.LOAD_FAILED, at=timezone.now(), text=f"at {number}"
        )
        if number % 10 == 0:
            look()
    look()

    assert told(grace) == ["iris v3 could not be loaded. at 0"]
    assert not VersionEvent.objects.untold().exists()


def test_a_version_that_changed_or_was_asked_to_load_again_is_told_again(
    version, grace
):
    fail(version, "first")
    version.artifact_digest = "1" * 64
    version.save()
    fail(version, "second")
    VersionCondition.objects.create(
        model="iris", version=3, load_again_at=timezone.now()
    )
    fail(version, "third")
    fail(version, "fourth")

    assert [text.rpartition(". ")[2] for text in told(grace)] == [
        *("first", "second", "third"),
    ]


def test_other_events_are_not_told(version, grace):
    for kind in Kind:
        if kind not in (Kind.LOAD_FAILED, Kind.QUARANTINED):
            VersionEventFactory(of=version, kind=kind, at=timezone.now())
    look()

    assert told(grace) == []


def test_what_was_before_somebody_followed_is_not_told(version):
    at = timezone.now() - timedelta(minutes=1)
    VersionEventFactory(of=version, kind=Kind.LOAD_FAILED, at=at)
    grace = scientist(follows=version.registered_model)
    look()

    assert told(grace) == []


@pytest.mark.parametrize("followed", [True, False])
def test_a_long_past_before_anybody_followed_is_passed_over_at_once(version, followed):
    before = timezone.now() - timedelta(days=1)
    for _ in range(300):
        VersionEventFactory(of=version, kind=Kind.LOAD_FAILED, at=before, text="old")
    person = scientist("new", follows=version.registered_model) if followed else None
    fail(version, "new")

    look()

    assert not VersionEvent.objects.untold().exists()
    if person is not None:
        assert told(person) == ["iris v3 could not be loaded. new"]


@pytest.mark.parametrize("facts", [{"is_active": False}, {"is_staff": False}])
def test_who_may_not_see_the_model_is_told_nothing(version, grace, facts):
    for name, value in facts.items():
        setattr(grace, name, value)
    grace.save()
    fail(version)

    assert told(grace) == []


def test_who_lost_the_permission_is_told_nothing(version, grace):
    grace.groups.clear()
    ModelVersionFactory(registered_model=version.registered_model, version=4)
    fail(version)

    assert told(grace) == []


def test_an_event_of_a_model_that_is_gone_is_passed_over(grace):
    VersionEventFactory(kind=Kind.LOAD_FAILED, model="gone", at=timezone.now())
    look()

    assert not VersionEvent.objects.untold().exists()
    assert told(grace) == []


def test_a_rollout_is_told_to_all_but_the_person_who_moved_it():
    route = RouteFactory(
        default_version__version=1, default_version__registered_model__name="iris"
    )
    version = ModelVersionFactory(registered_model=route.registered_model, version=2)
    ada, grace = scientist("ada"), scientist(follows=route.registered_model)
    rollout = conduct.start(version, by=ada)
    conduct.pause(rollout, by=ada, reason="Lunch.")
    conduct.resume(rollout, by=ada)
    conduct.roll_back(rollout, by=None, reason="It fails 3 times as often.")
    look()
    look()

    ended = "The rollout of iris v2 was rolled back. It fails 3 times as often."
    assert told(grace) == ["The rollout of iris v2 is paused. Lunch.", ended]
    assert told(ada) == [ended]
    assert Message.objects.filter(rollout=rollout).count() == 3


def test_who_changes_a_route_follows_its_model(version):
    grace = scientist()

    routes.make_default(version, by=grace)

    assert followers.is_following(version.registered_model, grace)
    look()
    assert told(grace) == []


def test_who_stopped_following_is_not_made_to_follow_again(version, grace):
    followers.unfollow(version.registered_model, grace)

    routes.make_default(version, by=grace)
    fail(version)

    assert not followers.is_following(version.registered_model, grace)
    assert told(grace) == []


def test_who_follows_again_is_not_told_of_versions_of_the_meantime(version, grace):
    model = version.registered_model
    followers.unfollow(model, grace)
    ModelVersionFactory(registered_model=model, version=4)
    look()
    followers.follow(model, grace)
    look()

    assert told(grace) == []


def test_the_machine_and_strangers_follow_nothing(version):
    routes.make_default(version, by=None)

    assert not version.registered_model.follows.exists()


def test_old_messages_are_deleted(version, grace):
    now = timezone.now()
    fail(version)

    telling.forget(now=now + timedelta(days=89))
    assert inbox.unread(grace) == 1
    telling.forget(now=now + timedelta(days=91))
    assert inbox.unread(grace) == 0


def test_a_look_asks_no_more_for_more_models(django_assert_max_num_queries):
    for _ in range(10):
        scientist(f"user {_}", follows=RegisteredModelFactory())

    with django_assert_max_num_queries(8):
        look()
