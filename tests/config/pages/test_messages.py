"""The bell counts messages, and its page shows them."""

import re

import pytest
from django.urls import reverse
from django.utils import timezone

from inference.following import inbox, telling
from inference.models import Message
from tests.factories_registry import ModelVersionFactory
from tests.inference.following.people import scientist

pytestmark = pytest.mark.django_db


@pytest.fixture
def version():
    return ModelVersionFactory(registered_model__name="iris", version=1)


@pytest.fixture
def grace(client, version):
    person = scientist(follows=version.registered_model, email="grace@example.com")
    client.force_login(person)
    return person


def add_version(version, number):
    ModelVersionFactory(registered_model=version.registered_model, version=number)
    telling.look(now=timezone.now())


def bell(client):
    page = client.get(reverse("admin:index")).content.decode()
    return re.search(r'aria-label="(Messages[^"]*)"', page)[1]


def test_the_bell_counts_what_is_unread(client, grace, version):
    assert bell(client) == "Messages"

    add_version(version, 2)
    add_version(version, 3)
    assert bell(client) == "Messages: 2 unread"


def test_opening_a_message_reads_it_and_leads_to_what_it_is_about(
    client, grace, version
):
    add_version(version, 2)
    page = client.get(reverse("messages")).content.decode()
    assert "iris has a new version: v2." in page
    [message] = Message.objects.all()

    answer = client.post(reverse("message", args=[message.pk]))

    newest = version.registered_model.versions.get(version=2)
    url = reverse("admin:registry_modelversion_change", args=[newest.pk])
    assert answer.url == f"{url}#why"
    assert bell(client) == "Messages"


def test_all_that_was_shown_is_read_but_not_what_came_since(client, grace, version):
    add_version(version, 2)
    page = client.get(reverse("messages")).content.decode()
    [newest] = re.findall(r'name="newest" value="(\d+)"', page)
    add_version(version, 3)

    client.post(reverse("messages-read"), {"newest": newest})

    assert inbox.unread(grace) == 1


def test_a_stranger_s_message_cannot_be_opened(client, grace, version):
    add_version(version, 2)
    [message] = Message.objects.all()
    client.force_login(scientist("ada"))

    assert client.post(reverse("message", args=[message.pk])).status_code == 404
    assert inbox.unread(grace) == 1
    assert "iris" not in client.get(reverse("messages")).content.decode()


def test_a_person_may_wish_mail(client, grace):
    assert not inbox.wants_mail(grace)

    page = client.post(reverse("messages-by-mail"), {"wanted": "yes"}, follow=True)
    assert "mailed to grace@example.com" in page.content.decode()
    assert inbox.wants_mail(grace)

    client.post(reverse("messages-by-mail"), {"wanted": "no"})
    assert not inbox.wants_mail(grace)


def test_mail_needs_an_address(client, grace):
    grace.email = ""
    grace.save()

    page = client.post(reverse("messages-by-mail"), {"wanted": "yes"}, follow=True)

    assert "no e-mail address" in page.content.decode()
    assert not inbox.wants_mail(grace)


@pytest.mark.parametrize("name", ["messages-read", "messages-by-mail"])
def test_reading_a_page_changes_nothing(client, grace, version, name):
    add_version(version, 2)

    assert client.get(reverse("messages")).status_code == 200
    assert client.get(reverse(name)).status_code == 405
    assert inbox.unread(grace) == 1


def test_strangers_sign_in_first(client):
    assert client.get(reverse("messages")).status_code == 302


def test_many_messages_have_pages(client, grace, version):
    for number in range(60):
        fact = telling.Fact(
            key=str(number),
            kind=Message.Kind.TRUST,
            text=f"message {number}.",
            at=timezone.now(),
            model=version.registered_model,
        )
        telling.tell(fact, [grace])

    first = client.get(reverse("messages")).content.decode()
    last = client.get(reverse("messages"), {"page": "2"}).content.decode()

    assert "message 59." in first
    assert "message 0." not in first
    assert "message 0." in last
