import pytest
from django.core import mail
from django.core.mail import send_mail

from config.monitoring import mails
from inference.metrics.counts import Counts


@pytest.fixture
def here(monkeypatch, settings):
    settings.EMAIL_BACKEND = "config.monitoring.mails.CountedBackend"
    settings.MAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    found = Counts()
    monkeypatch.setattr(mails, "HERE", found)
    return found


def send():
    return send_mail("Hello", "text", "a@example.com", ["b@example.com"])


def test_mails_that_are_sent_are_counted(here):
    assert send() == 1

    assert [message.subject for message in mail.outbox] == ["Hello"]
    assert {it.labels: it.value for it in here.numbers()} == {
        ("sent",): 1,
        ("failed",): 0,
    }


def test_a_mail_that_fails_is_counted_and_the_reason_raised(here, settings):
    settings.MAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1

    with pytest.raises(OSError, match="refused"):
        send()

    assert {it.labels: it.value for it in here.numbers()} == {
        ("sent",): 0,
        ("failed",): 1,
    }
