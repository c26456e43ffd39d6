"""What people see of shadows: on the pages of route, version and rollout."""

import html

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from inference.controller.rollouts import conduct, stored_sums
from inference.models import ShadowExample, ShadowTotals
from registry import routes
from registry.rules.rollout_plans import Plan
from tests.factories import CustomerFactory, UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def scientist(client):
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return person


@pytest.fixture
def route():
    return RouteFactory.create()


@pytest.fixture
def shadow(route):
    version = ModelVersionFactory.create(registered_model=route.registered_model)
    routes.set_shadow(version, percent=50, by=None)
    ShadowTotals.objects.create(
        model=route.registered_model.name,
        default_version=route.default_version.version,
        shadow_version=version.version,
        calls=400,
        failed=3,
        rows=800,
        changed_rows=20,
        distance=16.0,
        default_us=400_000,
        shadow_us=800_000,
        first_at=timezone.now(),
        last_at=timezone.now(),
    )
    return version


def shown(client, page, pk):
    response = client.get(reverse(f"admin:{page}_change", args=[pk]))
    return html.unescape(response.content.decode())


@pytest.mark.parametrize("page", ["route", "modelversion"])
def test_route_and_version_tell_what_the_shadow_answered(
    client, scientist, route, shadow, page
):
    pk = route.pk if page == "route" else shadow.pk

    text = shown(client, f"registry_{page}", pk)

    assert f"v{shadow.version} beside the default" in text
    assert "20 of 800 (2.5 %)" in text
    assert "400, 3 failed" in text
    assert "2.0 ms, 1.0 ms" in text
    assert ">0.02<" in text


def test_large_numbers_are_written_out(client, scientist, route, shadow):
    ShadowTotals.objects.update(
        changed_rows=800, default_us=400 * 1_234_500, shadow_us=400 * 12_345_600
    )

    text = shown(client, "registry_route", route.pk)

    assert "800 of 800 (100.0 %)" in text
    assert "12,345.6 ms, 1,234.5 ms" in text


def test_examples_are_shown_to_who_may_see_the_model(client, scientist, route, shadow):
    ShadowExample.objects.create(
        name="x",
        customer=CustomerFactory.create(),
        at=timezone.now(),
        request_id="req_1",
        model=route.registered_model.name,
        default_version=route.default_version.version,
        shadow_version=shadow.version,
        body='{"instances": [<1>]}',
        default_answer="[1]",
        shadow_answer="[2]",
    )

    text = shown(client, "registry_modelversion", shadow.pk)

    assert "1 call with other answers" in text
    assert '{"instances": [<1>]}' in text


def test_many_examples_are_called_the_newest(client, scientist, route, shadow):
    ShadowExample.objects.bulk_create(
        ShadowExample(
            name=f"example-{number}",
            customer=CustomerFactory.create(),
            at=timezone.now(),
            request_id=f"req_{number}",
            model=route.registered_model.name,
            default_version=route.default_version.version,
            shadow_version=shadow.version,
            body="{}",
            default_answer="[1]",
            shadow_answer="[2]",
        )
        for number in range(21)
    )

    assert "The newest 20 calls with other answers" in shown(
        client, "registry_route", route.pk
    )


@pytest.mark.parametrize("page", ["route", "modelversion"])
def test_a_shadow_without_compared_copies_says_so(
    client, scientist, route, shadow, page
):
    ShadowTotals.objects.all().delete()
    pk = route.pk if page == "route" else shadow.pk

    text = shown(client, f"registry_{page}", pk)

    assert "No copy has been compared yet." in text


def test_a_route_without_shadow_shows_nothing(client, scientist, route):
    text = shown(client, "registry_route", route.pk)

    assert "As a shadow" not in text


def test_a_version_that_was_no_shadow_shows_nothing(client, scientist, route, shadow):
    text = shown(client, "registry_modelversion", route.default_version.pk)

    assert "As a shadow" not in text


def test_the_version_says_that_it_is_the_shadow_of_its_route(
    client, scientist, route, shadow
):
    text = shown(client, "registry_modelversion", shadow.pk)

    assert "shadow of its route, 50 %" in text


def test_a_rollout_shows_the_evidence_on_answers(client, scientist, route, shadow):
    rollout = conduct.start(shadow, by=scientist, plan=Plan(shadow_percent=100))
    sums = stored_sums.read(rollout)
    sums.answers.calls, sums.answers.rows = 10, 10
    sums.answers.changed_rows, sums.answers.distance = 4, 1.0
    rollout.sums = stored_sums.as_json(sums)
    rollout.save()

    text = shown(client, "inference_rollout", rollout.pk)

    assert "at most 5 % of the same inputs" in text
    assert "4 of 10 (40.00\N{NO-BREAK SPACE}%)" in text
