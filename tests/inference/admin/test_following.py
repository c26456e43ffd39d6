"""People follow models and ask for trust in the admin."""

import html
import re

import pytest
from django.urls import reverse

from inference.following import followers, trust
from inference.models import TrustRequest
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory
from tests.inference.following.people import scientist, told

pytestmark = pytest.mark.django_db


@pytest.fixture
def grace(client):
    person = scientist()
    client.force_login(person)
    return person


@pytest.fixture
def version():
    return ModelVersionFactory(
        registered_model__name="iris", flavors=["python_function", "sklearn"]
    )


def page_of(client, row):
    url = reverse(f"admin:registry_{row._meta.model_name}_change", args=[row.pk])
    return html.unescape(client.get(url).content.decode())


def act(client, row, action, **fields):
    url = reverse(f"admin:registry_{row._meta.model_name}_{action}", args=[row.pk])
    return client.post(url, {"_form_submitted": "on", **fields}, follow=True)


def buttons(page):
    return set(re.findall(r"\b(Follow|Unfollow|Ask for trust)\b(?=\s*<)", page))


def test_a_person_follows_and_unfollows_a_model(client, grace, version):
    model = version.registered_model
    assert buttons(page_of(client, model)) == {"Follow", "Ask for trust"}

    act(client, model, "follow")
    assert followers.is_following(model, grace)
    assert "Unfollow" in buttons(page_of(client, model))

    act(client, model, "unfollow")
    assert not followers.is_following(model, grace)
    assert "Follow" in buttons(page_of(client, model))


@pytest.mark.parametrize("of", ["model", "version"])
def test_trust_is_asked_for_once_and_the_pages_say_so(client, grace, version, of):
    boss = UserFactory(is_staff=True, is_superuser=True)
    model = version.registered_model
    row = model if of == "model" else version
    assert "Ask for trust" in buttons(page_of(client, row))

    act(client, row, "ask_for_trust")
    act(client, row, "ask_for_trust")

    assert TrustRequest.objects.get().asked_by == grace
    assert len(told(boss)) == 1
    for each in (model, version):
        page = page_of(client, each)
        assert "grace asked for trust at" in page
        assert "Ask for trust" not in buttons(page)


def test_who_may_trust_is_not_asked_to_ask(client, version):
    client.force_login(UserFactory(is_staff=True, is_superuser=True))

    assert "Ask for trust" not in buttons(page_of(client, version.registered_model))


def test_a_model_that_needs_no_trust_offers_no_request(client, grace):
    program = ModelVersionFactory(registered_model__trusted=True)

    assert "Ask for trust" not in buttons(page_of(client, program.registered_model))
    assert "Ask for trust" not in buttons(page_of(client, program))


def test_who_may_not_move_routes_cannot_ask(client, version):
    person = scientist()
    person.groups.clear()
    client.force_login(person)

    url = reverse("admin:registry_modelversion_ask_for_trust", args=[version.pk])

    assert client.post(url, {"_form_submitted": "on"}).status_code == 403
    assert trust.request_of(version.registered_model) is None
