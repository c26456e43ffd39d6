import time

import pytest
from axes.models import AccessAttempt
from django.core.cache import cache
from django.urls import reverse

from tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_minute(monkeypatch, settings):
    """Begin each test with no attempts counted, and stay within one minute."""
    cache.clear()
    monkeypatch.setattr(time, "time", lambda: 1_795_262_400.5)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def attempt(client, password, **extra):
    return client.post(
        reverse("admin:login"), {"username": "ann", "password": password}, **extra
    )


def test_the_right_password_signs_in(client):
    UserFactory(username="ann", is_staff=True)

    response = attempt(client, "correct horse battery staple")

    assert response.status_code == 302


def test_guessing_is_stopped_with_a_page_that_says_so(client):
    UserFactory(username="ann", is_staff=True)
    for _ in range(10):
        assert attempt(client, "guess").status_code == 200

    # Even the right one: an attacker must not learn that it was right.
    response = attempt(client, "correct horse battery staple")

    assert response.status_code == 429
    assert int(response["Retry-After"]) > 0
    assert "Too many requests" in response.content.decode()


def test_others_can_still_sign_in(client):
    UserFactory(username="ann", is_staff=True)
    for _ in range(12):
        attempt(client, "guess", REMOTE_ADDR="203.0.113.7")

    response = attempt(
        client, "correct horse battery staple", REMOTE_ADDR="203.0.113.8"
    )

    assert response.status_code == 302


def test_addresses_behind_the_gateway_are_told_apart(client):
    behind = {"REMOTE_ADDR": ""}
    for _ in range(12):
        attempt(client, "guess", HTTP_X_FORWARDED_FOR="203.0.113.7", **behind)

    # The gateway appends; what a client wrote before it does not count.
    blocked = attempt(
        client, "guess", HTTP_X_FORWARDED_FOR="1.1.1.1, 203.0.113.7", **behind
    )
    other = attempt(client, "guess", HTTP_X_FORWARDED_FOR="203.0.113.8", **behind)

    assert blocked.status_code == 429
    assert other.status_code == 200


def test_looking_at_the_login_page_is_not_counted(client):
    for _ in range(30):
        assert client.get(reverse("admin:login")).status_code == 200


def slowly(client, times, path="/admin/login/", **extra):
    """Fail to sign in as ann, too slowly for the limit per minute."""
    for _ in range(times):
        cache.clear()
        data = {"username": "ann", "password": "guess"}
        response = client.post(path, data, **extra)
    cache.clear()
    return response


def test_slow_guessing_locks_the_name_for_that_address_only(client):
    UserFactory(username="ann", is_staff=True)

    refused = slowly(client, 20, REMOTE_ADDR="203.0.113.7")
    password = "correct horse battery staple"
    guessed = attempt(client, password, REMOTE_ADDR="203.0.113.7")
    owner = attempt(client, password, REMOTE_ADDR="203.0.113.8")

    assert (refused.status_code, guessed.status_code) == (429, 429)
    assert guessed["Retry-After"] == "3600"
    assert "Too many failed sign-ins" in guessed.content.decode()
    assert owner.status_code == 302


def test_the_portal_and_the_admin_share_the_lock(client):
    UserFactory(username="ann", is_staff=True)
    slowly(client, 10)
    slowly(client, 10, "/portal/sign-in/")

    response = attempt(client, "correct horse battery staple")

    assert response.status_code == 429


def test_signing_in_forgets_the_failures_before_it(client):
    UserFactory(username="ann", is_staff=True)
    slowly(client, 19)
    attempt(client, "correct horse battery staple")
    client.logout()

    assert slowly(client, 19).status_code == 200


def test_attempts_over_the_socket_of_the_site_are_kept_by_address(client):
    slowly(client, 1, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="2001:db8::7")
    slowly(client, 1, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="no address")

    addresses = AccessAttempt.objects.values_list("ip_address", flat=True)
    assert set(addresses) == {"2001:db8::", "127.0.0.1"}


def test_addresses_of_one_network_are_one_guesser(client):
    """A household has a /64 of IPv6, and so any number of addresses."""
    UserFactory(username="ann", is_staff=True)
    quick = [
        attempt(client, "guess", REMOTE_ADDR=f"2001:db8::{number}").status_code
        for number in range(1, 12)
    ]
    elsewhere = attempt(client, "guess", REMOTE_ADDR="2001:db8:0:1::1").status_code
    assert quick == [200] * 10 + [429]
    assert elsewhere == 200

    for number in range(20, 40):
        refused = slowly(client, 1, REMOTE_ADDR=f"2001:db8::{number}")
    assert refused.status_code == 429


def test_passwords_are_not_kept_with_the_attempts(client):
    client.post(
        "/portal/sign-in/?next=/portal/%00", {"username": "ann", "password": "s3cret"}
    )

    assert "s3cret" not in str(AccessAttempt.objects.values().get())
