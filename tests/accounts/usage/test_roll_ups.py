import datetime
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts.models import UnrolledHour, Usage, UsageDay, UsageHour
from accounts.usage import reading, recording, retention, roll_ups, spans
from accounts.usage.grains import DAY, HOUR, day_of
from tests.accounts.quotas.test_leases import NOON, event
from tests.factories import CustomerFactory

MINUTE = datetime.timedelta(minutes=1)
MIDNIGHT = day_of(NOON)


@pytest.fixture
def customer(db):
    return CustomerFactory()


def record(*events):
    record.count += 1
    assert recording.record(f"boot-{record.count}.spool", events, 1)


record.count = 0


def rows(model):
    return [(row.start, row.requests, row.rows) for row in model.objects.order_by("pk")]


def test_an_hour_adds_up_its_minutes_of_all_segments(customer):
    record(event(customer, 2), event(customer, 3, at=NOON + 59 * MINUTE))
    record(event(customer, 4, charged=False), event(customer, 5, at=NOON + HOUR))

    progress = roll_ups.roll_up(now=NOON + 2 * HOUR)

    assert (progress.done, progress.caught_up) == (2, True)
    assert rows(UsageHour) == [(NOON, 3, 9), (NOON + HOUR, 1, 5)]
    assert rows(UsageDay) == [(MIDNIGHT, 4, 14)]
    noon = UsageHour.objects.first()
    assert (noon.charged_requests, noon.charged_rows) == (2, 5)
    assert (noon.compute_us, noon.charged_compute_us, noon.total_us) == (300, 200, 600)
    assert noon.latency_buckets == {"1": 3}
    assert UsageDay.objects.get().latency_buckets == {"1": 4}


def test_an_hour_that_goes_on_is_left_to_its_minutes(customer):
    record(event(customer, 2))

    assert roll_ups.roll_up(now=NOON + 59 * MINUTE).done == 0

    assert not UsageHour.objects.exists()
    assert UnrolledHour.objects.get().hour == NOON
    assert reading.totals(spans.between(MIDNIGHT, MIDNIGHT + DAY))["rows"] == 2


def test_rolling_up_again_changes_nothing(customer):
    record(event(customer, 2))
    roll_ups.roll_up(now=NOON + HOUR)

    assert roll_ups.roll_up(now=NOON + HOUR).done == 0
    assert roll_ups.mark_again(MIDNIGHT, MIDNIGHT + DAY) == 2
    assert roll_ups.roll_up(now=NOON + HOUR).done == 2

    assert rows(UsageHour) == [(NOON, 1, 2)]
    assert rows(UsageDay) == [(MIDNIGHT, 1, 2)]


def test_usage_that_comes_a_day_late_is_added_to_its_hour(customer):
    record(event(customer, 2), event(customer, 1, at=NOON - HOUR))
    roll_ups.roll_up(now=NOON + HOUR)
    record(event(customer, 5))
    late = spans.between(MIDNIGHT, MIDNIGHT + DAY)
    before = (reading.totals(late)["rows"], rows(UsageDay))

    roll_ups.roll_up(now=NOON + DAY)

    assert before == (8, [(MIDNIGHT, 2, 3)])
    assert reading.totals(spans.between(MIDNIGHT, MIDNIGHT + DAY))["rows"] == 8
    assert sorted(rows(UsageHour)) == [(NOON - HOUR, 1, 1), (NOON, 2, 7)]
    assert rows(UsageDay) == [(MIDNIGHT, 3, 8)]


def test_a_day_is_made_once_all_its_hours_are(customer):
    record(event(customer, 2), event(customer, 3, at=NOON + HOUR))

    roll_ups.roll_up(now=NOON + HOUR)
    assert (UsageHour.objects.count(), UsageDay.objects.count()) == (1, 0)
    roll_ups.roll_up(now=NOON + 2 * HOUR)

    assert rows(UsageDay) == [(MIDNIGHT, 2, 5)]


def test_days_are_those_of_utc(customer):
    east = datetime.timezone(datetime.timedelta(hours=9))
    at = datetime.datetime(2026, 11, 22, 8, 59, tzinfo=east)
    record(event(customer, 2, at=at), event(customer, 3, at=at + MINUTE))

    roll_ups.roll_up(now=NOON + 2 * DAY)

    assert rows(UsageDay) == [(MIDNIGHT, 1, 2), (MIDNIGHT + DAY, 1, 3)]
    span = spans.between(at - DAY, at + DAY)
    assert [row["rows"] for row in reading.over_time(span, "day")] == [2, 3]


def test_customers_wait_for_themselves_only(customer):
    other = CustomerFactory()
    record(event(customer, 2), event(other, 3))
    roll_ups.roll_up(now=NOON + HOUR)
    record(event(other, 4))

    def waiting(of):
        known = roll_ups.rolled_up(MIDNIGHT, NOON + DAY, customer_ids=of)
        return known.unrolled

    assert (waiting([customer.pk]), waiting([other.pk])) == (set(), {NOON})
    assert waiting(None) == {NOON}
    assert reading.totals(spans.between(MIDNIGHT, NOON + DAY))["rows"] == 9


def test_a_round_stops_when_its_time_is_over_and_the_next_goes_on(customer):
    record(*(event(customer, 1, at=NOON - number * HOUR) for number in range(5)))

    first = roll_ups.roll_up(now=NOON + HOUR, budget_s=-1)
    second = roll_ups.roll_up(now=NOON + HOUR)

    assert (first.done, first.caught_up) == (0, False)
    assert (second.done, second.caught_up) == (5, True)


def test_a_failed_roll_up_leaves_the_hour_marked_and_its_rows_as_they_were(
    customer, monkeypatch
):
    record(event(customer, 2))
    roll_ups.roll_up(now=NOON + HOUR)
    record(event(customer, 3))
    with monkeypatch.context() as patched:
        patched.setattr(UsageDay, "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            roll_ups.roll_up(now=NOON + HOUR)

    assert rows(UsageHour) == [(NOON, 1, 2)]
    assert reading.totals(spans.between(MIDNIGHT, MIDNIGHT + DAY))["rows"] == 5
    assert roll_ups.roll_up(now=NOON + HOUR).done == 1
    assert rows(UsageDay) == [(MIDNIGHT, 2, 5)]


def test_lag_is_the_wait_of_the_oldest_hour_that_could_be_rolled_up(customer):
    now = timezone.now()
    assert roll_ups.lag(now=now) == datetime.timedelta()
    record(event(customer, 2, at=now))
    assert roll_ups.lag(now=now) == datetime.timedelta()

    # Of an hour that came late, since it came; of another, since it ended.
    record(event(customer, 2, at=now - 20 * DAY))
    UnrolledHour.objects.update(since=now)
    assert roll_ups.lag(now=now + 2 * MINUTE) == 2 * MINUTE
    UnrolledHour.objects.filter(hour__lt=now - DAY).delete()
    ends_at = UnrolledHour.objects.get().hour + HOUR
    assert roll_ups.lag(now=ends_at + 3 * MINUTE) == 3 * MINUTE


def test_a_page_over_a_month_reads_days_and_the_ends_of_it(customer):
    for number in range(20):
        record(event(customer, 1, at=NOON - number * DAY))
    roll_ups.roll_up(now=NOON + HOUR)

    span = spans.between(NOON - 20 * DAY, NOON + 20 * MINUTE, customer_id=customer.pk)

    assert [part.model for part in span.parts] == [UsageDay, UsageHour, Usage]
    assert span.parts[0].count() == 19
    assert reading.totals(span)["requests"] == 20


@pytest.mark.django_db(transaction=True)
def test_an_hour_is_not_rolled_up_while_somebody_adds_to_it():
    customer = CustomerFactory()
    record(event(customer, 2))
    added, rolled = threading.Event(), threading.Event()

    def add():
        with transaction.atomic():
            record(event(customer, 3))
            added.set()
            # Rolling up would be done by then, if it did not wait.
            rolled.wait(1)

    def roll():
        added.wait()
        roll_ups.roll_up(now=NOON + HOUR)
        rolled.set()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_and_close, [add, roll]))

    assert reading.totals(spans.between(MIDNIGHT, MIDNIGHT + DAY))["rows"] == 5


def _and_close(action):
    try:
        action()
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_writers_rollers_and_retention_meet_and_nothing_is_lost():
    customers = [CustomerFactory(), CustomerFactory()]
    now = timezone.now()
    # Around what is the oldest that is kept, and yesterday.
    times = [now - DAY - number * HOUR for number in range(3)]
    times += [day_of(now) - 35 * DAY + number * HOUR for number in (-2, -1, 0)]

    def ingest(writer):
        for part in range(12):
            recording.record(
                f"boot-{writer}.spool",
                [event(each, 1, at=at) for each in customers for at in times],
                part + 1,
                start_bytes=part,
            )

    def roll():
        for _ in range(12):
            roll_ups.roll_up(now=now)
            retention.forget_minutes(now=now, keep=35 * DAY)

    work = [*(partial(ingest, writer) for writer in range(3)), roll, roll]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(_and_close, work))
    roll_ups.roll_up(now=now)

    expected = 3 * 12 * len(customers) * len(times)
    assert roll_ups.kept_from() == day_of(now) - 35 * DAY
    for model in (UsageHour, UsageDay):
        assert sum(row.requests for row in model.objects.all()) == expected
    assert reading.totals(spans.between(now - 40 * DAY, now))["requests"] == expected
