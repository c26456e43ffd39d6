"""Bits of used inputs are kept for each key and day, exactly once, for a month."""

import datetime

import msgspec
import pytest

from accounts.models import FieldUse
from accounts.usage import field_uses, reading, recording
from tests.accounts.quotas.test_leases import NOON, event
from tests.factories import ApiKeyFactory, CustomerFactory

pytestmark = pytest.mark.django_db
NOW = NOON + datetime.timedelta(hours=1)


@pytest.fixture
def customer():
    return CustomerFactory()


def used(customer, bits, **changes):
    return msgspec.structs.replace(event(customer, 1), used=bits, **changes)


def rows():
    return {
        (row.key_id, row.day.isoformat(), row.version): (row.used, row.requests)
        for row in FieldUse.objects.all()
    }


def test_bits_of_a_day_are_put_together(customer):
    yesterday = (NOON - datetime.timedelta(days=1)).timestamp()
    one = event(customer, 1)
    recording.record("a.spool", [used(customer, 1), used(customer, 4)], 9)
    recording.record(
        "b.spool",
        [
            used(customer, 2),
            used(customer, 0, version="9"),
            used(customer, 8, at=yesterday),
            used(customer, 16, status=400, code="INVALID_INPUT"),
            event(customer, 1),
        ],
        9,
    )

    day = NOON.date().isoformat()
    before = (NOON.date() - datetime.timedelta(days=1)).isoformat()
    assert rows() == {
        (one.key_id, day, one.version): (7, 3),
        (one.key_id, day, "9"): (0, 1),
        (one.key_id, before, one.version): (8, 1),
    }


def test_a_batch_that_comes_twice_counts_once(customer):
    for _ in range(2):
        recording.record("a.spool", [used(customer, 1)], 9)

    assert [row.requests for row in FieldUse.objects.all()] == [1]


def test_all_63_bits_can_be_stored(customer):
    recording.record("a.spool", [used(customer, 2**63 - 1)], 9)

    assert FieldUse.objects.get().used == 2**63 - 1


def test_calls_of_models_without_optional_inputs_cost_no_query(
    customer, django_assert_num_queries
):
    with django_assert_num_queries(0):
        field_uses.keep([event(customer, 1)] * 9)


def test_many_keys_cost_as_few_queries_as_one(customer, django_assert_num_queries):
    events = [used(customer, 1, key_id=f"k{number}") for number in range(100)]

    with django_assert_num_queries(3):
        field_uses.keep(events)


def test_only_keys_that_may_have_used_the_inputs_are_named():
    keys = {
        name: ApiKeyFactory(name=name)
        for name in ("uses", "none", "older", "job", "before", "refused")
    }

    def call(name, bits, **changes):
        key = keys[name]
        changes = {"key_id": key.key_id, **changes}
        return used(key.customer, bits, **changes)

    recording.record(
        "a.spool",
        [
            call("uses", 2),
            call("uses", 0),
            call("none", 1),
            # All callers of version 9 sent it.
            call("older", 0, version="9"),
            # Nobody knows what the job sent, nor calls before bits were kept.
            call("job", 1),
            call("job", None, operation="job"),
            call("before", 1),
            call("before", None),
            call("refused", 2, status=400, code="INVALID_INPUT"),
        ],
        9,
    )
    one = call("uses", 0)

    names, count = reading.callers_of(one.model, now=NOW, using={one.version: 2})

    assert {name.rpartition("(key ")[2] for name in names} == {
        "uses)",
        "older)",
        "job)",
        "before)",
    }
    assert count == 4


def test_a_day_that_is_only_partly_in_the_span_shows_nothing(customer):
    field_uses.keep([used(customer, 1)])
    key_id = used(customer, 1).key_id
    bits = {used(customer, 1).version: 2}
    model, day = used(customer, 1).model, datetime.timedelta(days=1)

    def shown(since):
        return field_uses.without(model, bits=bits, since=since)

    assert shown(NOON - day) == {key_id: 1}
    # Requests before noon are not among those of the span.
    assert shown(NOON.replace(hour=12)) == {}


def test_bits_are_forgotten_after_31_days_and_with_their_customer(customer):
    recording.record("a.spool", [used(customer, 1)], 9)

    field_uses.forget(now=NOON + datetime.timedelta(days=31))
    assert FieldUse.objects.exists()
    field_uses.forget(now=NOON + datetime.timedelta(days=32))
    assert not FieldUse.objects.exists()

    field_uses.keep([used(customer, 1)])
    other = CustomerFactory()
    field_uses.keep([used(other, 1, key_id="other")])
    other.delete()
    assert [row.customer for row in FieldUse.objects.all()] == [customer]
