import msgspec
import pytest

from accounts.admission.limits import ReachedLimit
from accounts.metering.event import UsageEvent
from accounts.models import Refusal, Usage
from accounts.usage import recording, refused_calls
from tests.accounts.quotas.test_leases import event
from tests.factories import CustomerFactory

pytestmark = pytest.mark.django_db


def refused(customer, **changes):
    facts = {"code": "QUOTA_EXCEEDED", "status": 429, "request_id": "req_1"} | changes
    return msgspec.structs.replace(event(customer, 0, charged=False), **facts)


def test_what_was_refused_is_kept_with_its_request_id():
    customer = CustomerFactory()

    recording.record("b-1.spool", [event(customer, 1), refused(customer)], 1)

    kept = Refusal.objects.get()
    assert (kept.customer, kept.request_id) == (customer, "req_1")
    assert (kept.status, kept.code) == (429, "QUOTA_EXCEEDED")


def test_the_limit_that_refused_is_kept_as_its_caller_was_told():
    customer = CustomerFactory()
    reached = ReachedLimit(
        name="key-day",
        scope="key",
        source="key",
        unit="rows",
        maximum=4,
        used=3,
        needed=2,
        window_s=86_400,
        resets_at=1_795_305_600,
    )
    limited = msgspec.structs.replace(refused(customer), limit=reached)
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(limited), type=UsageEvent)

    recording.record("b-1.spool", [read], 1)

    assert Refusal.objects.get().limit == {
        "limit": "key-day",
        "scope": "key",
        "source": "key",
        "unit": "rows",
        "maximum": 4,
        "used": 3,
        "needed": 2,
        "window_s": 86_400,
        "resets_at": "2026-11-22T00:00:00Z",
    }


def test_a_refusal_that_no_limit_caused_names_none():
    recording.record("b-1.spool", [refused(CustomerFactory(), code="NOT_FOUND")], 1)

    assert Refusal.objects.get().limit == {}


def test_events_of_an_earlier_program_are_read_on():
    old = msgspec.to_builtins(event(CustomerFactory(), 1))[:-2]

    assert msgspec.convert(old, UsageEvent).limit is None


def test_the_same_bytes_keep_a_refusal_only_once():
    customer = CustomerFactory()
    for _ in range(2):
        recording.record("b-1.spool", [refused(customer)], 1)

    assert Refusal.objects.count() == 1


def test_a_flood_keeps_its_newest_and_spares_other_codes():
    customer = CustomerFactory()
    recording.record("b-1.spool", [refused(customer, code="NOT_FOUND", status=404)], 1)

    for part in range(2):
        flood = [
            refused(customer, request_id=f"req_{part}_{number}")
            for number in range(refused_calls.KEPT + 7)
        ]
        recording.record("b-1.spool", flood, 2 + part)

    same = Refusal.objects.filter(code="QUOTA_EXCEEDED")
    assert same.count() == refused_calls.KEPT
    assert set(same.values_list("request_id", flat=True)) == {
        f"req_1_{number}" for number in range(7, refused_calls.KEPT + 7)
    }
    assert Refusal.objects.filter(code="NOT_FOUND").count() == 1
    counted = Usage.objects.filter(code="QUOTA_EXCEEDED")
    assert sum(row.requests for row in counted) == 2 * (refused_calls.KEPT + 7)


def test_a_request_is_found_only_by_its_own_customer():
    customer, other = CustomerFactory.create_batch(2)
    recording.record("b-1.spool", [refused(customer, request_id="req_mine")], 1)

    assert refused_calls.of_customer(customer.pk, request_id="req_mine").count() == 1
    assert not refused_calls.of_customer(customer.pk, request_id="req_other").exists()
    assert not refused_calls.of_customer(other.pk, request_id="req_mine").exists()
