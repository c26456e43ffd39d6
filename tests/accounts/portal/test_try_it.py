import datetime
import re

import pytest
from django.urls import reverse
from django.utils import timezone

from accounts.customers import api_keys
from accounts.models import ApiKey
from tests.factories import CustomerFactory, UserFactory, issue_key

pytestmark = pytest.mark.django_db
TOKEN = re.compile(r"my_test_\w{12}_\w{49}")


def path(customer):
    return reverse("portal:try", args=[customer.pk])


def make(client, customer):
    found = TOKEN.search(client.post(path(customer), follow=True).content.decode())
    return found and found[0]


def test_a_key_in_test_mode_is_made_for_an_hour(member, customer):
    response = member.post(path(customer), follow=True)

    token = TOKEN.search(response.content.decode())[0]
    key = api_keys.recognise(token)
    assert key.customer == customer
    assert key.mode == "test"
    assert key.scopes == ["predict", "explain", "models:read"]
    left = key.expires_at - timezone.now()
    assert datetime.timedelta(minutes=59) < left <= datetime.timedelta(hours=1)
    assert "no-store" in response["Cache-Control"]


def test_looking_makes_no_key(member, customer):
    text = member.get(path(customer)).content.decode()

    assert "Use a test key" in text
    assert not ApiKey.objects.exists()


def test_another_key_ends_the_one_before_and_nobody_elses(member, customer):
    other = UserFactory.create(username="other")
    customer.members.add(other)
    own = issue_key(customer, mode="test", name="ci")
    first = make(member, customer)

    second = make(member, customer)
    member.force_login(other)
    third = make(member, customer)

    assert api_keys.recognise(first) is None
    for token in (second, third, own.token):
        assert api_keys.recognise(token) is not None


def test_the_plan_s_limit_on_keys_holds_here_too(member, customer):
    customer.plan.max_keys = 1
    customer.plan.save()
    first = make(member, customer)

    # One's own is replaced, so it does not stand in its own way.
    second = make(member, customer)
    api_keys.revoke(api_keys.recognise(second))
    issue_key(customer)
    refused = member.post(path(customer))

    assert first != second
    assert refused.status_code == 422
    assert "Revoke one first" in refused.content.decode()
    assert "Use a test key" not in member.get(path(customer)).content.decode()


@pytest.mark.parametrize(
    "change", [{"active": False}, {"limit_overrides": {"max_keys": 0}}]
)
def test_who_may_make_no_keys_pastes_one(member, customer, change):
    for name, value in change.items():
        setattr(customer, name, value)
    customer.save()

    text = member.get(path(customer)).content.decode()

    assert make(member, customer) is None
    assert "Use a test key" not in text
    assert 'id="try-key"' in text


def test_nobody_makes_a_key_of_another_customer(member, customer):
    foreign = CustomerFactory.create()

    assert member.post(path(foreign)).status_code == 404
    assert not ApiKey.objects.exists()
