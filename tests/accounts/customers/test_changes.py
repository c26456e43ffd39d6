import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from accounts.customers import changes
from accounts.models import Customer, Plan
from accounts.signals import access_changed
from tests.factories import ApiKeyFactory, CustomerFactory, PlanFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def heard():
    """Collect the changes that gateways are told."""
    senders = []

    def listen(**kwargs):
        senders.append(kwargs["sender"])

    access_changed.connect(listen)
    yield senders
    access_changed.disconnect(listen)


def test_a_bare_save_reaches_the_gateways_too(heard):
    customer = CustomerFactory()
    heard.clear()

    customer.plan.burst_requests = 7
    customer.plan.save(update_fields=["burst_requests"])
    customer.active = False
    customer.save()

    assert heard == [Plan, Customer]


@pytest.mark.parametrize(
    "limits",
    [
        {"burst_requests": 0},
        {"sustained_requests": -1},
        {"burst_requests": 2**31},
        {"daily_quota": -1},
        {"monthly_quota": 2**63},
        {"max_concurrency": -1},
        {"further_quotas": {"day": {"rows": -1}}},
    ],
)
def test_a_bare_save_refuses_limits_that_no_gateway_could_keep(limits):
    with pytest.raises(ValidationError):
        PlanFactory(**limits)

    assert not Plan.objects.exists()


def test_a_bare_save_refuses_broken_overrides(heard):
    customer = CustomerFactory()
    heard.clear()
    customer.limit_overrides = {"burst_requests": -5}

    with pytest.raises(ValidationError, match="burst_requests must be"):
        customer.save()

    assert heard == []


def test_a_plan_in_use_cannot_be_deleted_only_retired():
    plan = CustomerFactory().plan

    with pytest.raises(ProtectedError):
        changes.delete(plan)

    changes.set_retired(plan, retired=True)
    assert Plan.objects.get().retired


def test_a_customer_with_keys_cannot_be_deleted():
    key = ApiKeyFactory()

    with pytest.raises(ProtectedError):
        changes.delete(key.customer)

    assert Customer.objects.exists()


def test_archiving_ends_a_customers_keys_and_keeps_the_rest(heard):
    old = ApiKeyFactory(revoked_at=timezone.now())
    key = ApiKeyFactory(customer=old.customer)
    other = ApiKeyFactory()

    assert changes.archive(key.customer) == 1

    customer = Customer.objects.get(pk=key.customer.pk)
    assert not customer.active
    assert customer.archived_at is not None
    for row in (key, other):
        row.refresh_from_db()
    assert key.revoked_at is not None
    assert other.revoked_at is None
    assert heard
    with pytest.raises(ValidationError, match="archived already"):
        changes.archive(customer)


def test_an_archived_customer_cannot_be_made_active_again():
    customer = CustomerFactory()
    changes.archive(customer)

    with pytest.raises(IntegrityError), transaction.atomic():
        Customer.objects.filter(pk=customer.pk).update(active=True)


def test_a_note_undoes_nothing_that_others_changed_since_the_customer_was_read():
    stale = CustomerFactory.create(limit_overrides={})
    ApiKeyFactory.create(customer=stale)
    meanwhile = Customer.objects.get(pk=stale.pk)
    meanwhile.plan = PlanFactory.create()
    meanwhile.limit_overrides = {"burst_requests": 1}
    changes.save(meanwhile)
    changes.archive(meanwhile)

    changes.note(stale, "Invited mia@example.com")

    now = Customer.objects.get(pk=stale.pk)
    noted = now.history.latest()
    assert noted.history_change_reason == "Invited mia@example.com"
    for kept in (now, noted):
        assert kept.plan == meanwhile.plan
        assert kept.limit_overrides == {"burst_requests": 1}
        assert not kept.active
        assert kept.archived_at is not None


@pytest.mark.parametrize(
    "alike",
    [
        "ALPHA beta",
        "Alpha\u200b Beta",
        "Alpha  Beta ",
        "\u2067Alpha Beta",
        "Alpha\tBeta",
        "\uff21lpha Beta",
        "Alpha\xad Beta",
        "Alp\u034fha Beta",
        "Alpha Beta\ufe0f",
        "Alpha\u2800Beta",
        "Alpha Beta\uffa0",
        "Alpha\U000e0100 Beta",
    ],
)
def test_two_customers_have_no_names_that_read_alike(alike):
    CustomerFactory(name="Alpha Beta")
    plan = PlanFactory()

    with pytest.raises(ValidationError, match="There is a customer “Alpha Beta”"):
        Customer(name=alike, plan=plan).full_clean()
    with pytest.raises(IntegrityError), transaction.atomic():
        Customer(name=alike, plan=plan).save()
    with pytest.raises(IntegrityError), transaction.atomic():
        Customer.objects.bulk_create([Customer(name=alike, plan=plan)])


@pytest.mark.parametrize("name", ["\u200b\u2060", "\u3164", "\u2800", "\u115f\ufe0f"])
def test_a_customer_has_a_name_that_is_seen(name):
    with pytest.raises(ValidationError, match="a name that people can see"):
        Customer(name=name, plan=PlanFactory()).full_clean()


def test_any_length_of_a_name_can_be_kept():
    # One letter that stands for eighteen.
    customer = CustomerFactory(name="\ufdfa" * 200)
    customer.full_clean()
    customer.notes = "n"
    customer.save()
