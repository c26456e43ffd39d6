"""What callers said is on the pages of versions, routes and rollouts."""

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from inference.controller.rollouts import conduct, stored_sums
from inference.models import FeedbackSum
from inference.rollouts.feedback import Scores
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def route():
    return RouteFactory.create()


@pytest.fixture
def version(route):
    return ModelVersionFactory.create(registered_model=route.registered_model)


@pytest.fixture
def page_of(admin_client):
    def page_of(row):
        name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
        response = admin_client.get(reverse(name, args=[row.pk]))
        assert response.status_code == 200
        return response.content.decode()

    return page_of


def say(version, measure, count, total):
    FeedbackSum.objects.create(
        model=version.registered_model.name,
        version=str(version.version),
        day=timezone.now().date(),
        measure=measure,
        count=count,
        total=total,
    )


def test_pages_say_how_to_send_feedback_while_there_is_none(page_of, route, version):
    for page in (page_of(route), page_of(version)):
        assert "Nobody has said yet how good its answers are" in page
        assert "/api/v1/feedback -H" in page


def test_only_who_may_see_rollouts_sees_feedback(client, route, version):
    say(version, "score", 4, 3.0)
    person = UserFactory.create(is_staff=True)
    names = ("view_route", "view_modelversion")
    person.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(person)
    urls = [
        reverse("admin:registry_route_change", args=[route.pk]),
        reverse("admin:registry_modelversion_change", args=[version.pk]),
    ]

    before = [client.get(url).content.decode() for url in urls]
    person.user_permissions.add(Permission.objects.get(codename="view_rollout"))
    after = [client.get(url).content.decode() for url in urls]

    assert ['id="feedback"' in page for page in before] == [False, False]
    assert ['id="feedback"' in page for page in after] == [True, True]


def test_a_versions_page_shows_it_beside_the_default(page_of, route, version):
    say(version, "score", 4, 3.0)
    say(route.default_version, "score", 10, 9.0)
    say(route.default_version, "right", 8, 6.0)

    page = page_of(version)

    assert "Mean score, last 30 days" in page
    assert "0.75 of 4" in page
    assert f"Default v{route.default_version.version}" in page
    assert "0.9 of 10" in page
    assert "75.0% of 8" in page


@pytest.mark.parametrize(
    ("mean", "shown"),
    [
        (0.012345, "0.01235"),
        (1234.5, "1,234"),
        (9_999.6, "10,000"),
        (12_345.6, "12,346"),
        (-12_345.6, "-12,346"),
    ],
)
def test_a_mean_is_written_out(page_of, version, mean, shown):
    say(version, "value", 2, 2 * mean)

    assert f">{shown} of 2<" in page_of(version)


def test_a_routes_page_shows_default_and_canary(page_of, route, version):
    conduct.start(version, by=UserFactory.create())
    say(version, "error", 4, 2.0)

    page = page_of(route)

    assert f"Canary v{version.version}" in page
    assert "0.5 of 4" in page


def test_a_rollouts_page_shows_scores_once_there_are_some(page_of, route, version):
    rollout = conduct.start(version, by=UserFactory.create())
    assert "Mean score of feedback" not in page_of(rollout)
    sums = stored_sums.read(rollout)
    sums.feedback.canary = Scores(count=40, total=30.0)
    rollout.sums = stored_sums.as_json(sums)
    rollout.save()

    page = page_of(rollout)

    assert "Mean score of feedback" in page
    assert "0.750" in page
    assert "mean score at most 0.05 below" in page
