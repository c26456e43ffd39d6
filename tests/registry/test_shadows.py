"""A route's shadow: who may be one, and how it comes and goes."""

import pytest
from django.db import IntegrityError, transaction

from registry import routes
from registry.past import route_history
from registry.routes import RouteError
from tests.factories import UserFactory
from tests.factories_registry import (
    ModelVersionFactory,
    RouteFactory,
    breaking_version,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def person():
    return UserFactory.create(username="grace")


@pytest.fixture
def route():
    return RouteFactory.create()


@pytest.fixture
def other(route):
    return ModelVersionFactory.create(registered_model=route.registered_model)


def test_a_shadow_comes_and_goes_with_its_share(route, other, person):
    routes.set_shadow(other, percent=20, by=person, why="it is new")

    route.refresh_from_db()
    assert (route.shadow_version, route.shadow_percent) == (other, 20)
    assert route.history.first().history_change_reason == (
        f"v{other.version} became the shadow with 20 %: it is new"
    )
    # It answers nobody.
    assert route.default_weight_percent == 100

    routes.stop_shadow(route, by=person)

    route.refresh_from_db()
    assert (route.shadow_version, route.shadow_percent) == (None, 0)
    with pytest.raises(RouteError, match="has no shadow"):
        routes.stop_shadow(route, by=person)


def test_the_default_cannot_be_its_own_shadow(route, person):
    with pytest.raises(RouteError, match="is the default"):
        routes.set_shadow(route.default_version, percent=20, by=person)

    with pytest.raises(IntegrityError), transaction.atomic():
        type(route).objects.filter(pk=route.pk).update(
            shadow_version=route.default_version_id
        )


@pytest.mark.parametrize("percent", [0, 101])
def test_a_share_outside_1_to_100_is_refused(route, other, person, percent):
    with pytest.raises(RouteError, match="from 1 to 100"):
        routes.set_shadow(other, percent=percent, by=person)


def test_a_shadow_that_becomes_the_default_stops_being_the_shadow(route, other, person):
    routes.set_shadow(other, percent=20, by=person)

    routes.make_default(other, by=person)

    route.refresh_from_db()
    assert route.default_version == other
    assert (route.shadow_version, route.shadow_percent) == (None, 0)


def test_a_version_that_breaks_callers_is_refused_in_words(route, person):
    with pytest.raises(RouteError, match="would break"):
        routes.set_shadow(breaking_version(route), percent=20, by=person)


def test_the_history_tells_of_the_shadow_and_brings_it_back(route, other, person):
    model = route.registered_model
    routes.set_shadow(other, percent=20, by=person)
    routes.stop_shadow(route, by=person)

    now, with_shadow, first = route_history.timeline(model)

    assert (with_shadow.shadow_version, with_shadow.shadow_percent) == (
        other.version,
        20,
    )
    assert with_shadow.in_words().endswith(f", shadow v{other.version} 20 %")
    assert (now.has_shadow, first.has_shadow) == (False, False)

    route_history.revert(route, to=with_shadow.record_id, by=person)

    route.refresh_from_db()
    assert (route.shadow_version, route.shadow_percent) == (other, 20)
