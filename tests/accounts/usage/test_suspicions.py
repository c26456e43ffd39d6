import datetime

import msgspec
import pytest
from django.contrib.auth.models import Group
from django.urls import reverse

from accounts.admission.networks import MOST_NETWORKS
from accounts.models import KeyNetworks, Suspicion, Usage
from accounts.usage import recording, roll_ups, suspicions
from accounts.usage.grains import hour_of
from tests.accounts.quotas.test_leases import event
from tests.factories import ApiKeyFactory, UserFactory

pytestmark = pytest.mark.django_db

NOW = datetime.datetime(2026, 11, 21, 12, 30, tzinfo=datetime.UTC)


def calls(key, count, *, minutes_ago=5, status=200, code=""):
    minute = NOW - datetime.timedelta(minutes=minutes_ago)
    roll_ups.mark([(key.customer_id, hour_of(minute))])
    Usage.objects.create(
        segment=f"s{Usage.objects.count()}",
        customer=key.customer,
        key_id=key.key_id,
        operation="predict",
        minute=minute,
        status=status,
        code=code,
        requests=count,
    )


@pytest.mark.parametrize(
    ("before", "now", "kinds"),
    [
        (200, 2000, ["growth"]),
        (201, 2000, []),
        # Few calls, however much they grow; and a key that only starts.
        (1, 999, []),
        (0, 5000, []),
    ],
)
def test_ten_times_the_busiest_hour_of_the_week_is_noticed(before, now, kinds):
    key = ApiKeyFactory()
    calls(key, now)
    if before:
        calls(key, before, minutes_ago=3 * 24 * 60)

    assert [found.kind for found in suspicions.look(now=NOW)] == kinds


@pytest.mark.parametrize(("misses", "kinds"), [(49, []), (50, ["scanning"])])
def test_many_calls_for_models_that_cannot_be_seen_are_noticed(misses, kinds):
    key = ApiKeyFactory()
    calls(key, misses, status=404, code="NOT_FOUND")
    calls(key, 500, minutes_ago=90, status=404, code="NOT_FOUND")

    assert [found.kind for found in suspicions.look(now=NOW)] == kinds


def used_from(key, networks, *, at=NOW):
    """Record one event for each network, as from two gateways."""
    events = [
        msgspec.structs.replace(
            event(key.customer, 1),
            key_id=key.key_id,
            at=at.timestamp(),
            network=f"203.0.{number}.0/24",
        )
        for number in range(networks)
    ]
    for gateway in range(2):
        segment = f"b{gateway}-{KeyNetworks.objects.count()}-{networks}.spool"
        recording.record(segment, events, 1)


@pytest.mark.parametrize(("networks", "kinds"), [(20, []), (21, ["networks"])])
def test_a_key_used_from_many_networks_is_noticed(networks, kinds):
    key = ApiKeyFactory()
    used_from(key, networks)

    found = suspicions.look(now=NOW)

    assert [suspicion.kind for suspicion in found] == kinds
    assert suspicions.look(now=NOW) == []
    for suspicion in found:
        assert suspicion.detail == (
            "21 networks in a day, such as 203.0.0.0/24, 203.0.1.0/24, 203.0.2.0/24"
        )


def test_networks_of_different_keys_and_days_are_not_added_up():
    keys = ApiKeyFactory.create_batch(2)
    for key in keys:
        used_from(key, 12)
    used_from(keys[0], 20, at=NOW - datetime.timedelta(days=1))

    assert suspicions.look(now=NOW) == []


def test_what_yesterday_was_used_and_is_read_today_belongs_to_yesterday():
    yesterday = NOW - datetime.timedelta(days=1)
    used_from(ApiKeyFactory(), 30, at=yesterday)

    [found] = suspicions.look(now=NOW)

    assert found.day == yesterday.date()


def test_of_networks_only_so_many_are_kept_and_only_for_a_week():
    key = ApiKeyFactory()
    used_from(key, 250)
    assert len(KeyNetworks.objects.get().networks) == MOST_NETWORKS
    [found] = suspicions.look(now=NOW + datetime.timedelta(hours=1))
    assert found.detail.startswith("100 or more networks")

    suspicions.look(now=NOW + datetime.timedelta(days=7))
    assert KeyNetworks.objects.exists()
    suspicions.look(now=NOW + datetime.timedelta(days=8))

    assert not KeyNetworks.objects.exists()


def test_a_pattern_is_noted_once_a_day_even_when_dismissed():
    key = ApiKeyFactory()
    calls(key, 60, status=404, code="NOT_FOUND")
    [found] = suspicions.look(now=NOW)
    person = UserFactory()

    assert suspicions.dismiss(found, by=person.pk, now=NOW) is True
    assert suspicions.dismiss(found, by=person.pk, now=NOW) is False
    assert suspicions.look(now=NOW) == []


def test_account_managers_see_and_dismiss(client):
    person = UserFactory(is_staff=True)
    person.groups.add(Group.objects.get(name="account managers"))
    client.force_login(person)
    key = ApiKeyFactory()
    calls(key, 60, status=404, code="NOT_FOUND")
    [found] = suspicions.look(now=NOW)
    url = reverse("admin:accounts_suspicion_changelist")

    assert "60 calls in an hour" in client.get(url).content.decode()
    client.post(url, {"action": "dismiss", "_selected_action": [found.pk]})

    assert Suspicion.objects.get().dismissed_by == person
