import csv
import io

import msgspec
import pytest
from django.urls import reverse
from django.utils import timezone

from accounts.customers import api_keys, changes
from accounts.quotas import soft_limits
from accounts.usage import recording
from tests.accounts.quotas.test_leases import event
from tests.accounts.usage.test_refused_calls import refused
from tests.factories import CustomerFactory, UserFactory, issue_key

pytestmark = pytest.mark.django_db


def page(client, customer, name="overview", **query):
    path = reverse(f"portal:{name}", args=[customer.pk])
    return client.get(path, query)


def test_the_portal_leads_to_the_members_customer(member, customer):
    response = member.get("/portal/")

    assert response["Location"] == f"/portal/{customer.pk}/"


def test_who_belongs_to_no_customer_is_told_so(client):
    client.force_login(UserFactory.create())

    assert "No customer yet" in client.get("/portal/").content.decode()


def test_the_first_day_has_hints_instead_of_charts(member, customer):
    text = page(member, customer).content.decode()

    assert "Start here" in text
    assert "No calls in the last 30 days" in text
    assert "No call was refused" in text
    assert "<svg" not in text


def test_usage_is_shown_by_day_model_and_key(member, customer):
    key = issue_key(customer, name="web shop").key
    call = msgspec.structs.replace(
        event(customer, 3, at=timezone.now()), key_id=key.key_id
    )
    recording.record("b-1.spool", [call], 1)

    text = page(member, customer, days=7).content.decode()

    assert "<svg" in text
    assert "digits" in text
    assert "web shop" in text
    assert "3 of 10 rows" in text


def test_keys_of_one_name_are_told_apart(member, customer):
    old = issue_key(customer, name="web shop").key
    new = api_keys.rotate(old).key
    other = issue_key(customer, name="app").key
    now = timezone.now()
    calls = [
        msgspec.structs.replace(event(customer, 1, at=now), key_id=key.key_id)
        for key in (old, new, other)
    ]
    recording.record("b-1.spool", calls, 1)

    names = {row["name"] for row in page(member, customer).context["keys"]}

    assert names == {f"web shop ({old.key_id})", f"web shop ({new.key_id})", "app"}


def test_of_many_keys_those_used_most_are_shown(member, customer):
    now = timezone.now()
    calls = [
        msgspec.structs.replace(event(customer, 1, at=now), key_id=f"key{number:02}")
        for number in range(12)
        for _ in range(1 + number)
    ]
    recording.record("b-1.spool", calls, 1)

    text = page(member, customer).content.decode()

    assert "key11" in text
    assert "key02" in text
    assert "key01" not in text
    assert "and 2 more in the CSV file" in text


PAGES = ["overview", "keys", "refusals", "try"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (7, ()),
        (8, ("More than 80 % of today’s quota of 10 rows", "midnight UTC, in")),
        (10, ("All of today’s quota of 10 rows is used", "Calls are refused until")),
    ],
)
def test_a_banner_on_every_page_warns_before_and_when_a_quota_is_spent(
    member, customer, rows, words
):
    now = timezone.now()
    recording.record("b-1.spool", [event(customer, rows, at=now)], 1)
    soft_limits.look(now=now)

    for name in PAGES:
        text = page(member, customer, name).content.decode()

        assert ("For a larger plan" in text) == bool(words)
        for word in words:
            assert word in text


def test_a_banner_goes_with_a_larger_plan_and_comes_back_when_that_runs_low(
    member, customer
):
    now = timezone.now()
    recording.record("b-1.spool", [event(customer, 10, at=now)], 1)
    soft_limits.look(now=now)
    customer.plan.daily_quota = 20
    customer.plan.save()

    soft_limits.look(now=now)
    assert "quota of" not in page(member, customer, "keys").content.decode()
    recording.record("b-2.spool", [event(customer, 7, at=now)], 1)
    soft_limits.look(now=now)

    text = page(member, customer, "keys").content.decode()
    assert "More than 80 % of today’s quota of 20 rows" in text


def test_every_quota_has_a_bar_and_says_in_words_when_it_resets(member, customer):
    customer.plan.further_quotas = {
        "day": {"compute_ms": 4000},
        "month": {"shap_samples": 500},
    }
    customer.plan.save()
    call = msgspec.structs.replace(
        event(customer, 3, at=timezone.now()),
        compute_us=1_000_000,
        total_us=1_000_000,
        shap_samples=100,
    )
    recording.record("b-1.spool", [call], 1)

    text = page(member, customer).content.decode()

    for words in (
        "3 of 10 rows",
        "3 of 1,000 rows",
        "1,000 of 4,000 ms of compute",
        "100 of 500 SHAP samples",
    ):
        assert words in text
    # Four quotas, and the busiest minute beside the rate.
    assert text.count("<progress") - text.count('class="share"') == 5
    assert "1 of 300 requests" in text
    assert text.count("at midnight UTC, in") == 2
    assert text.count("00:00 UTC, in") == 2


def test_a_closed_customer_is_told_that_it_is_closed(member, customer):
    changes.archive(customer)

    for name in PAGES:
        text = page(member, customer, name).content.decode()
        assert "This customer was closed on" in text
        assert "Start here" not in text


def test_a_retired_plan_is_kept(member, customer):
    customer.plan.retired = True
    customer.plan.save()

    text = page(member, customer).content.decode()

    assert "no longer offered: you keep it" in text


def test_other_customers_usage_is_neither_shown_nor_exported(member, customer):
    other = CustomerFactory.create()
    now = timezone.now()
    recording.record("b-1.spool", [event(other, 7, at=now), refused(other)], 1)

    text = page(member, customer).content.decode()
    exported = page(member, customer, "export").getvalue().decode()

    assert "No calls in the last 30 days" in text
    assert "No call was refused" in text
    assert len(list(csv.reader(io.StringIO(exported)))) == 1


def test_own_usage_is_exported(member, customer):
    recording.record("b-1.spool", [event(customer, 7, at=timezone.now())], 1)

    exported = page(member, customer, "export").getvalue().decode()

    rows = list(csv.DictReader(io.StringIO(exported)))
    assert [row["charged_rows"] for row in rows] == ["7"]


def test_a_member_of_two_customers_can_switch(member, customer):
    other = CustomerFactory.create(name="Zenith")
    other.members.add(customer.members.get())
    third = CustomerFactory.create(name="Foreign")

    text = page(member, customer).content.decode()

    assert f'href="/portal/{other.pk}/"' in text
    assert third.name not in text


@pytest.mark.parametrize("days", ["1", "abc", "٣", "9" * 40, ""])
def test_a_period_that_is_not_offered_shows_the_usual_one(member, customer, days):
    response = page(member, customer, days=days)

    assert response.context["period"] == 30
