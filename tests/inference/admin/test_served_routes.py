"""A route's page says what people want of it and what gateways serve."""

import re
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse

from inference.models import ServingRoute, SnapshotState
from tests.factories import UserFactory
from tests.factories_registry import RouteFactory
from tests.factories_serving import (
    EngineFactory,
    LoadedVersionFactory,
    ServingRouteFactory,
)

pytestmark = pytest.mark.django_db

AT = datetime(2026, 11, 3, 14, 0, tzinfo=UTC)


@pytest.fixture
def scientist(client):
    person = UserFactory(username="grace", is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return person


def words(text):
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def page_of(client, route):
    url = reverse("admin:registry_route_change", args=[route.pk])
    return words(client.get(url).content.decode())


def list_of(client):
    url = reverse("admin:registry_route_changelist")
    return words(client.get(url).content.decode())


def test_a_route_that_has_moved_is_served_as_wanted(client, scientist):
    route = RouteFactory(with_canary=True)
    ServingRouteFactory(of=route)
    ServingRoute.objects.update(moved_at=AT)

    for text in (list_of(client), page_of(client, route)):
        assert "as wanted since 2026-11-03 14:00:00 UTC" in text


def test_a_route_that_waits_says_what_is_served_and_what_for(client, scientist):
    route = RouteFactory(with_canary=True)
    default = route.default_version.version
    ServingRoute.objects.create(
        model=route.registered_model.name,
        default_version=default,
        waiting_for="version 4 failed on engine cpu\nTraceback",
    )

    for text in (list_of(client), page_of(client, route)):
        assert f"v{default} 100 % since" in text
        assert "Waits: version 4 failed on engine cpu" in text


def test_a_new_route_is_not_served_yet(client, scientist):
    route = RouteFactory()

    assert "nothing yet" in list_of(client)
    assert "nothing yet" in page_of(client, route)


def test_the_page_names_the_engines_that_hold_its_versions(client, scientist):
    route = RouteFactory(with_canary=True)
    engine = EngineFactory(name="iris-1a2b3c")
    LoadedVersionFactory(of=route.canary_version, engine=engine, state="failed")
    LoadedVersionFactory(model="another", engine=EngineFactory(name="other"))

    page = page_of(client, route)

    assert f"v{route.canary_version.version} on iris-1a2b3c : failed" in page
    assert "on other" not in page


@pytest.mark.parametrize(
    ("changed", "rest"), [(7, "nothing waits"), (9, "2 changes wait")]
)
def test_the_page_says_when_gateways_were_last_told(client, scientist, changed, rest):
    route = RouteFactory()
    facts = {"changed": changed, "published": 7, "published_at": AT}
    SnapshotState.objects.update_or_create(pk=1, defaults=facts)

    assert f"2026-11-03 14:00:00 UTC; {rest}" in page_of(client, route)
