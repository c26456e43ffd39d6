"""Tell how a route divided its calls, and go back to an earlier state."""

from datetime import UTC, datetime, timedelta

import pytest

from registry import changes, routes
from registry.models import Route
from registry.past import route_history
from registry.routes import RouteError
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)


@pytest.fixture
def person():
    return UserFactory.create(username="grace")


@pytest.fixture
def route():
    return RouteFactory.create()


def at(route, hour):
    """Move the newest record of the route's history to an hour after noon."""
    Route.history.filter(pk=route.history.first().pk).update(
        history_date=NOON + timedelta(hours=hour)
    )


def history_of(route, person):
    """At noon only a default, at 1 a canary of 10 %, at 2 another cache, at 3 30 %."""
    at(route, 0)
    canary = ModelVersionFactory.create(registered_model=route.registered_model)
    routes.start_canary(canary, weight_percent=10, by=person, why="it looks better")
    at(route, 1)
    route.refresh_from_db()
    route.cache_ttl_s = 5
    routes.save(route, by=None, reason="changed cache_ttl_s in the admin")
    at(route, 2)
    routes.set_canary_weight(route, weight_percent=30, by=None)
    at(route, 3)
    route.refresh_from_db()
    return canary


def test_the_state_at_a_time_tells_the_weight_who_set_it_and_why(route, person):
    canary = history_of(route, person)

    state = route_history.state_at(route.registered_model, NOON + timedelta(hours=2.5))

    assert state.default_version == route.default_version.version
    assert state.canaries == ((canary.version, 10),)
    assert state.default_weight_percent == 90
    assert state.at == NOON + timedelta(hours=1)
    assert state.by == "grace"
    assert state.why == (
        f"v{canary.version} became a canary with 10 %: it looks better"
    )


def test_a_time_before_the_first_route_has_no_state(route, person):
    history_of(route, person)

    assert route_history.state_at(route.registered_model, NOON) is not None
    before = NOON - timedelta(seconds=1)
    assert route_history.state_at(route.registered_model, before) is None


def test_the_timeline_goes_on_where_the_last_page_ended(route, person):
    history_of(route, person)
    model = route.registered_model

    first = route_history.timeline(model, most=2)
    rest = route_history.timeline(model, most=2, before=first[-1].record_id)

    weights = [state.default_weight_percent for state in (*first, *rest)]
    assert weights == [70, 90, 100]


def test_the_timeline_costs_the_same_queries_for_any_length(
    route, person, django_assert_num_queries
):
    history_of(route, person)
    model = route.registered_model

    with django_assert_num_queries(2):
        route_history.timeline(model, most=1)
    with django_assert_num_queries(2):
        route_history.timeline(model)


def test_a_whole_reason_is_kept(route, person):
    reason = "because " * 100
    changes.save(route, by=person, reason=reason)

    assert route.history.first().history_change_reason == reason


def test_reverting_restores_the_division_and_tells_what_changed(route, person):
    canary = history_of(route, person)
    first = route.history.last()

    told = route_history.revert(route, to=first.pk, by=person, seen=route.updated_at)

    default = route.default_version.version
    assert told == (f"v{default} 70 %, v{canary.version} 30 % became v{default} 100 %")
    route.refresh_from_db()
    assert route.canary_version is None
    assert route.default_weight_percent == 100
    assert route.cache_ttl_s == 5
    newest = route_history.timeline(route.registered_model)[0]
    assert newest.by == "grace"
    assert newest.why == f"{told}: back to the state of 2026-11-03 12:00:00 UTC"


def test_reverting_is_refused_in_words_if_a_version_is_gone(route, person):
    canary = history_of(route, person)
    with_canary = route.history.first()
    routes.stop_canary(route, by=person)
    canary.missing_since = NOON
    canary.save()

    with pytest.raises(RouteError, match="no longer in MLflow"):
        route_history.revert(route, to=with_canary.pk, by=person)

    route.refresh_from_db()
    assert route.canary_version is None


def test_reverting_is_refused_if_somebody_changed_the_route_meanwhile(route, person):
    history_of(route, person)
    seen, first = route.updated_at, route.history.last()
    routes.set_canary_weight(route, weight_percent=40, by=person)

    with pytest.raises(RouteError, match="grace has changed this route"):
        route_history.revert(route, to=first.pk, by=person, seen=seen)

    route.refresh_from_db()
    assert route.canary_weight_percent == 40


def test_reverting_to_what_is_there_changes_nothing(route, person):
    history_of(route, person)
    records = route.history.count()

    with pytest.raises(RouteError, match="already"):
        route_history.revert(route, to=route.history.first().pk, by=person)

    assert route.history.count() == records


def test_a_record_of_another_route_is_not_a_state_of_this_one(route, person):
    other = RouteFactory.create().history.first()

    with pytest.raises(RouteError, match="no such state"):
        route_history.revert(route, to=other.pk, by=person)


def test_all_canaries_are_in_the_history_and_come_back(route, person):
    for weight in (10, 20, 30):
        version = ModelVersionFactory(registered_model=route.registered_model)
        routes.start_canary(version, weight_percent=weight, by=person)
    route.refresh_from_db()
    before, record = route.canaries, route.history.first()
    routes.stop_canary(route, by=person, seen=before[0].version.pk)

    route_history.revert(route, to=record.pk, by=person)

    route.refresh_from_db()
    assert route.canaries == before
    state, stopped, *_ = route_history.timeline(route.registered_model)
    shares = [(it.version.version, it.weight_percent) for it in before]
    assert (list(state.canaries), list(stopped.canaries)) == (shares, shares[1:])
    assert state.in_words() == ", ".join(
        f"v{number} {weight} %"
        for number, weight in [(route.default_version.version, 40), *shares]
    )
