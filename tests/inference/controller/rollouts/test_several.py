"""Several rollouts of one route: each takes its place, and keeps its own evidence."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.metering.event import Dealt
from inference.controller.rollouts import conduct, feeding, past, stored_sums
from inference.controller.rollouts.step import step
from inference.models import Rollout, ServingRoute
from registry import routes
from registry.models import Route
from registry.routes import RouteError
from registry.rules.rollout_plans import Plan, Stage
from registry.shares import canaries
from registry.shares.canaries import Canary
from tests.accounts.metering.test_spool import event as make_event
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db

PLAN = Plan(stages=(Stage(5, 1, 10), Stage(50, 1, 500)), most_minutes=60)
State = Rollout.State


@pytest.fixture
def route():
    return RouteFactory()


@pytest.fixture
def pair(route):
    """Two rollouts of one route whose weights gateways serve."""
    for _ in range(2):
        version = ModelVersionFactory(registered_model=route.registered_model)
        conduct.start(version, by=UserFactory(), plan=PLAN)
    serve()
    return rollouts()


def rollouts():
    found = Rollout.objects.select_related("version", "registered_model")
    return list(found.order_by("pk"))


def serve(now=None):
    """Let gateways serve what the route wants, and take a step."""
    route = Route.objects.get()
    chosen = [Canary(it.version.version, it.weight_percent) for it in route.canaries]
    ServingRoute.objects.update_or_create(
        model=route.registered_model.name,
        defaults={
            "default_version": route.default_version.version,
            **canaries.columns(chosen),
        },
    )
    step(now=now or timezone.now())


def send(rollout, *dealt, **given):
    """Feed a call for each dealing."""
    at = timezone.now().timestamp() + 5
    name = rollout.registered_model.name
    feeding.feed(
        make_event(number, at=at + number, model=name, dealt=each, **given)
        for number, each in enumerate(dealt)
    )


def test_two_rollouts_run_beside_one_another(pair, route):
    route.refresh_from_db()

    assert [it.state for it in rollouts()] == [State.RUNNING] * 2
    assert [canary.weight_percent for canary in route.canaries] == [5, 5]
    assert route.default_weight_percent == 90


def test_each_counts_its_own_calls_and_those_of_the_default(pair):
    one, other = (it.version.version for it in pair)
    of_default = Dealt(one, False, 0.05, "", ((other, 0.04),))

    send(
        pair[0],
        of_default,
        of_default,
        Dealt(one, True, 0.05),
        Dealt(other, True, 0.04),
    )

    counted = [stored_sums.read(it) for it in rollouts()]
    assert [(it.default.calls, it.canary.calls) for it in counted] == [(2, 1)] * 2


def test_one_that_fails_is_rolled_back_and_the_other_goes_on(pair):
    good, bad = (it.version.version for it in pair)
    fault = {"status": 500, "code": "MODEL_ERROR"}
    for number in range(12):
        send(
            pair[0], Dealt(bad, True, 0.1, "MODEL_ERROR"), key_id=f"k{number}", **fault
        )

    step(now=timezone.now())

    assert [it.state for it in rollouts()] == [State.RUNNING, State.ROLLED_BACK]
    route = Route.objects.get()
    assert [it.version.version for it in route.canaries] == [good]
    assert route.default_weight_percent == 95


def test_a_stage_waits_until_there_is_room_for_it(pair):
    conduct.advance(pair[0], by=None)
    routes.set_canary_weight(
        Route.objects.get(), weight_percent=5, by=None, seen=pair[1].version_id
    )

    with pytest.raises(RouteError, match="are 100 % together"):
        conduct.advance(pair[1], by=None)

    assert [it.weight_percent for it in rollouts()] == [50, 5]
    conduct.roll_back(pair[0], by=None)
    conduct.advance(pair[1], by=None)
    assert Route.objects.get().default_weight_percent == 50


def test_a_complete_stage_says_that_it_waits_for_room(pair):
    conduct.advance(pair[0], by=None)
    serve()
    # What happens to its numbers is of no matter here.
    plan = Plan(stages=(Stage(5, 0, 0), Stage(50, 0, 0)), most_minutes=60)
    Rollout.objects.filter(pk=pair[1].pk).update(plan=stored_sums.as_json(plan))

    step(now=timezone.now() + timedelta(minutes=2))

    waits = rollouts()[1]
    assert (waits.state, waits.stage) == (State.RUNNING, 0)
    assert "The next stage waits for room" in waits.reason

    step(now=timezone.now() + timedelta(minutes=61))

    waits = rollouts()[1]
    assert (waits.state, waits.stage) == (State.PAUSED, 0)
    assert waits.reason.startswith("It has not gone on for 60 minutes. Stage 1 is")
    assert "waits for room" in waits.reason


def test_a_rollout_that_finds_no_room_waits_with_a_weight_of_0(pair, route):
    conduct.advance(pair[0], by=None)
    full = Plan(stages=(Stage(60, 1, 10),))
    version = ModelVersionFactory(registered_model=route.registered_model)

    third = conduct.start(version, by=None, plan=full)
    serve()

    assert Route.objects.get().weight_of(version.pk) == 0
    found = Rollout.objects.get(pk=third.pk)
    assert (found.state, found.weight_percent) == (State.WAITING, 0)
    assert "Waits for room" in found.reason

    conduct.roll_back(pair[0], by=None)
    step(now=timezone.now())
    serve()

    found.refresh_from_db()
    assert (found.state, found.weight_percent) == (State.RUNNING, 60)
    assert Route.objects.get().weight_of(version.pk) == 60


def test_a_rollout_whose_canary_is_served_no_more_is_paused_and_says_so(pair):
    ServingRoute.objects.update(
        canary_2_version=None,
        canary_2_weight_percent=0,
        default_weight_percent=95,
        waiting_for="version 3 failed on engine cpu: no such file",
    )

    step(now=timezone.now())

    first, second = rollouts()
    assert (first.state, second.state) == (State.RUNNING, State.PAUSED)
    assert second.reason == (
        "It gets no calls any more. version 3 failed on engine cpu: no such file"
    )


def test_a_rollout_that_waits_too_long_is_paused_and_says_so(pair, route):
    conduct.advance(pair[0], by=None)
    version = ModelVersionFactory(registered_model=route.registered_model)
    plan = Plan(stages=(Stage(60, 1, 10),), most_minutes=30)
    third = conduct.start(version, by=None, plan=plan)

    step(now=timezone.now() + timedelta(minutes=29))
    assert Rollout.objects.get(pk=third.pk).state == State.WAITING
    step(now=timezone.now() + timedelta(minutes=31))

    found = Rollout.objects.get(pk=third.pk)
    assert found.state == State.PAUSED
    assert found.reason.startswith("It has not gone on for 30 minutes. Waits for room")
    assert found.events.filter(action="paused", guard="waiting").count() == 1

    with pytest.raises(RouteError, match="115 % together"):
        conduct.resume(found, by=UserFactory())
    conduct.roll_back(pair[0], by=None)
    conduct.resume(found, by=UserFactory())
    assert Rollout.objects.get(pk=third.pk).weight_percent == 60


def test_after_the_promotion_of_one_the_other_begins_its_evidence_again(pair):
    one, other = pair
    send(one, *[Dealt(other.version.version, True, 0.05)] * 3)
    conduct.promote(one, by=UserFactory())

    step(now=timezone.now())

    paused = rollouts()[1]
    assert paused.state == State.PAUSED
    assert f"v{one.version.version} is the default now" in paused.reason
    assert stored_sums.read(paused).canary.calls == 3

    conduct.resume(other, by=None)

    resumed = rollouts()[1]
    assert resumed.state == State.WAITING
    assert resumed.default_version_id == one.version_id
    assert stored_sums.read(resumed).canary.calls == 0
    assert Route.objects.get().weight_of(other.version_id) == 5


def test_of_two_people_who_promote_two_canaries_the_second_is_told(pair):
    one, other = pair
    conduct.promote(one, by=UserFactory())

    with pytest.raises(RouteError, match="default or canary was changed"):
        conduct.promote(other, by=UserFactory())

    assert Route.objects.get().default_version_id == one.version_id


def test_the_history_names_all_rollouts_of_a_time(pair, route):
    facts = past.facts(route.registered_model.name, timezone.now())

    versions = [str(it.version.version) for it in pair]
    assert [it["version"] for it in facts["rollouts"]] == versions[::-1]
    assert facts["rollout"] == facts["rollouts"][0]
    shares = facts["route"]["canaries"]
    assert [it["version"] for it in shares] == versions
    assert {it["weight_percent"] for it in shares} == {5}
