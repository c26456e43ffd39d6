"""Messages are mailed to people who want that, by a worker, once."""

from datetime import timedelta

import pytest
from django.core.mail import get_connection
from django.utils import timezone

from inference.following import inbox, mails, telling
from inference.models import Message
from inference.tasks import tell_followers
from tests.factories_registry import ModelVersionFactory
from tests.inference.following.people import scientist

pytestmark = pytest.mark.django_db


@pytest.fixture
def version():
    return ModelVersionFactory(registered_model__name="iris", version=1)


@pytest.fixture
def grace(version):
    person = scientist(follows=version.registered_model, email="grace@example.com")
    inbox.set_mail(person, wanted=True)
    return person


def add_versions(model, count=1):
    for _ in range(count):
        newest = model.versions.order_by("version").last().version
        ModelVersionFactory(registered_model=model, version=newest + 1)
        telling.look(now=timezone.now())


def test_a_message_is_mailed_once_with_a_link(version, grace, mailoutbox, settings):
    settings.MODELYARD_PUBLIC_URL = "https://models.example.com"
    ModelVersionFactory(registered_model=version.registered_model, version=2)

    tell_followers()
    tell_followers()

    [mail] = mailoutbox
    assert mail.to == ["grace@example.com"]
    assert mail.subject == "iris has a new version: v2."
    assert "https://models.example.com/admin/messages/" in mail.body


def test_several_messages_are_one_mail(version, grace, mailoutbox):
    add_versions(version.registered_model, 3)

    mails.send(now=timezone.now())

    [mail] = mailoutbox
    assert mail.subject == "3 messages about your models"
    assert mail.body.count("iris has a new version") == 3


def test_nobody_is_mailed_unless_they_wish(version, grace, mailoutbox):
    inbox.set_mail(grace, wanted=False)
    add_versions(version.registered_model)

    mails.send(now=timezone.now())

    assert inbox.unread(grace) == 1
    assert mailoutbox == []


def test_a_wish_that_ends_also_ends_what_waits(version, grace, mailoutbox):
    add_versions(version.registered_model)
    inbox.set_mail(grace, wanted=False)

    mails.send(now=timezone.now())

    assert mailoutbox == []


@pytest.mark.parametrize("facts", [{"email": ""}, {"is_active": False}])
def test_who_cannot_be_mailed_is_passed_over(version, grace, mailoutbox, facts):
    add_versions(version.registered_model)
    type(grace).objects.update(**facts)

    mails.send(now=timezone.now())

    assert mailoutbox == []
    assert not Message.objects.filter(mail_at__isnull=False).exists()


def test_a_mail_that_failed_is_sent_later(version, grace, mailoutbox, monkeypatch):
    add_versions(version.registered_model)
    now = timezone.now()
    with monkeypatch.context() as away:
        away.setattr(type(get_connection()), "send_messages", refuse)
        assert mails.send(now=now) == 0

    assert mails.send(now=now + timedelta(minutes=9)) == 0
    assert mails.send(now=now + timedelta(minutes=11)) == 1
    assert mails.send(now=now + timedelta(minutes=30)) == 0
    assert len(mailoutbox) == 1


def test_after_an_outage_of_days_one_mail_has_everything(
    version, grace, mailoutbox, monkeypatch
):
    add_versions(version.registered_model, 60)
    now = timezone.now()
    with monkeypatch.context() as away:
        away.setattr(type(get_connection()), "send_messages", refuse)
        assert mails.send(now=now) == 0

    assert mails.send(now=now + timedelta(days=3)) == 1
    assert mails.send(now=now + timedelta(days=3, minutes=11)) == 0

    [mail] = mailoutbox
    assert mail.subject == "60 messages about your models"
    assert "The newest 50 of 60 messages:" in mail.body
    assert "v61." in mail.body
    assert "v2." not in mail.body


def test_a_mail_is_given_up_after_a_week(version, grace, mailoutbox):
    add_versions(version.registered_model)

    assert mails.send(now=timezone.now() + timedelta(days=7, minutes=1)) == 0
    assert mailoutbox == []
    assert not Message.objects.filter(mail_at__isnull=False).exists()


def test_a_long_text_of_several_lines_makes_a_short_subject(grace, mailoutbox):
    Message.objects.update_or_create(
        user=grace,
        key="x",
        defaults={
            "kind": Message.Kind.TRUST,
            "registered_model": grace.follows.get().registered_model,
            "text": "first\nsecond " + "x" * 300,
            "at": timezone.now(),
            "mail_at": timezone.now(),
        },
    )

    mails.send(now=timezone.now())

    assert mailoutbox[0].subject.startswith("first second xxx")
    assert len(mailoutbox[0].subject) == 100


def refuse(self, messages):
    raise ConnectionRefusedError("the mail server is away")
