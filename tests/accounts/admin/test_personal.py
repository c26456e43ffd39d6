import re

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse

from accounts.customers import api_keys, personal_keys
from accounts.models import ApiKey
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db
TOKEN = re.compile(r"my_test_\w{12}_\w{49}")


@pytest.fixture
def scientist(client):
    person = UserFactory.create(username="ada", is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return person


def do(client, what):
    return client.post(reverse("my-key"), {"do": what}, follow=True)


def test_a_key_is_made_and_its_token_shown_once(client, scientist):
    response = do(client, "make")

    token = TOKEN.search(response.content.decode())[0]
    assert api_keys.recognise(token).created_by == scientist
    assert "no-store" in response["Cache-Control"]
    assert not TOKEN.search(client.get(response.request["PATH_INFO"]).content.decode())


def test_looking_makes_no_key(client, scientist):
    assert "Make a key" in client.get(reverse("my-key")).content.decode()
    assert not ApiKey.objects.exists()


def test_a_key_is_rotated_and_revoked(client, scientist):
    do(client, "make")
    token = TOKEN.search(do(client, "rotate").content.decode())[0]
    key = api_keys.recognise(token)
    assert personal_keys.current(scientist) == key

    text = do(client, "revoke").content.decode()

    assert api_keys.recognise(token) is None
    assert "Your keys are revoked" in text
    assert "Make a key" in text
    assert key.history.first().history_user == scientist


def test_what_cannot_be_done_is_said(client, scientist):
    assert "no key that could be rotated" in do(client, "rotate").content.decode()


def test_a_page_gets_a_key(client, scientist):
    answer = client.post(reverse("key-for-a-page"))

    assert api_keys.recognise(answer.json()["token"]).created_by == scientist
    assert client.get(reverse("key-for-a-page")).status_code == 405


def test_who_may_not_see_models_has_neither_page_nor_link(client):
    client.force_login(UserFactory.create(is_staff=True))

    assert client.get(reverse("my-key")).status_code == 403
    assert client.post(reverse("key-for-a-page")).status_code == 403
    assert reverse("my-key") not in client.get("/admin/").content.decode()


def test_the_own_menu_leads_to_the_key(client, scientist):
    text = client.get("/admin/").content.decode()

    assert reverse("my-key") in text
    assert reverse("admin:password_change") in text
