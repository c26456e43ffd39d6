import datetime
import hashlib

import pytest
from django.core import serializers
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts.admission import key_format
from accounts.customers import api_keys
from accounts.models import ApiKey
from accounts.signals import access_changed
from tests.factories import ApiKeyFactory, CustomerFactory, UserFactory, issue_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def changes():
    """Collect the changes that gateways are told."""
    heard = []

    def listen(**kwargs):
        heard.append(kwargs["sender"])

    access_changed.connect(listen)
    yield heard
    access_changed.disconnect(listen)


def test_an_issued_key_is_recognised_by_its_token():
    issued = issue_key()

    assert api_keys.recognise(issued.token) == issued.key


def test_only_the_digest_of_a_token_is_stored():
    issued = issue_key()

    key = ApiKey.objects.get(pk=issued.key.pk)
    assert key.digest == hashlib.sha256(issued.token.encode()).hexdigest()
    secret = issued.token.split("_")[3]
    stored = serializers.serialize("json", [key, *key.history.all()])
    assert secret not in stored


def test_history_holds_no_digest():
    issued = issue_key()

    assert not hasattr(issued.key.history.get(), "digest")


def test_the_token_stays_out_of_reprs():
    issued = issue_key()

    assert issued.token not in repr(issued)


def test_issuing_tells_the_gateways(changes):
    customer = CustomerFactory()
    changes.clear()

    issue_key(customer)

    assert changes == [ApiKey]


def test_unknown_scopes_are_refused():
    with pytest.raises(ValidationError, match="Unknown scopes: admin"):
        issue_key(scopes=["predict", "admin"])


def test_a_key_without_scopes_is_refused():
    with pytest.raises(ValidationError, match="at least one scope"):
        issue_key(scopes=[])


def test_a_key_cannot_be_born_expired():
    with pytest.raises(ValidationError, match="future"):
        issue_key(expires_at=timezone.now())


def test_a_mistyped_token_costs_no_query(django_assert_num_queries):
    token = issue_key().token

    with django_assert_num_queries(0):
        assert (
            api_keys.recognise(token[:-1] + ("a" if token[-1] != "a" else "b")) is None
        )
        assert api_keys.recognise("") is None
        assert api_keys.recognise("my_live_käse") is None


def test_a_well_formed_token_that_was_never_issued_is_unknown():
    assert api_keys.recognise(key_format.generate("live").token) is None


def test_the_right_id_with_another_secret_is_unknown():
    key = ApiKeyFactory()
    other = key_format.generate("live")
    ApiKey.objects.filter(pk=key.pk).update(key_id=other.key_id)

    assert api_keys.recognise(other.token) is None


def test_an_expired_key_is_not_recognised():
    issued = issue_key()
    ApiKey.objects.update(expires_at=timezone.now() - datetime.timedelta(seconds=1))

    assert api_keys.recognise(issued.token) is None


def test_keys_of_an_inactive_customer_are_not_recognised():
    issued = issue_key(CustomerFactory(active=False))

    assert api_keys.recognise(issued.token) is None


def test_a_revoked_key_is_not_recognised(changes):
    issued = issue_key()
    changes.clear()

    assert api_keys.revoke(issued.key) is True

    assert api_keys.recognise(issued.token) is None
    assert ApiKey.objects.get().state == ApiKey.State.REVOKED
    assert changes == [ApiKey]


def test_revoking_again_keeps_the_first_time(changes):
    issued = issue_key()
    api_keys.revoke(issued.key)
    revoked_at = ApiKey.objects.get().revoked_at
    changes.clear()

    assert api_keys.revoke(issued.key) is False

    assert ApiKey.objects.get().revoked_at == revoked_at
    assert changes == []


def test_rotation_keeps_the_old_key_for_the_overlap():
    old = issue_key(scopes=["predict"], allowed_models=["digits"], mode="test")
    user = UserFactory()

    new = api_keys.rotate(old.key, overlap=datetime.timedelta(hours=2), created_by=user)

    assert api_keys.recognise(new.token) == new.key
    assert new.key.scopes == ["predict"]
    assert new.key.allowed_models == ["digits"]
    assert new.key.mode == "test"
    assert new.token.startswith("my_test_")
    assert new.key.created_by == user
    assert new.key.expires_at is None
    recognised = api_keys.recognise(old.token)
    assert recognised is not None
    assert recognised.expires_at is not None
    left = recognised.expires_at - timezone.now()
    assert datetime.timedelta(minutes=119) < left <= datetime.timedelta(hours=2)


def test_rotation_never_lengthens_the_old_key():
    soon = timezone.now() + datetime.timedelta(hours=1)
    old = issue_key(expires_at=soon)

    new = api_keys.rotate(old.key)

    old.key.refresh_from_db()
    assert old.key.expires_at == soon
    lifetime = new.key.expires_at - new.key.created_at
    assert abs(lifetime - datetime.timedelta(hours=1)) < datetime.timedelta(seconds=5)


def test_a_revoked_key_cannot_be_rotated():
    issued = issue_key()
    api_keys.revoke(issued.key)

    with pytest.raises(ValidationError, match="This key is revoked: it cannot"):
        api_keys.rotate(issued.key)


def test_networks_are_checked_and_kept_in_one_form():
    issued = issue_key(allowed_networks=["192.0.2.9", "2001:DB8::/32", "192.0.2.9/32"])

    assert issued.key.allowed_networks == ["192.0.2.9/32", "2001:db8::/32"]
    with pytest.raises(ValidationError, match="no IPv4 or IPv6 network"):
        issue_key(allowed_networks=["192.0.2.9/24"])


@pytest.mark.parametrize(
    "limits",
    [
        {"burst_requests": 0},
        {"burst_requests": -1},
        {"sustained_requests": 2**31},
        {"max_concurrency": 0},
        {"daily_quota": -1},
        {"monthly_quota": 2**63},
    ],
)
def test_limits_of_a_key_that_no_gateway_could_keep_are_refused(limits):
    with pytest.raises(ValidationError, match="must be from"):
        issue_key(limits=api_keys.OwnLimits(**limits))


def test_a_rotated_key_passes_on_networks_and_limits_and_names_its_heir():
    limits = api_keys.OwnLimits(burst_requests=3, daily_quota=100)
    old = issue_key(allowed_networks=["10.0.0.0/8"], limits=limits).key

    new = api_keys.rotate(old).key

    old.refresh_from_db()
    assert old.replaced_by == new
    assert new.allowed_networks == ["10.0.0.0/8"]
    assert api_keys.OwnLimits.of(new) == limits


def test_a_key_is_rotated_once_while_its_heir_is_valid():
    old = issue_key().key
    new = api_keys.rotate(old).key

    with pytest.raises(ValidationError, match=new.key_id):
        api_keys.rotate(old)

    api_keys.revoke(new)
    assert api_keys.rotate(old).key.pk != new.pk


@pytest.mark.parametrize("days", [-1, 31])
def test_an_overlap_is_neither_negative_nor_longer_than_a_month(days):
    with pytest.raises(ValidationError, match="stays valid for 0 to 30 days"):
        api_keys.rotate(issue_key().key, overlap=datetime.timedelta(days=days))


def test_changing_a_key_keeps_networks_and_limits_that_are_not_named():
    limits = api_keys.OwnLimits(max_concurrency=2)
    key = issue_key(allowed_networks=["10.0.0.0/8"], limits=limits).key
    same = {
        "name": "n",
        "scopes": ["predict"],
        "allowed_models": [],
        "expires_at": None,
    }

    kept = api_keys.change(key, **same)
    changed = api_keys.change(
        key, **same, allowed_networks=[], limits=api_keys.OwnLimits()
    )

    assert (kept.allowed_networks, kept.max_concurrency) == (["10.0.0.0/8"], 2)
    assert (changed.allowed_networks, changed.max_concurrency) == ([], None)
