"""Each usage event is counted once, whichever process dies at any time."""

from datetime import datetime, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts.admission.limits import LeaseRequest
from accounts.metering import spool
from accounts.metering.event import UsageEvent
from accounts.models import Lease, QuotaCounter, SpoolSegment, Usage
from accounts.quotas import leases
from inference.controller import ledger
from tests.factories import CustomerFactory, PlanFactory

pytestmark = pytest.mark.django_db

SOON = timedelta(seconds=10)


def later(**kwargs):
    return timezone.now() + timedelta(**kwargs)


@pytest.fixture
def customer():
    return CustomerFactory(plan=PlanFactory(daily_quota=1000, quota_unit="requests"))


@pytest.fixture
def folder(home):
    return home.spool


def event(customer, number=0, *, boot_id="boot"):
    return UsageEvent(
        id=f"{boot_id}-{number}",
        at=timezone.now().timestamp(),
        customer_id=customer.pk,
        key_id="key",
        operation="predict",
        model="m",
        version="1",
        variant="default",
        status=200,
        code="",
        rows=2,
        charged=True,
        compute_us=10,
        total_us=20,
        shap_samples=0,
        request_id="r",
    )


def write(folder, customer, count, *, boot_id="boot", close=True):
    writer = spool.SpoolWriter(folder, boot_id)
    writer.append([event(customer, n, boot_id=boot_id) for n in range(count)])
    if close:
        writer.close()
    return writer


def counted():
    return sum(Usage.objects.values_list("requests", flat=True))


def segment():
    return SpoolSegment.objects.get()


def test_events_are_counted_while_their_writer_lives(folder, customer):
    writer = write(folder, customer, 3, close=False)

    ledger.ingest(folder, now=later(seconds=10))
    first = counted()
    writer.append([event(customer, 3)])
    ledger.ingest(folder, now=later(seconds=10))

    assert (first, counted()) == (3, 4)
    assert segment().completed_at is None
    writer.close()


def test_a_segment_without_a_writer_is_complete(folder, customer):
    write(folder, customer, 3)

    done = ledger.ingest(folder, now=later(seconds=10))

    assert (done.events, done.completed) == (3, 1)
    assert segment().completed_at is not None
    assert ledger.ingest(folder, now=later(seconds=20)).events == 0
    assert counted() == 3


def test_a_segment_that_was_only_just_made_is_not_taken_for_complete(folder, customer):
    (folder / "boot-1.spool").touch()

    ledger.ingest(folder, now=timezone.now())

    assert not SpoolSegment.objects.exclude(completed_at=None).exists()


def test_a_torn_tail_of_a_dead_writer_is_dropped(folder, customer):
    write(folder, customer, 2)
    (path,) = folder.glob("*.spool")
    path.write_bytes(path.read_bytes()[:-3])

    ledger.ingest(folder, now=later(seconds=10))

    assert counted() == 1
    assert segment().completed_at is not None


def test_a_torn_tail_of_a_living_writer_is_read_once_it_is_whole(folder, customer):
    writer = write(folder, customer, 1, close=False)
    (path,) = folder.glob("*.spool")
    whole = path.read_bytes() + spool.encode_event(event(customer, 1))

    path.write_bytes(whole[:-5])
    ledger.ingest(folder, now=later(seconds=10))
    first = counted()
    path.write_bytes(whole)
    ledger.ingest(folder, now=later(seconds=10))

    assert (first, counted()) == (1, 2)
    writer.close()


def test_a_long_segment_is_read_in_several_transactions(folder, customer):
    write(folder, customer, 4500)

    done = ledger.ingest(folder, now=later(seconds=10), budget_s=60)

    assert (done.events, counted()) == (4500, 4500)


def test_a_round_that_runs_out_of_time_goes_on_in_the_next(folder, customer):
    write(folder, customer, 3)

    first = ledger.ingest(folder, now=later(seconds=10), budget_s=0)
    second = ledger.ingest(folder, now=later(seconds=10))

    assert (first.events, first.caught_up, first.completed) == (0, False, 0)
    assert (second.events, second.caught_up, second.completed) == (3, True, 1)


class Killed(BaseException):
    """Represents the death of a process."""


class KillAt:
    """Die before the statement with the given number."""

    def __init__(self, number):
        self.left = number

    def __call__(self, execute, sql, params, many, context):
        self.left -= 1
        # Only once: the rollback of a real death follows.
        if self.left == -1:
            raise Killed
        return execute(sql, params, many, context)


def ingest_and_settle(folder):
    now = later(seconds=10)
    ledger.ingest(folder, now=now)
    ledger.settle_dead_holders(folder, now=now)
    ledger.delete_old_segments(folder, now=now + timedelta(days=8))


def lend(customer, units, *, holder="boot"):
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    request = LeaseRequest(
        customer_id=customer.pk,
        quota="day",
        unit="requests",
        window_start=int(midnight.timestamp()),
        units=units,
        minimum=1,
    )
    assert leases.grant(holder, request).units == units


def test_a_crash_before_any_statement_neither_loses_nor_doubles_anything(
    folder, customer
):
    """Kill at the first statement, then the second … until a run completes."""
    crashes = 0
    while True:
        point = transaction.savepoint()
        lend(customer, 10)
        write(folder, customer, 3)
        kill = KillAt(crashes)
        try:
            with connection.execute_wrapper(kill):
                ingest_and_settle(folder)
            finished = True
        except Killed:
            finished = False

        ingest_and_settle(folder)

        assert counted() == 3
        assert QuotaCounter.objects.get().granted == 3
        assert Lease.objects.get().settled_at is not None
        assert list(folder.glob("*.spool")) == []
        transaction.savepoint_rollback(point)
        if finished:
            break
        crashes += 1
    assert crashes > 10


def test_leases_of_a_dead_process_are_settled_once(folder, customer):
    lend(customer, 10)
    write(folder, customer, 4)
    now = later(seconds=10)

    before = ledger.settle_dead_holders(folder, now=now)
    ledger.ingest(folder, now=now)
    first = ledger.settle_dead_holders(folder, now=now)
    second = ledger.settle_dead_holders(folder, now=now)

    assert (before, first, second) == ([], ["boot"], [])
    assert QuotaCounter.objects.get().granted == 4


def test_leases_of_a_living_process_are_left_alone(folder, customer):
    lend(customer, 10)
    writer = write(folder, customer, 4, close=False)

    ledger.ingest(folder, now=later(seconds=10))
    settled = ledger.settle_dead_holders(folder, now=later(days=1))

    assert settled == []
    assert QuotaCounter.objects.get().granted == 10
    writer.close()


def test_leases_of_a_process_that_never_spooled_are_settled_after_a_while(
    folder, customer
):
    lend(customer, 10)

    soon = ledger.settle_dead_holders(folder, now=later(minutes=1))
    in_time = ledger.settle_dead_holders(folder, now=later(minutes=11))

    assert (soon, in_time) == ([], ["boot"])
    assert QuotaCounter.objects.get().granted == 0


def test_raw_segments_are_kept_for_a_week(folder, customer):
    write(folder, customer, 1)
    ledger.ingest(folder, now=later(seconds=10))

    early = ledger.delete_old_segments(folder, now=later(days=6))
    late = ledger.delete_old_segments(folder, now=later(days=8))

    assert (early, late) == (0, 1)
    assert list(folder.glob("*.spool")) == []
    assert counted() == 1


def test_read_segments_make_room_before_predictions_stop(folder, customer):
    for number, boot_id in enumerate(("first", "second", "third")):
        write(folder, customer, 100, boot_id=boot_id)
        ledger.ingest(folder, now=later(seconds=10 + number))
    write(folder, customer, 100, boot_id="unread")
    size = (folder / "unread-1.spool").stat().st_size

    ledger.delete_old_segments(folder, now=later(seconds=20), max_bytes=5 * size)

    left = sorted(path.name for path in folder.glob("*.spool"))
    assert left == ["third-1.spool", "unread-1.spool"]
    ledger.ingest(folder, now=later(seconds=30))
    assert counted() == 400


def test_what_is_unread_never_makes_room(folder, customer):
    write(folder, customer, 100)

    ledger.delete_old_segments(folder, now=later(days=8), max_bytes=1)

    assert len(list(folder.glob("*.spool"))) == 1


def test_a_database_outage_in_the_middle_counts_nothing_twice(folder, customer):
    writer = write(folder, customer, 5, close=False)

    with pytest.raises(Killed), connection.execute_wrapper(KillAt(4)):
        ledger.ingest(folder, now=datetime.now(tz=timezone.get_current_timezone()))
    ledger.ingest(folder, now=later(seconds=10))

    assert counted() == 5
    writer.close()
