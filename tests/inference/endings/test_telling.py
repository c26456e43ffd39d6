"""Customers who called what ends are told once, by mail and in the portal."""

import contextlib
import smtplib
from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from accounts.customers import mails, notices
from accounts.models import Notice, Usage
from accounts.usage import roll_ups
from accounts.usage.grains import hour_of
from inference.endings import telling
from registry.models import Deprecation
from tests.factories import CustomerFactory
from tests.factories_registry import ModelVersionFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now().replace(second=0, microsecond=0)


@pytest.fixture
def version():
    return ModelVersionFactory.create(registered_model__name="churn", version=2)


def called(customer, *, version="2", ago_days=1, model="churn", calls=3):
    at = NOW - timedelta(days=ago_days)
    roll_ups.mark([(customer.pk, hour_of(at))])
    Usage.objects.create(
        segment="s",
        customer=customer,
        key_id=f"k{customer.pk}",
        operation="predict",
        model=model,
        version=version,
        variant="published",
        status=200,
        minute=at,
        requests=calls,
    )


def deprecate(version, *, whole=False):
    return Deprecation.objects.create(
        registered_model=version.registered_model,
        version=None if whole else version,
        ends_at=NOW + timedelta(days=60),
        use_instead="Use version 3.",
    )


def test_customers_of_the_last_30_days_are_told_those_who_call_most_first(version):
    few, many, other, long_ago, elsewhere = CustomerFactory.create_batch(5)
    called(few)
    called(many, calls=50)
    called(many, calls=50, ago_days=20)
    called(other, version="3")
    called(long_ago, ago_days=31)
    called(elsewhere, model="iris")

    of_version = telling.callers(deprecate(version), now=NOW)
    of_model = telling.callers(deprecate(version, whole=True), now=NOW)

    assert [(it.customer, it.calls) for it in of_version] == [(many, 100), (few, 3)]
    assert {it.customer for it in of_model} == {many, few, other}


def test_a_customer_gets_one_mail_and_another_only_if_something_changed(version):
    customer = CustomerFactory.create(contact_email="ops@example.com")
    CustomerFactory.create(contact_email="nobody@example.com")
    called(customer)
    deprecation = deprecate(version)

    for _ in range(2):
        assert telling.tell(deprecation, now=NOW) == 1
        notices.notify(now=NOW)

    [sent] = mail.outbox
    assert sent.to == ["ops@example.com"]
    assert sent.subject.startswith("The version 2 of the model churn ends on ")
    assert "Use version 3." in sent.body
    assert "calls that name this version get the error 410" in sent.body
    deprecation.ends_at += timedelta(days=30)
    deprecation.save()
    telling.tell(deprecation, now=NOW)
    notices.notify(now=NOW)
    assert len(mail.outbox) == 2


@pytest.fixture
def two_to_mail(version):
    for address in ("one@example.com", "two@example.com"):
        called(CustomerFactory.create(contact_email=address))
    telling.tell(deprecate(version), now=NOW)


@pytest.fixture
def fail_with(monkeypatch):
    """Let mails fail in a block; yield the addresses that were tried."""

    @contextlib.contextmanager
    def failing(error):
        tried = []

        def refuse(_subject, _message, _sender, recipient_list):
            tried.extend(recipient_list)
            raise error(recipient_list[0])

        with monkeypatch.context() as away:
            away.setattr(mails, "send_mail", refuse)
            yield tried

    return failing


def test_mails_leave_once_a_missing_server_is_back(two_to_mail, fail_with):
    with fail_with(ConnectionRefusedError) as tried:
        assert notices.notify(now=NOW) == 0

    # Each try may take as long as the server's timeout.
    assert len(tried) == 1
    assert notices.notify(now=NOW + timedelta(minutes=1)) == 2
    assert notices.notify(now=NOW + timedelta(minutes=2)) == 0


@pytest.mark.parametrize(("code", "later"), [(550, 0), (451, 2)])
def test_an_address_that_is_refused_stops_nobody_elses_mail(
    two_to_mail, fail_with, code, later
):
    def refused(address):
        return smtplib.SMTPRecipientsRefused({address: (code, b"no")})

    with fail_with(refused) as tried:
        assert notices.notify(now=NOW) == 0

    assert sorted(tried) == ["one@example.com", "two@example.com"]
    assert notices.notify(now=NOW + timedelta(minutes=1)) == later


def test_what_was_taken_back_is_told_to_nobody_any_more(version):
    called(CustomerFactory.create(contact_email="ops@example.com"))
    deprecation = deprecate(version)
    telling.tell(deprecation, now=NOW)

    telling.take_back(deprecation.pk)

    assert notices.notify(now=NOW) == 0
    assert not Notice.objects.exists()


def test_the_portal_shows_it_until_it_is_over(version):
    customer = CustomerFactory.create()
    called(customer)
    deprecation = deprecate(version)
    telling.tell(deprecation, now=NOW)

    assert notices.current(customer, now=NOW).count() == 1
    assert not notices.current(customer, now=deprecation.ends_at).exists()
