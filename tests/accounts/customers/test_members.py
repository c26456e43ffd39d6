"""Inviting people to a customer, and what a link to set a password may do."""

import datetime
import re

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.urls import reverse

from accounts.customers import members
from tests.factories import CustomerFactory, UserFactory

pytestmark = pytest.mark.django_db
LINK = re.compile(r"https?://\S+/portal/set-password/\?link=\S+")
PRINTED = "django.core.mail.backends.console.EmailBackend"


@pytest.fixture
def customer():
    return CustomerFactory.create(name="Acme")


@pytest.fixture
def manager(client):
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name="account managers"))
    client.force_login(person)
    return client


@pytest.fixture
def _no_mail(settings):
    settings.EMAIL_BACKEND = PRINTED


def invite(client, customer, email):
    path = reverse("admin:accounts_customer_invite", args=[customer.pk])
    return client.post(path, {"email": email}, follow=True)


def secret_of(link):
    return link.partition("?link=")[2]


def test_a_new_person_gets_a_link_by_mail(manager, customer, mailoutbox):
    response = invite(manager, customer, "Mia@Example.com")

    person = customer.members.get()
    assert (person.username, person.email) == ("mia@example.com", "mia@example.com")
    assert not person.is_staff
    assert not person.has_usable_password()
    [mail] = mailoutbox
    assert mail.to == ["mia@example.com"]
    assert members.of_link(secret_of(LINK.search(mail.body)[0])) == person
    assert "a link to set a password was sent" in response.content.decode()
    assert customer.history.latest().history_change_reason == f"Invited {person}"
    assert not LINK.search(response.content.decode())


def test_a_name_of_two_lines_is_a_subject_of_one(mailoutbox):
    customer = CustomerFactory.create(name="Acme\nLtd")

    assert members.invite(customer, email="mia@example.com").mailed
    assert mailoutbox[0].subject == "Your access to Acme Ltd"


def test_two_who_invite_the_same_person_at_once_are_told(monkeypatch, customer):
    def save(self, **kwargs):
        raise IntegrityError

    monkeypatch.setattr(User, "save", save)

    with pytest.raises(ValidationError):
        members.invite(customer, email="mia@example.com")


@pytest.mark.usefixtures("_no_mail")
def test_without_a_mail_server_the_link_is_shown_once_and_not_logged(
    manager, customer, capfd, caplog
):
    text = invite(manager, customer, "mia@example.com").content.decode()

    secret = re.search(r"link=([\w.-]+)", text)[1]
    assert members.of_link(secret) == customer.members.get()
    change = reverse("admin:accounts_customer_change", args=[customer.pk])
    assert secret not in manager.get(change).content.decode()
    printed = capfd.readouterr()
    assert secret not in printed.out + printed.err + caplog.text


def test_a_mail_server_that_is_away_shows_the_link_instead(manager, customer, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1

    text = invite(manager, customer, "mia@example.com").content.decode()

    assert "No mail could be sent" in text
    assert "link=" in text


def test_who_has_a_password_is_added_and_told(manager, customer, mailoutbox):
    person = UserFactory.create(username="mia", email="mia@example.com")

    response = invite(manager, customer, "MIA@example.com")

    assert customer.members.get() == person
    assert User.objects.filter(email="mia@example.com").count() == 1
    assert "may now sign in for Acme" in response.content.decode()
    assert not LINK.search(mailoutbox[0].body)


def test_a_member_who_lost_the_password_is_given_a_link(manager, customer, mailoutbox):
    person = UserFactory.create(username="mia", email="mia@example.com")
    customer.members.add(person)

    invite(manager, customer, "mia@example.com")

    assert members.of_link(secret_of(LINK.search(mailoutbox[0].body)[0])) == person


@pytest.mark.usefixtures("_no_mail")
def test_inviting_again_ends_the_link_before(customer):
    first = members.invite(customer, email="mia@example.com").link
    second = members.invite(customer, email="mia@example.com").link

    assert members.of_link(secret_of(first)) is None
    assert members.of_link(secret_of(second)) == customer.members.get()


def _staff(person):
    person.is_staff = True
    person.save()


def _superuser(person):
    person.is_superuser = True
    person.save()


def _in_a_group(person):
    person.groups.add(Group.objects.get(name="operators"))


def _permitted(person):
    person.user_permissions.add(Permission.objects.first())


@pytest.mark.usefixtures("_no_mail")
@pytest.mark.parametrize("raise_", [_staff, _superuser, _in_a_group, _permitted])
def test_nobody_takes_over_who_has_rights_in_the_admin(manager, customer, raise_):
    person = UserFactory.create(username="boss", email="boss@example.com")
    customer.members.add(person)
    link = secret_of(members.link_for(person))
    assert members.of_link(link) == person
    raise_(person)

    shown = invite(manager, customer, "boss@example.com")

    assert "link=" not in shown.content.decode()
    # An earlier link does not work, either.
    assert members.of_link(link) is None


def test_who_is_deactivated_is_not_invited(manager, customer):
    UserFactory.create(username="mia", email="mia@example.com", is_active=False)

    response = invite(manager, customer, "mia@example.com")

    assert "deactivated" in response.content.decode()
    assert not customer.members.exists()


def test_an_address_of_several_people_names_nobody(manager, customer):
    for name in ("mia", "mia2"):
        UserFactory.create(username=name, email="mia@example.com")

    response = invite(manager, customer, "mia@example.com")

    assert "Several people" in response.content.decode()
    assert not customer.members.exists()


def test_an_address_that_is_no_name_is_made_one(customer):
    person = members.invite(customer, email="o'brien&co@example.com").person

    assert person.username == "o-brien-co@example.com"
    assert person.email == "o'brien&co@example.com"


@pytest.mark.parametrize("email", ["", "mia", "mia@", "x" * 150 + "@example.com"])
def test_what_is_no_address_invites_nobody(manager, customer, email):
    invite(manager, customer, email)

    assert not customer.members.exists()


@pytest.mark.parametrize("group", ["data scientists", "operators"])
def test_others_invite_nobody(client, customer, group):
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name=group))
    client.force_login(person)

    assert invite(client, customer, "mia@example.com").status_code == 403
    assert not customer.members.exists()


@pytest.mark.parametrize(("hours", "works"), [(71, True), (73, False)])
def test_a_link_ends_after_three_days(customer, monkeypatch, hours, works):
    person = members.invite(customer, email="mia@example.com").person
    link = secret_of(members.link_for(person))
    then = datetime.datetime.now() + datetime.timedelta(hours=hours)

    monkeypatch.setattr(PasswordResetTokenGenerator, "_now", lambda generator: then)

    assert (members.of_link(link) is not None) == works


@pytest.mark.parametrize(
    "link",
    ["", ".", "MQ", "MQ.", "MQ.x-y", "%00.x", "é.x", "OTk5OTk5OTk5OTk5.x", "x" * 9999],
)
def test_what_is_no_link_names_nobody(link):
    assert members.of_link(link) is None


def test_the_page_lists_members_and_how_they_stand(manager, customer):
    customer.members.add(UserFactory.create(username="old-hand"))
    members.invite(customer, email="mia@example.com")
    path = reverse("admin:accounts_customer_change", args=[customer.pk])

    text = manager.get(path).content.decode()

    assert "old-hand" in text
    assert "invited, has set no password yet" in text
    assert "email=mia%40example.com" in text


def test_a_member_is_removed_on_the_page(manager, customer):
    person = UserFactory.create()
    customer.members.add(person)
    row = customer.members.through.objects.get()
    path = reverse("admin:accounts_customer_change", args=[customer.pk])
    prefix = "Customer_members"

    manager.post(
        path,
        {
            "name": customer.name,
            "plan": customer.plan_id,
            "active": "on",
            "limit_overrides": "{}",
            "api_keys-TOTAL_FORMS": 0,
            "api_keys-INITIAL_FORMS": 0,
            f"{prefix}-TOTAL_FORMS": 1,
            f"{prefix}-INITIAL_FORMS": 1,
            f"{prefix}-0-id": row.pk,
            f"{prefix}-0-customer": customer.pk,
            f"{prefix}-0-DELETE": "on",
        },
    )

    assert not customer.members.exists()
    assert User.objects.filter(pk=person.pk).exists()
    latest = customer.history.latest()
    assert latest.history_change_reason == f"Removed {person.username}"


def test_forgotten_passwords_are_for_members_only(customer, mailoutbox):
    mia = UserFactory.create(email="mia@example.com")
    customer.members.add(mia)
    UserFactory.create(email="nobody@example.com")
    boss = UserFactory.create(email="boss@example.com", is_staff=True)
    customer.members.add(boss)

    for address in ("Mia@example.com", "nobody@example.com", "boss@example.com", "x@y"):
        members.send_forgotten(address)
        members.send_forgotten(address)

    # Of two in a row only the first is sent.
    [mail] = mailoutbox
    assert mail.to == ["mia@example.com"]
    assert members.of_link(secret_of(LINK.search(mail.body)[0])) == mia
