"""Usage from before a migration means the same after it."""

import datetime

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from accounts.models import ApiKey, Customer, UsageDay, UsageHour
from accounts.usage import reading, roll_ups, spans
from tests.factories import CustomerFactory

NOON = datetime.datetime(2026, 10, 3, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def migrate(name):
    executor = MigrationExecutor(connection)
    executor.loader.build_graph()
    executor.migrate([("accounts", name)])
    return executor.loader.project_state([("accounts", name)]).apps


@pytest.fixture
def newest():
    """Return the name of the newest migration; leave all apps at their newest."""
    graph = MigrationExecutor(connection).loader.graph
    yield graph.leaf_nodes("accounts")[0][1]
    executor = MigrationExecutor(connection)
    executor.loader.build_graph()
    executor.migrate(graph.leaf_nodes())


def add_minutes(customer_id, models):
    facts = {
        "customer_id": customer_id,
        "key_id": "key",
        "operation": "predict",
        "status": 200,
        "requests": 2,
        "compute_us": 500,
        "total_us": 900,
        "shap_samples": 7,
        "latency_buckets": {"3": 2},
    }
    minutes = models.get_model("accounts", "Usage")
    minutes.objects.bulk_create(
        minutes(
            segment=f"s{n}", minute=NOON + n * HOUR / 2, charged_requests=n, **facts
        )
        for n in range(3)
    )


def check_that_minutes_are_charged_as_before_and_rolled_up():
    span = spans.between(NOON, NOON + 2 * HOUR)
    totals = reading.totals(span)
    assert (totals["requests"], totals["charged_requests"]) == (6, 3)
    assert totals["charged_compute_us"] == 1000
    assert totals["charged_shap_samples"] == 14
    assert roll_ups.roll_up(now=NOON + 2 * HOUR).done == 2
    assert reading.totals(spans.between(NOON, NOON + 2 * HOUR)) == totals
    assert [row.requests for row in UsageHour.objects.order_by("start")] == [4, 2]
    assert UsageDay.objects.get().latency_buckets == {"3": 6}


def add_customers_and_rotations(first, models):
    """Return the names that the customers must be found by, by their ids."""
    customers, keys = (
        models.get_model("accounts", name).objects for name in ("Customer", "ApiKey")
    )
    second = customers.create(name="ACME", plan_id=first.plan_id, active=False)
    # Named as the second one would be called if it were told apart carelessly.
    third = customers.create(name=f"Acme No. {second.pk}", plan_id=first.plan_id)
    fourth = customers.create(name=third.name.upper(), plan_id=first.plan_id)
    oldest, heir, its_heir = (
        keys.create(customer_id=first.pk, name=name, key_id=name, digest=name)
        for name in ("first", "second", "third")
    )
    keys.filter(pk=oldest.pk).update(replaced_by=heir)
    keys.filter(pk=heir.pk).update(replaced_by=its_heir)
    return {
        first.pk: "acme",
        second.pk: f"acme No. {second.pk}",
        third.pk: f"acme no. {second.pk}",
        fourth.pk: f"acme no. {second.pk} No. {fourth.pk}",
    }


@pytest.mark.django_db(transaction=True)
def test_what_was_there_before_is_kept(newest):
    """In one test: the way back and forth takes seconds."""
    customer = CustomerFactory(name="Acme")
    add_minutes(customer.pk, migrate("0009_suspicions"))
    names = add_customers_and_rotations(
        customer, migrate("0016_first_key_of_rotations")
    )

    migrate(newest)

    check_that_minutes_are_charged_as_before_and_rolled_up()
    assert {each.pk: each.name_as_read for each in Customer.objects.all()} == names
    counted = {key.key_id: key.quota_key_id for key in ApiKey.objects.all()}
    assert counted == {"first": "first", "second": "first", "third": "first"}
