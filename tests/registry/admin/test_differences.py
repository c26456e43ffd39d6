"""Dialogs and pages show what callers would notice before anybody clicks."""

import html

import msgspec
import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse
from django.utils import timezone

from accounts.usage import recording
from inference.models import Rollout
from registry import routes
from registry.models import Route
from registry.schema_gate import Override
from tests.accounts.quotas.test_leases import event
from tests.factories import ApiKeyFactory, UserFactory
from tests.factories_registry import (
    ModelVersionFactory,
    RouteFactory,
    breaking_version,
)

pytestmark = pytest.mark.django_db

GONE = "Column height: is gone; it was float."
FIELD = 'name="override_reason"'
REASON = "All customers agreed on Monday. " * 10
ACTIONS = {
    "make_default": {},
    "start_canary": {"weight_percent": 10},
    "start_rollout": {},
}


@pytest.fixture
def route():
    return RouteFactory()


@pytest.fixture
def version(route):
    return breaking_version(route)


@pytest.fixture
def scientist(client):
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return person


@pytest.fixture
def administrator(client):
    person = User.objects.create_superuser("ada", password=None)
    client.force_login(person)
    return person


def url_of(action, version):
    return reverse(f"admin:registry_modelversion_{action}", args=[version.pk])


def text(response):
    return html.unescape(response.content.decode())


def submit(client, url, **fields):
    return client.post(url, {"_form_submitted": "on", **fields}, follow=True)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_data_scientist_sees_every_difference_and_is_refused(
    action, client, scientist, version
):
    dialog = text(client.get(url_of(action, version)))
    page = text(
        submit(
            client, url_of(action, version), override_reason=REASON, **ACTIONS[action]
        )
    )

    assert GONE in dialog
    assert "breaking" in dialog
    assert "Nobody called the model in the last 30 days." in dialog
    assert "An administrator can override this" in dialog
    assert FIELD not in dialog
    assert GONE in page
    route = Route.objects.get()
    assert version not in (route.default_version, route.canary_version)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_administrator_gives_the_reason_in_the_dialog(
    action, client, administrator, version
):
    dialog = text(client.get(url_of(action, version)))
    without = submit(client, url_of(action, version), **ACTIONS[action])
    before = Route.objects.get()
    submit(client, url_of(action, version), override_reason=REASON, **ACTIONS[action])

    assert FIELD in dialog
    assert FIELD in text(without)
    assert version not in (before.default_version, before.canary_version)
    route = Route.objects.get()
    assert version in (route.default_version, route.canary_version)
    reason = route.history.latest().history_change_reason
    assert reason.endswith(REASON.strip())


@pytest.mark.parametrize("action", ACTIONS)
def test_nobody_is_asked_for_a_reason_where_none_is_needed(
    action, client, administrator, route
):
    same = ModelVersionFactory(registered_model=route.registered_model)

    dialog = text(client.get(url_of(action, same)))

    assert "notice no difference" in dialog
    assert FIELD not in dialog
    assert "called the model" not in dialog


def test_who_called_the_model_is_named_before_the_click(client, scientist, version):
    key = ApiKeyFactory.create(name="prod")
    call = event(key.customer, 1)
    called = msgspec.structs.replace(
        call,
        key_id=key.key_id,
        model=version.registered_model.name,
        at=timezone.now().timestamp() - 60,
    )
    recording.record("boot-1.spool", [called], 9)

    dialog = text(client.get(url_of("make_default", version)))
    page = text(submit(client, url_of("make_default", version)))

    said = f"In the last 30 days 1 key called the model: {key.customer} (key prod)."
    assert said in dialog
    assert said in page


def test_promoting_a_canary_by_hand_asks_again(client, administrator, version):
    route = routes.start_canary(
        version, weight_percent=10, by=administrator, override=Override("Agreed.")
    )
    url = reverse("admin:registry_route_promote_canary", args=[route.pk])

    dialog = text(client.get(url))
    submit(client, url, canary=version.pk, override_reason="Agreed again.")

    assert GONE in dialog
    route.refresh_from_db()
    assert route.default_version == version
    assert "Agreed again." in route.history.latest().history_change_reason


def test_the_page_of_a_version_shows_additive_differences_too(client, scientist, route):
    default = route.default_version
    more = ModelVersionFactory(
        registered_model=route.registered_model,
        metadata={**default.metadata, "labels": ["small", "large", "huge"]},
    )

    page = text(
        client.get(reverse("admin:registry_modelversion_change", args=[more.pk]))
    )
    own = text(
        client.get(reverse("admin:registry_modelversion_change", args=[default.pk]))
    )

    assert "Label huge: is new; the labels were small, large." in page
    assert "It breaks no caller" in page
    assert "It is the default." in own


def test_a_rollout_keeps_the_override_for_its_promotion(
    client, administrator, version, route
):
    submit(client, url_of("start_rollout", version), override_reason=REASON)

    assert Rollout.objects.get().override_reason == REASON.strip()


def route_fields(client, route):
    """Return what the form of a route would send unchanged."""
    url = reverse("admin:registry_route_change", args=[route.pk])
    form = client.get(url).context["adminform"].form
    values = {
        name: form.get_initial_for_field(f, name) for name, f in form.fields.items()
    }
    values |= {"input_rules": "", "batching": "", "fallback_answer": ""}
    return url, {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize("field", ["default_version", "canary_version"])
def test_the_form_of_a_route_refuses_a_breaking_version(
    field, client, scientist, route, version
):
    url, fields = route_fields(client, route)

    page = text(client.post(url, {**fields, field: version.pk}))

    assert GONE in page
    assert FIELD not in page
    assert not Route.objects.filter(**{field: version}).exists()


@pytest.mark.parametrize("field", ["default_version", "canary_version"])
def test_the_form_of_a_route_takes_the_reason_of_an_administrator(
    field, client, administrator, route, version
):
    url, fields = route_fields(client, route)

    page = text(client.post(url, {**fields, field: version.pk}))
    client.post(url, {**fields, field: version.pk, "override_reason": REASON})

    assert GONE in page
    assert FIELD in page
    assert Route.objects.filter(**{field: version}).exists()
    reason = route.history.latest().history_change_reason
    assert reason.endswith(REASON.strip())
