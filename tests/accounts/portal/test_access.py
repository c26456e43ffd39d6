import time

import pytest
from django.core.cache import cache
from django.urls import reverse

from accounts.portal import urls
from tests.factories import CustomerFactory, UserFactory, issue_key

pytestmark = pytest.mark.django_db

# Every page about a customer, from the URL table itself, so that none is forgotten.
PAGES = [
    pattern.name
    for pattern in urls.urlpatterns
    if "customer_id" in str(pattern.pattern)
]


def address(name, customer):
    key_id = customer.api_keys.get().key_id
    kwargs = {"customer_id": customer.pk}
    if name in ("rotate", "revoke", "issued"):
        kwargs["key_id"] = key_id
    return reverse(f"portal:{name}", kwargs=kwargs)


@pytest.fixture
def customer(customer):
    issue_key(customer)
    return customer


def test_there_are_pages():
    assert {"overview", "keys", "rotate", "revoke", "refusals"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_member_opens_every_page_and_no_cache_keeps_it(member, customer, name):
    response = member.get(address(name, customer))

    # There is no new key to show.
    assert response.status_code == (302 if name == "issued" else 200)
    assert "no-store" in response["Cache-Control"]
    policy = response["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("name", PAGES)
def test_a_stranger_is_asked_to_sign_in_first(client, customer, name):
    path = address(name, customer)

    for response in (client.get(path), client.post(path)):
        assert response.status_code == 302
        assert response["Location"].startswith("/portal/sign-in/?next=")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("who", ["member of another", "superuser"])
def test_to_everybody_else_a_customer_does_not_exist(client, customer, name, who):
    person = UserFactory.create(is_staff=True, is_superuser=who == "superuser")
    CustomerFactory.create().members.add(person)
    client.force_login(person)

    assert client.get(address(name, customer)).status_code == 404
    assert client.post(address(name, customer)).status_code == 404
    assert customer.api_keys.get().revoked_at is None


@pytest.mark.parametrize("name", ["overview", "refusals", "export"])
def test_pages_to_read_cannot_be_posted_to(member, customer, name):
    assert member.post(address(name, customer)).status_code == 405


@pytest.mark.parametrize("number", ["0", "9" * 30, "-1", "abc", "%00"])
def test_addresses_that_name_nothing_are_not_failures(member, number):
    assert member.get(f"/portal/{number}/").status_code == 404


# Signing in


@pytest.fixture
def _fresh_minute(monkeypatch):
    cache.clear()
    monkeypatch.setattr(time, "time", lambda: 1_795_262_400.5)


def sign_in(client, password="correct horse battery staple", **data):
    form = {"username": "mia", "password": password} | data
    return client.post("/portal/sign-in/", form)


def test_the_right_password_leads_to_the_page_that_was_asked_for(client, customer):
    path = address("keys", customer)

    assert sign_in(client)["Location"] == "/portal/"
    client.logout()
    assert sign_in(client, next=path)["Location"] == path
    client.logout()
    assert sign_in(client, next="https://evil.example/")["Location"] == "/portal/"


def test_a_wrong_password_says_so(client, customer):
    response = sign_in(client, "guess")

    assert 'role="alert"' in response.content.decode()


@pytest.mark.usefixtures("_fresh_minute")
def test_guessing_is_stopped(client, customer):
    for _ in range(10):
        assert sign_in(client, "guess").status_code == 200

    response = sign_in(client)

    assert response.status_code == 429
    assert int(response["Retry-After"]) > 0


def test_signing_out_ends_the_session(member, customer):
    member.post("/portal/sign-out/")

    assert member.get(address("overview", customer)).status_code == 302
