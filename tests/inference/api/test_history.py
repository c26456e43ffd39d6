"""`GET /api/v1/models/{model}/history` tells staff how calls were divided."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone

from inference.controller.rollouts import conduct
from registry import routes
from tests.factories import UserFactory, issue_key
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def route():
    return RouteFactory.create()


@pytest.fixture
def canary(route):
    return ModelVersionFactory.create(registered_model=route.registered_model)


@pytest.fixture(params=["operators", "data scientists"])
def staff(request, client):
    person = UserFactory.create(username="grace", is_staff=True)
    person.groups.add(Group.objects.get(name=request.param))
    client.force_login(person)
    return person


def url(route):
    return f"/api/v1/models/{route.registered_model.name}/history"


def test_staff_read_who_set_which_weight_when_and_why(client, staff, route, canary):
    routes.start_canary(canary, weight_percent=10, by=staff, why="a trial")

    answer = client.get(url(route))

    assert answer.status_code == 200
    newest, first = answer.json()["data"]
    assert newest == {
        "at": newest["at"],
        "enabled": True,
        "default_version": str(route.default_version.version),
        "default_weight_percent": 90,
        "canary_version": str(canary.version),
        "canary_weight_percent": 10,
        "canaries": [{"version": str(canary.version), "weight_percent": 10}],
        "shadow_version": None,
        "shadow_percent": 0,
        "by": "grace",
        "reason": f"v{canary.version} became a canary with 10 %: a trial",
    }
    assert first["canary_version"] is None
    assert answer.json()["next_cursor"] is None


def test_the_state_at_a_time_comes_first_with_its_rollout(client, staff, route, canary):
    rollout = conduct.start(canary, by=staff)
    between = timezone.now()
    conduct.roll_back(rollout, by=staff)

    answer = client.get(url(route), {"at": between.isoformat()}).json()

    assert answer["data"][0]["canary_weight_percent"] == 1
    assert answer["rollout"]["id"] == rollout.pk
    assert answer["rollout"]["stage"] == 1
    later = timezone.now() + timedelta(seconds=1)
    answer = client.get(url(route), {"at": later.isoformat()}).json()
    assert answer["data"][0]["canary_weight_percent"] == 0
    assert answer["rollout"] is None


def test_a_long_history_comes_in_pages(client, staff, route, canary):
    routes.start_canary(canary, weight_percent=0, by=staff)
    for number in range(100):
        routes.set_canary_weight(route, weight_percent=number + 1, by=staff)

    first = client.get(url(route)).json()
    rest = client.get(url(route), {"cursor": first["next_cursor"]}).json()

    weights = [it["canary_weight_percent"] for it in (*first["data"], *rest["data"])]
    assert weights == [*range(100, -1, -1), 0]
    assert len(first["data"]) == 100
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("query", [{"at": "soon"}, {"cursor": "x"}, {"at": ""}])
def test_a_query_that_cannot_be_read_is_refused_in_words(client, staff, route, query):
    answer = client.get(url(route), query)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_INPUT"


def test_nobody_else_reads_it(client, route):
    token = issue_key().token

    assert client.get(url(route)).status_code == 401
    with_key = client.get(url(route), headers={"Authorization": f"Bearer {token}"})
    assert with_key.status_code == 401
    client.force_login(UserFactory.create(is_staff=True))
    answer = client.get(url(route))
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "FORBIDDEN"


def test_an_unknown_model_is_not_found(client, staff):
    answer = client.get("/api/v1/models/nothing/history")

    assert answer.json()["error"]["code"] == "NOT_FOUND"
