"""Signing in for the first time, changing a password, and recovering a lost one."""

import re
import time

import pytest
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client
from kombu.exceptions import OperationalError

from accounts import tasks
from accounts.customers import members
from tests.factories import CustomerFactory, UserFactory

pytestmark = pytest.mark.django_db
ACCOUNT = "/portal/account/"
SET = "/portal/set-password/"
OLD = "correct horse battery staple"
NEW = "a rather long new password"


@pytest.fixture
def _fresh_minute(monkeypatch):
    cache.clear()
    monkeypatch.setattr(time, "time", lambda: 1_795_262_400.5)


def change(client, *, old=OLD, new=NEW, again=NEW):
    return client.post(
        ACCOUNT, {"old_password": old, "new_password1": new, "new_password2": again}
    )


def set_password(client, new=NEW):
    return client.post(SET, {"new_password1": new, "new_password2": new})


@pytest.fixture
def link(settings, customer):
    """Invite a person without mail; return the path of their link."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    made = members.invite(customer, email="ann@example.com").link
    return made.removeprefix(settings.MODELYARD_PUBLIC_URL)


# Changing


def test_a_changed_password_ends_every_other_session(member, customer):
    elsewhere = Client()
    elsewhere.force_login(customer.members.get())

    response = change(member)

    assert response["Location"] == ACCOUNT
    assert "Your password is changed" in member.get(ACCOUNT).content.decode()
    assert elsewhere.get(ACCOUNT).status_code == 302
    assert customer.members.get().check_password(NEW)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"old": "guess"}, "entered incorrectly"),
        ({"again": "another"}, "match"),
        ({"new": "12345678", "again": "12345678"}, "too common"),
        ({"new": "short", "again": "short"}, "too short"),
        ({"new": "", "again": ""}, "required"),
    ],
)
def test_a_senseless_change_is_refused_and_says_why(member, customer, given, words):
    response = change(member, **given)

    assert response.status_code == 422
    assert words in response.content.decode()
    assert customer.members.get().check_password(OLD)


@pytest.mark.usefixtures("_fresh_minute")
def test_the_old_password_cannot_be_guessed_from_an_open_session(member):
    for _ in range(10):
        assert change(member, old="guess").status_code == 422

    assert change(member).status_code == 429


def test_a_stranger_signs_in_first(client):
    assert client.get(ACCOUNT)["Location"] == f"/portal/sign-in/?next={ACCOUNT}"


@pytest.mark.parametrize(
    ("leads_to", "expected"),
    [
        ("/portal/sign-in/", "/portal/"),
        ("//evil.example", "/portal/"),
        (ACCOUNT, ACCOUNT),
    ],
)
def test_who_is_signed_in_is_led_on_and_never_in_a_circle(member, leads_to, expected):
    response = member.get("/portal/sign-in/", {"next": leads_to})

    assert response.status_code == 302
    assert response["Location"] == expected


# By a link


def test_an_invited_person_sets_a_password_and_is_in(client, link, customer):
    moved = client.get(link)
    assert moved["Location"] == SET
    page = client.get(SET)
    response = set_password(client)

    assert "ann@example.com" in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    assert page["Referrer-Policy"] == "same-origin"
    assert response["Location"] == "/portal/"
    assert client.get(f"/portal/{customer.pk}/").status_code == 200
    person = customer.members.get(username="ann@example.com")
    assert person.check_password(NEW)


def test_a_link_works_once(client, link):
    client.get(link)
    set_password(client)

    again = Client()
    again.get(link)
    response = again.get(SET)

    assert response.status_code == 410
    assert "This link has ended" in response.content.decode()
    assert set_password(again, "another good password").status_code == 410


@pytest.mark.parametrize("made_up", ["", "x" * 8000, "MQ.x-y", "MQ.\0"])
def test_a_made_up_link_has_ended_and_leaves_no_session(client, made_up):
    before = Session.objects.count()

    response = client.get(SET, {"link": made_up})

    assert response.status_code == 410
    assert "This link has ended" in response.content.decode()
    assert Session.objects.count() == before


def test_looking_at_a_link_does_not_use_it_up(link):
    for _ in range(3):
        visitor = Client()
        visitor.get(link)
        assert visitor.get(SET).status_code == 200


def test_a_weak_password_is_refused_and_the_link_still_works(client, link):
    client.get(link)

    assert set_password(client, "12345678").status_code == 422
    assert set_password(client).status_code == 302


def test_a_new_password_ends_sessions_and_the_lock_on_guessing(
    client, customer, settings
):
    mia = customer.members.get()
    elsewhere = Client()
    elsewhere.force_login(mia)
    for _ in range(20):
        cache.clear()
        client.post("/portal/sign-in/", {"username": "mia", "password": "guess"})
    cache.clear()
    locked = client.post("/portal/sign-in/", {"username": "mia", "password": OLD})

    client.get(members.link_for(mia).removeprefix(settings.MODELYARD_PUBLIC_URL))
    set_password(client)
    client.post("/portal/sign-out/")
    response = client.post("/portal/sign-in/", {"username": "mia", "password": NEW})

    assert locked.status_code == 429
    assert response.status_code == 302
    assert elsewhere.get(ACCOUNT).status_code == 302


def test_the_lock_says_how_long_it_lasts_and_what_helps(client):
    for _ in range(20):
        cache.clear()
        response = client.post(
            "/portal/sign-in/", {"username": "mia", "password": "guess"}
        )

    text = response.content.decode()
    assert response.status_code == 429
    assert "for an hour" in text
    assert 'href="/portal/sign-in/">Back to sign in' in text
    assert "a link to set a new password" in text


# Forgotten


def ask(client, email="ann@example.com"):
    return client.post("/portal/forgotten/", {"email": email})


@pytest.fixture
def queued(monkeypatch):
    """Collect the tasks that workers get."""
    asked = []
    monkeypatch.setattr(
        tasks.send_forgotten, "apply_async", lambda args, retry: asked.append(args)
    )
    return asked


def test_the_answer_is_the_same_whether_an_address_is_known(client, queued):
    customer = CustomerFactory.create()
    customer.members.add(UserFactory.create(email="ann@example.com"))

    texts = {
        re.sub(r'value="\w{64}"', "", ask(client, email).content.decode())
        for email in ("ann@example.com", "nobody@example.com")
    }

    assert len(texts) == 1
    assert "on its way" in texts.pop()
    assert queued == [("ann@example.com",), ("nobody@example.com",)]


def test_the_worker_sends_the_link(customer, client, mailoutbox):
    customer.members.update(email="mia@example.com")

    tasks.send_forgotten("mia@example.com")
    link = re.search(r"/portal/set-password/\?link=\S+", mailoutbox[0].body)[0]
    client.get(link)

    assert set_password(client)["Location"] == "/portal/"


def test_a_broker_that_is_away_breaks_nothing(client, monkeypatch):
    def refuse(args, retry):
        raise OperationalError

    monkeypatch.setattr(tasks.send_forgotten, "apply_async", refuse)

    assert ask(client).status_code == 200


def test_where_no_mail_is_sent_nothing_is_promised(client, settings, queued):
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"

    signing_in = client.get("/portal/sign-in/").content.decode()
    response = ask(client)

    assert "Forgot your password?" not in signing_in
    assert "sends no mail" in response.content.decode()
    assert queued == []


@pytest.mark.usefixtures("_fresh_minute")
def test_asking_again_and_again_is_stopped(client, queued):
    for _ in range(10):
        assert ask(client).status_code == 200

    assert ask(client).status_code == 429
