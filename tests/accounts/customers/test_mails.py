"""A mail that cannot leave stops nothing."""

import smtplib

import pytest
from django.core import mail

from accounts.customers import mails


def send(to="ada@example.com", subject="Hello"):
    return mails.send(to, subject=subject, message="It is done.\n", customer_id=7)


def test_a_mail_leaves_with_a_subject_of_one_line(mailoutbox):
    assert send(subject="Your access\nto Acme") == 1

    [sent] = mailoutbox
    assert (sent.subject, sent.to) == ("Your access to Acme", ["ada@example.com"])


@pytest.mark.parametrize("to", ["ada@exam\nple.com", "ada@example.com, \r\n eve@x"])
def test_an_address_that_no_server_takes_stops_nothing(to, mailoutbox):
    assert send(to) == 0
    assert mailoutbox == []


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("refused"),
        TimeoutError("timed out"),
        smtplib.SMTPRecipientsRefused({"ada@example.com": (550, b"no")}),
        smtplib.SMTPServerDisconnected("gone"),
        UnicodeEncodeError("ascii", "ä", 0, 1, "no"),
    ],
)
def test_a_mail_server_that_fails_stops_nothing(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(mail.EmailMessage, "send", fail)

    assert send() == 0
