import pytest
from django.urls import reverse

from config.templatetags.told import told
from registry import changes
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("None", "nothing"),
        ("Deleted model version (pk=None)", "nothing"),
        ("Deleted model version (pk=12)", "model version 12, which was deleted since"),
        ("{}", "nothing"),
        ("0", "0"),
    ],
)
def test_a_former_value_is_told_in_words(value, words):
    assert told(value) == words


@pytest.mark.django_db
def test_a_history_says_who_changed_what_and_when(client):
    boss = UserFactory.create(is_staff=True, is_superuser=True)
    client.force_login(boss)
    route = RouteFactory.create()
    changes.save(route, by=None, reason="the first sync")
    route.canary_version = ModelVersionFactory.create(
        registered_model=route.registered_model
    )
    changes.save(route, by=boss, reason="started a canary")

    page = client.get(reverse("admin:registry_route_history", args=[route.pk]))

    text = " ".join(page.content.decode().split())
    assert f"UTC</a>: {boss.username} changed it: started a canary." in text
    assert "the system changed it: the first sync." in text
    assert f"from nothing to {route.canary_version}" in text
    assert "pk=" not in text


@pytest.mark.django_db
def test_what_was_done_with_a_version_is_in_its_history(client):
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    version = ModelVersionFactory.create()

    client.post(
        reverse("admin:registry_modelversion_publish", args=[version.pk]),
        {"_form_submitted": "on"},
    )

    page = client.get(
        reverse("admin:registry_modelversion_history", args=[version.pk])
    ).content.decode()
    assert f"{version} can be called by its number" in page
