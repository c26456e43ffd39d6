import datetime
import re

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django.utils import timezone

from accounts.customers import api_keys
from accounts.models import ApiKey
from tests.factories import ApiKeyFactory, CustomerFactory, issue_key
from tests.factories_registry import RegisteredModelFactory

pytestmark = pytest.mark.django_db
TOKEN = re.compile(r"my_(?:live|test)_\w{12}_\w{49}")


def url(page, customer, **more):
    return reverse(f"portal:{page}", kwargs={"customer_id": customer.pk, **more})


def form(**changes):
    given = {"name": "web shop", "mode": "live", "scopes": ["predict"]}
    return given | {"allowed_models": ""} | changes


def test_a_new_key_is_shown_once_and_works(member, customer):
    for name in ("digits", "Churn Model v1.2"):
        RegisteredModelFactory(name=name)
    names = "digits\r\nChurn Model v1.2\n"
    response = member.post(
        url("keys", customer), follow=True, data=form(allowed_models=names)
    )

    tokens = set(TOKEN.findall(response.content.decode()))
    assert len(tokens) == 1
    token = tokens.pop()
    key = api_keys.recognise(token)
    assert key is not None
    assert (key.customer, key.scopes) == (customer, ["predict"])
    assert key.allowed_models == ["Churn Model v1.2", "digits"]
    assert key.created_by == customer.members.get()
    assert "no-store" in response["Cache-Control"]
    secret = token.split("_")[3]
    assert secret not in member.get(url("keys", customer)).content.decode()
    assert not [s for s in Session.objects.all() if secret in str(s.get_decoded())]


def test_a_new_key_s_page_shows_it_once_however_often_it_is_loaded(member, customer):
    made = member.post(url("keys", customer), form())
    address = made["Location"]
    sealed = [str(session.get_decoded()) for session in Session.objects.all()]

    head = member.head(address)
    first = member.get(address)
    again = member.get(address, follow=True)

    token = TOKEN.search(first.content.decode())[0]
    # Before it was shown, it was there encrypted, and the address had the key.
    assert "shown-once" in str(sealed)
    assert not [each for each in sealed if token.split("_")[3] in each]
    assert head.status_code == 302
    assert not TOKEN.search(again.content.decode())
    assert "was shown once" in again.content.decode()
    assert ApiKey.objects.count() == 1
    assert api_keys.recognise(token) is not None


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("\n".join(f"m{number}" for number in range(201)), "at most 200 models"),
        ("Churn Model v1.1", "There is no model “Churn Model v1.1”."),
        ("Churn Model v1.2\r\ndigits, iris\rv1.2", "“digits, iris”, “v1.2”"),
        ("\n".join(f"m{number}" for number in range(10, 19)), "“m14” and 4 more."),
    ],
)
def test_a_key_names_models_that_are_there_and_not_too_many(
    member, customer, names, words
):
    RegisteredModelFactory(name="Churn Model v1.2")

    response = member.post(
        url("keys", customer), follow=True, data=form(allowed_models=names)
    )

    assert response.status_code == 422
    assert words in response.content.decode()
    assert not ApiKey.objects.exists()


def test_a_test_key_is_made_and_stays_one_when_it_is_rotated(member, customer):
    response = member.post(url("keys", customer), follow=True, data=form(mode="test"))
    token = TOKEN.search(response.content.decode())[0]
    key = ApiKey.objects.get()
    path = url("rotate", customer, key_id=key.key_id)

    rotated = member.post(path, {"overlap_hours": "0"}, follow=True).content.decode()

    assert token.startswith("my_test_")
    assert TOKEN.search(rotated)[0].startswith("my_test_")
    assert {key.mode for key in ApiKey.objects.all()} == {"test"}


def test_a_key_that_expired_today_is_listed_apart_and_a_new_one_offered(
    member, customer
):
    an_hour_ago = timezone.now() - datetime.timedelta(hours=1)
    key = ApiKeyFactory.create(
        customer=customer, name="old one", expires_at=an_hour_ago
    )

    text = member.get(url("keys", customer)).content.decode()

    assert "No key works any more" in text
    assert "old one" in text.partition("Keys that have ended")[2]
    assert "expired" in text
    assert f"/{key.key_id}/rotate/" not in text
    assert "Make the key" in text


def test_a_key_may_expire(member, customer):
    member.post(url("keys", customer), follow=True, data=form(lifetime_days="30"))

    left = ApiKey.objects.get().expires_at - timezone.now()
    assert datetime.timedelta(29) < left <= datetime.timedelta(30)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"mode": ""},
        {"mode": "both"},
        {"scopes": []},
        {"scopes": ["all"]},
        {"lifetime_days": "-1"},
    ],
)
def test_a_senseless_key_is_refused_and_says_why(member, customer, change):
    response = member.post(url("keys", customer), follow=True, data=form(**change))

    assert response.status_code == 422
    assert "Error:" in response.content.decode()
    assert not ApiKey.objects.exists()


def test_a_plan_allows_only_so_many_active_keys(member, customer):
    customer.plan.max_keys = 2
    customer.plan.save()
    now = timezone.now()
    ApiKeyFactory.create(customer=customer)
    ApiKeyFactory.create(customer=customer, revoked_at=now)
    ApiKeyFactory.create(customer=customer, expires_at=now - datetime.timedelta(1))

    second = member.post(url("keys", customer), follow=True, data=form())
    third = member.post(url("keys", customer), follow=True, data=form())

    assert second.status_code == 200
    assert third.status_code == 422
    assert customer.api_keys.count() == 4
    assert "Make the key" not in member.get(url("keys", customer)).content.decode()


def test_an_inactive_customer_makes_no_keys(member, customer):
    issued = issue_key(customer)
    customer.active = False
    customer.save()

    made = member.post(url("keys", customer), follow=True, data=form())
    path = url("rotate", customer, key_id=issued.key.key_id)
    rotated = member.post(path, {"overlap_hours": "0"})

    assert (made.status_code, rotated.status_code) == (422, 302)
    assert ApiKey.objects.count() == 1


def test_rotating_asks_first_then_keeps_the_old_key_for_the_overlap(member, customer):
    issued = issue_key(customer)
    path = url("rotate", customer, key_id=issued.key.key_id)

    asked = member.get(path)
    assert asked.status_code == 200
    assert ApiKey.objects.count() == 1
    response = member.post(path, {"overlap_hours": "1"}, follow=True)

    new = api_keys.recognise(TOKEN.search(response.content.decode())[0])
    assert new is not None
    assert new.pk != issued.key.pk
    assert api_keys.recognise(issued.token) is not None
    issued.key.refresh_from_db()
    left = issued.key.expires_at - timezone.now()
    assert left <= datetime.timedelta(hours=1)


def test_rotating_again_and_again_is_no_way_around_the_plan(member, customer):
    customer.plan.max_keys = 1
    customer.plan.save()
    key = issue_key(customer).key

    for _ in range(3):
        path = url("rotate", customer, key_id=key.key_id)
        member.post(path, {"overlap_hours": "720"})
        key = customer.api_keys.order_by("-pk").first()

    assert customer.api_keys.count() == 2


def test_a_revoked_key_is_not_rotated(member, customer):
    issued = issue_key(customer)
    api_keys.revoke(issued.key)

    path = url("rotate", customer, key_id=issued.key.key_id)
    response = member.post(path, {"overlap_hours": "0"}, follow=True)

    assert "cannot be rotated" in response.content.decode()
    assert ApiKey.objects.count() == 1


def test_revoking_asks_first_then_ends_the_key(member, customer):
    issued = issue_key(customer)
    path = url("revoke", customer, key_id=issued.key.key_id)

    member.get(path)
    assert api_keys.recognise(issued.token) is not None
    response = member.post(path, follow=True)

    assert api_keys.recognise(issued.token) is None
    assert "is revoked" in response.content.decode()


@pytest.mark.parametrize("page", ["rotate", "revoke"])
def test_another_customers_key_does_not_exist(member, customer, page):
    foreign = issue_key(CustomerFactory.create())

    path = url(page, customer, key_id=foreign.key.key_id)

    assert member.get(path).status_code == 404
    assert member.post(path, {"overlap_hours": "0"}).status_code == 404
    assert api_keys.recognise(foreign.token) is not None
    assert ApiKey.objects.count() == 1
