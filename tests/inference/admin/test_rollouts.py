"""A data scientist starts, watches and moves a rollout in the admin."""

import html
import re
import time
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse

from inference.controller.rollouts import conduct, stored_sums
from inference.models import Rollout, RolloutEvent
from registry.models import RolloutPlan, Route
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.inference.rollouts.simulated import World, count

pytestmark = pytest.mark.django_db


@pytest.fixture
def scientist(client):
    person = UserFactory(username="grace", is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return person


@pytest.fixture
def version():
    route = RouteFactory()
    return ModelVersionFactory(registered_model=route.registered_model)


@pytest.fixture
def rollout(version):
    return conduct.start(version, by=None)


def page_of(client, rollout):
    url = reverse("admin:inference_rollout_change", args=[rollout.pk])
    return html.unescape(client.get(url).content.decode())


def act(client, rollout, action, **fields):
    url = reverse(f"admin:inference_rollout_{action}", args=[rollout.pk])
    return client.post(url, {"_form_submitted": "on", **fields}, follow=True)


def start(client, version, **fields):
    url = reverse("admin:registry_modelversion_start_rollout", args=[version.pk])
    return client.post(url, {"_form_submitted": "on", **fields}, follow=True)


def test_starting_one_leads_to_its_page(client, scientist, version):
    response = start(client, version)

    rollout = Rollout.objects.get()
    assert rollout.started_by == scientist
    assert response.redirect_chain[-1][0].endswith(f"/{rollout.pk}/change/")
    assert "Waits until the version is loaded" in response.content.decode()


def test_another_plan_can_be_chosen(client, scientist, version):
    plan = RolloutPlan.objects.create(
        name="bold", plan={"stages": [{"weight_percent": 40}]}
    )

    start(client, version, plan=plan.pk)

    assert Rollout.objects.get().weight_percent == 40


def test_the_reason_is_shown_if_it_cannot_start(client, scientist, version):
    version.serving_problem = "It failed on engine cpu: no such layer"
    version.save()

    response = start(client, version)

    assert "no such layer" in response.content.decode()
    assert not Rollout.objects.exists()


def test_the_page_compares_both_versions_and_shows_the_evidence(
    client, scientist, rollout
):
    world = World(error_rate=0.02, calls=2000, weight=25, drift=0.1)
    rollout.sums = stored_sums.as_json(count(world, seed=1))
    rollout.save()

    page = page_of(client, rollout)

    assert "p95 of the time" in page
    assert "MODEL_ERROR" in page
    assert "Roll back: 0 % of the proof that is needed" in page
    assert "Pause: 0 % of the proof that is needed" in page
    assert "Predictions that the canary makes more often" in page
    assert page.count("nothing to compare yet") == 1
    assert "below the default's; nothing to compare yet" in page
    assert "25 %" in page


@pytest.mark.parametrize(
    ("action", "state"),
    [
        ("pause", Rollout.State.PAUSED),
        ("promote", Rollout.State.PROMOTED),
        ("roll_back", Rollout.State.ROLLED_BACK),
    ],
)
def test_it_can_be_moved_by_hand(client, scientist, rollout, action, state):
    act(client, rollout, action)

    rollout.refresh_from_db()
    assert rollout.state == state
    assert rollout.events.first().by == scientist


def test_only_what_helps_is_offered(client, scientist, rollout):
    conduct.pause(rollout, by=None, reason="lunch")

    page = page_of(client, rollout)

    assert "inference_rollout_resume" in page or "/resume/" in page
    assert "/pause/" not in page


def test_a_page_that_watches_gets_other_buttons_with_another_state(
    client, scientist, rollout
):
    url = reverse("admin:inference_rollout_change", args=[rollout.pk])
    [redraw] = re.findall(r'hx-get="(\?drawn=[^"]+)"', page_of(client, rollout))
    assert 'id="rollout"' in client.get(url + redraw).content.decode()

    conduct.pause(rollout, by=None, reason="lunch")

    answer = client.get(url + redraw)
    assert (answer.headers["HX-Refresh"], answer.content) == ("true", b"")


@pytest.mark.parametrize("action", ["resume", "advance"])
def test_who_goes_on_from_a_pause_is_told_what_begins_again(
    client, scientist, rollout, action
):
    conduct.pause(rollout, by=None, reason="Other predictions.", guard="drift")

    url = reverse(f"admin:inference_rollout_{action}", args=[rollout.pk])
    question = client.get(url).content.decode()

    assert "the test that paused it begins again" in question.lower()
    assert "after drift, you accept its predictions" in question
    assert "evidence stays" not in question


def test_the_second_of_two_clicks_on_advance_is_told(client, scientist, rollout):
    act(client, rollout, "advance", stage=0)

    response = act(client, rollout, "advance", stage=0)

    assert "stage 2 by now" in response.content.decode()
    assert Route.objects.get().canary_weight_percent == 5


def test_an_account_manager_may_not_move_it(client, rollout):
    person = UserFactory(is_staff=True)
    person.groups.add(Group.objects.get(name="account managers"))
    client.force_login(person)

    response = act(client, rollout, "promote")

    assert response.status_code == 403
    rollout.refresh_from_db()
    assert rollout.is_active


def test_a_wrong_plan_is_refused_in_words(client, scientist):
    response = client.post(
        reverse("admin:registry_rolloutplan_add"),
        {"name": "falling", "plan": '{"stages": [{"weight_percent": 0}]}'},
    )

    assert "1 to 99 percent" in html.unescape(response.content.decode())
    assert not RolloutPlan.objects.exists()


@pytest.fixture
def long_history(rollout):
    """Ten thousand rollouts of one model, with their events and the route's changes."""
    began = rollout.started_at - timedelta(days=400)
    done = Rollout.objects.bulk_create(
        [
            Rollout(
                registered_model=rollout.registered_model,
                version=rollout.version,
                default_version=rollout.default_version,
                plan=rollout.plan,
                # They are read on the page of one rollout only.
                sums=rollout.sums if number == 5000 else {},
                state=Rollout.State.ROLLED_BACK,
                weight_percent=50,
                reason=f"Number {number} was too slow.",
                started_at=began + timedelta(minutes=50 * number),
                ended_at=began + timedelta(minutes=50 * number + 30),
            )
            for number in range(10_000)
        ],
        batch_size=500,
    )
    RolloutEvent.objects.bulk_create(
        [
            RolloutEvent(
                rollout=each,
                at=each.started_at,
                action=action,
                stage=0,
                weight_percent=1,
                reason="x",
                told_at=each.started_at,
            )
            for each in done
            for action in ("started", "rolled back")
        ],
        batch_size=2000,
    )
    route = Route.objects.get()
    records = type(route.history.latest())
    records.objects.bulk_create(
        [
            records(
                **{
                    field.attname: getattr(route, field.attname)
                    for field in Route._meta.concrete_fields
                }
                | {"canary_weight_percent": number % 2},
                history_date=began + timedelta(minutes=50 * number),
                history_type="~",
                history_change_reason=f"weight {number}",
            )
            for number in range(10_000)
        ],
        batch_size=500,
    )
    return done


PAGES = {
    "list": lambda _: reverse("admin:inference_rollout_changelist"),
    "last page": lambda _: reverse("admin:inference_rollout_changelist") + "?p=200",
    "search": lambda it: (
        reverse("admin:inference_rollout_changelist")
        + f"?q={it.registered_model.name}&state__exact=rolled_back"
    ),
    "rollout": lambda it: reverse("admin:inference_rollout_change", args=[it.pk]),
    "version": lambda it: reverse(
        "admin:registry_modelversion_change", args=[it.version_id]
    ),
    "route": lambda _: reverse(
        "admin:registry_route_change", args=[Route.objects.get().pk]
    ),
    "route's history": lambda it: (
        reverse("admin:registry_route_history", args=[Route.objects.get().pk])
        + f"?at={it.started_at:%Y-%m-%dT%H:%M}"
    ),
    "history as JSON": lambda it: (
        f"/api/v1/models/{it.registered_model.name}/history"
        f"?at={it.started_at:%Y-%m-%dT%H:%M:%SZ}"
    ),
    "dashboard": lambda _: reverse("admin:index"),
}


def test_pages_stay_quick_with_ten_thousand_rollouts(
    client, scientist, long_history, django_assert_max_num_queries
):
    middle = long_history[5000]
    took = {}
    for page, url_of in PAGES.items():
        url = url_of(middle)
        client.get(url)
        with django_assert_max_num_queries(70):
            began = time.process_time()
            answer = client.get(url)
            took[page] = time.process_time() - began
        assert answer.status_code == 200, page

    # Each takes a fraction of this; a page that read them all would take more.
    assert max(took.values()) < 2, took


@pytest.mark.parametrize("page", ["modelversion", "route"])
def test_the_pages_of_version_and_route_list_its_rollouts(
    client, scientist, rollout, page
):
    conduct.roll_back(rollout, by=None, reason="It was too slow.")
    route = Route.objects.get()
    pk = rollout.version_id if page == "modelversion" else route.pk

    shown = client.get(reverse(f"admin:registry_{page}_change", args=[pk]))

    text = html.unescape(shown.content.decode())
    assert reverse("admin:inference_rollout_change", args=[rollout.pk]) in text
    assert "rolled back" in text
    assert "It was too slow." in text
