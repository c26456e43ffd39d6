import collections
import datetime
import math
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import ApiKey, SpoolSegment, Usage, UsageDay
from accounts.quotas import display
from accounts.usage import export, latencies, reading, recording, roll_ups, spans
from tests.accounts.quotas.test_leases import NOON, event
from tests.factories import ApiKeyFactory, CustomerFactory

WEEK = (NOON - datetime.timedelta(days=3), NOON + datetime.timedelta(days=4))


@pytest.fixture
def customer(db):
    return CustomerFactory()


def changed(customer, rows=1, **changes):
    return msgspec.structs.replace(event(customer, rows), **changes)


def test_events_of_one_minute_and_kind_become_one_row(customer):
    events = [
        changed(customer, 2, at=NOON.timestamp() + 1, total_us=150, compute_us=100),
        changed(customer, 3, at=NOON.timestamp() + 59, total_us=900, compute_us=400),
        changed(customer, 5, charged=False, shap_samples=50),
    ]

    assert recording.record("boot-1.spool", events, 99) is True

    row = Usage.objects.get()
    assert (row.requests, row.rows) == (3, 10)
    assert (row.charged_requests, row.charged_rows) == (2, 5)
    assert (row.compute_us, row.total_us, row.shap_samples) == (600, 1250, 50)
    assert row.minute == NOON
    assert row.latency_buckets == {"1": 2, "4": 1}
    assert row.slowest_us == 900


@pytest.mark.parametrize(
    "change",
    [
        {"key_id": "other"},
        {"operation": "explain"},
        {"model": "iris"},
        {"version": "2"},
        {"variant": "canary"},
        {"status": 429, "code": "QUOTA_EXCEEDED"},
        {"at": NOON.timestamp() + 60},
    ],
)
def test_different_kinds_of_calls_are_kept_apart(customer, change):
    recording.record(
        "boot-1.spool", [event(customer, 1), changed(customer, **change)], 9
    )

    assert Usage.objects.count() == 2


def test_later_events_are_added_to_the_same_row(customer):
    recording.record("boot-1.spool", [event(customer, 2), event(customer, 2)], 100)
    recording.record("boot-1.spool", [event(customer, 3)], 150)

    row = Usage.objects.get()
    assert (row.requests, row.rows) == (3, 7)
    assert row.latency_buckets == {"1": 3}
    assert SpoolSegment.objects.get().ingested_bytes == 150


def test_the_same_part_of_a_segment_is_counted_once(customer):
    recording.record("boot-1.spool", [event(customer, 2)], 100)

    assert recording.record("boot-1.spool", [event(customer, 2)], 100) is False

    assert Usage.objects.get().requests == 1


def test_events_read_from_another_place_are_not_counted(customer):
    recording.record("boot-1.spool", [event(customer, 2)], 100, start_bytes=0)

    stale = recording.record(
        "boot-1.spool", [event(customer, 2)] * 2, 200, start_bytes=0
    )
    right = recording.record("boot-1.spool", [event(customer, 3)], 200, start_bytes=100)

    assert (stale, right) == (False, True)
    assert Usage.objects.get().rows == 5


def test_a_failed_round_leaves_neither_usage_nor_offset(customer, monkeypatch):
    monkeypatch.setattr(Usage.objects, "bulk_create", lambda *_, **__: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        recording.record("boot-1.spool", [event(customer, 2)], 100)

    assert not Usage.objects.exists()
    assert not SpoolSegment.objects.exists()


def test_events_of_a_deleted_customer_do_not_hold_up_the_others(customer):
    gone = changed(customer, customer_id=customer.pk + 1000)

    assert recording.record("boot-1.spool", [gone, event(customer, 1)], 100) is True

    assert Usage.objects.get().customer == customer


def test_compute_never_exceeds_the_total(customer):
    recording.record("b-1.spool", [changed(customer, compute_us=500, total_us=400)], 1)

    assert Usage.objects.get().total_us == 500


def test_last_use_of_a_key_is_noted_to_the_minute(customer):
    key = ApiKeyFactory(customer=customer)
    first = changed(customer, key_id=key.key_id)
    soon = changed(customer, key_id=key.key_id, at=NOON.timestamp() + 30)
    later = changed(customer, key_id=key.key_id, at=NOON.timestamp() + 90)

    recording.record("b-1.spool", [first], 1)
    recording.record("b-1.spool", [soon], 2)
    key.refresh_from_db()
    assert key.last_used_at == NOON

    recording.record("b-1.spool", [later, first], 3)
    assert ApiKey.objects.get().last_used_at == NOON + datetime.timedelta(seconds=90)


@pytest.mark.django_db(transaction=True)
def test_two_controllers_count_a_segment_once():
    customer = CustomerFactory()

    def ingest(_: int) -> int:
        try:
            return sum(
                recording.record(
                    "boot-1.spool",
                    [event(customer, 1)] * 10,
                    (part + 1) * 100,
                    start_bytes=part * 100,
                )
                for part in range(5)
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ingest, range(8))) == 5

    assert reading.totals(spans.of_minutes(Usage.objects.all()))["requests"] == 50


@given(st.integers(0, 10**9))
def test_a_latency_lies_within_its_bucket(microseconds: int):
    bucket = latencies.bucket_of(microseconds)

    assert microseconds <= 100 * 2**bucket
    assert bucket == 0 or microseconds > 100 * 2 ** (bucket - 1)


def test_percentiles_are_interpolated_within_their_buckets():
    found = latencies.Latencies({0: 50, 3: 45, 10: 5}, slowest_us=102_400)

    assert found.percentile_ms(25) == pytest.approx(0.05)
    assert found.percentile_ms(50) == pytest.approx(0.1)
    assert found.percentile_ms(95) == pytest.approx(0.8)
    assert found.percentile_ms(99) == pytest.approx(51.2 + 51.2 * 4 / 5)
    assert found.percentile_ms(100) == pytest.approx(102.4)
    assert latencies.Latencies({}, slowest_us=0).percentile_ms(50) is None


@given(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=40),
    st.floats(0, 100),
)
def test_a_percentile_lies_between_the_bounds_of_its_call(latencies_us, percent):
    found = latencies.Latencies(
        collections.Counter(map(latencies.bucket_of, latencies_us)),
        max(latencies_us),
    )
    # The call of that rank, counted from one.
    rank = max(1, math.ceil(len(latencies_us) * percent / 100))
    bucket = latencies.bucket_of(sorted(latencies_us)[rank - 1])

    value_us = 1000 * found.percentile_ms(percent)

    assert value_us <= max(latencies_us) * (1 + 1e-9)
    assert value_us >= (50 * 2**bucket if bucket else 0) * (1 - 1e-9)


def test_a_percentile_is_near_the_true_one_where_latencies_lie_evenly():
    latencies_us = range(1000, 1_300_000, 1000)
    found = latencies.Latencies(
        collections.Counter(map(latencies.bucket_of, latencies_us)),
        max(latencies_us),
    )

    for percent in (10, 50, 90):
        true_ms = len(latencies_us) * percent / 100
        assert found.percentile_ms(percent) == pytest.approx(true_ms, rel=0.15)


def test_latencies_of_many_rows_are_added_up(customer):
    recording.record("a-1.spool", [event(customer, 1)] * 2, 1)
    recording.record("b-1.spool", [event(customer, 1)], 1)

    found = latencies.latencies(spans.between(*WEEK))
    assert found == latencies.Latencies({1: 3}, slowest_us=200)


def test_no_percentile_is_above_the_slowest_call(customer):
    slow = [changed(customer, total_us=1_879_000)] * 3
    recording.record("a-1.spool", [*slow, changed(customer, total_us=900)], 1)

    found = latencies.latencies(spans.between(*WEEK))

    assert found.percentile_ms(99) < found.percentile_ms(100) == 1879


def test_calls_of_before_their_slowest_was_kept_are_as_slow_as_their_bucket(customer):
    recording.record("a-1.spool", [changed(customer, total_us=150)], 1)
    Usage.objects.update(slowest_us=None)
    recording.record("a-1.spool", [changed(customer, total_us=130)], 2)
    recording.record("b-1.spool", [changed(customer, total_us=30)], 1)
    expected = latencies.Latencies({0: 1, 1: 2}, slowest_us=200)
    assert latencies.latencies(spans.between(*WEEK)) == expected

    roll_ups.roll_up(now=NOON + datetime.timedelta(days=2))

    assert UsageDay.objects.get().slowest_us is None
    assert latencies.latencies(spans.between(*WEEK)) == expected


def test_top_customers_come_first(customer):
    other = CustomerFactory()
    recording.record("a-1.spool", [event(customer, 1), *[event(other, 1)] * 3], 1)

    [top] = reading.most_used(spans.between(*WEEK), "customer_id")
    reading.name_customers(top)

    assert [(row["name"], row["requests"]) for row in top] == [
        (other.name, 3),
        (customer.name, 1),
    ]


def test_refusals_are_counted_by_reason(customer):
    refused = changed(customer, status=429, code="QUOTA_EXCEEDED", charged=False)
    recording.record("a-1.spool", [event(customer, 1), refused, refused], 1)

    rows = reading.over_time(spans.between(*WEEK), "day", "status", "code")

    assert reading.refusals(rows) == [
        {"status": 429, "code": "QUOTA_EXCEEDED", "count": 2}
    ]
    assert reading.totals(spans.between(*WEEK))["errors"] == 2


def test_groups_are_added_up_per_variant(customer):
    recording.record(
        "a-1.spool",
        [event(customer, 1), event(customer, 2), changed(customer, variant="canary")],
        1,
    )

    rows = reading.over_time(spans.between(*WEEK), "day", "model", "variant")
    groups = reading.per(rows, "model", "variant")

    assert [(row["variant"], row["requests"], row["rows"]) for row in groups] == [
        ("canary", 1, 1),
        ("default", 2, 3),
    ]


def test_a_day_s_quota_counts_that_day_only(customer):
    yesterday = NOON - datetime.timedelta(days=1)
    recording.record(
        "a-1.spool", [event(customer, 5), event(customer, 7, at=yesterday)], 1
    )

    day = reading.quota_used(customer.pk, quota="day", unit="rows", now=NOON)
    month = reading.quota_used(customer.pk, quota="month", unit="requests", now=NOON)

    assert day == (5, datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC))
    assert month == (2, datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC))


def test_csv_has_one_row_per_day_and_kind(customer):
    recording.record("a-1.spool", [event(customer, 5)], 1)
    recording.record("b-1.spool", [event(customer, 6)], 1)

    header, row = export.csv_rows(spans.between(*WEEK))

    assert dict(zip(header, row, strict=True)) == {
        "day": "2026-11-21",
        "customer": customer.name,
        "key_id": f"key{customer.pk}",
        "operation": "predict",
        "model": "digits",
        "version": "1",
        "variant": "default",
        "status": 200,
        "code": "",
        "requests": 2,
        "rows": 11,
        "charged_requests": 2,
        "charged_rows": 11,
        "compute_us": 200,
        "total_us": 400,
        "shap_samples": 0,
        "charged_compute_us": 200,
        "charged_shap_samples": 0,
    }


def test_a_name_cannot_become_a_formula_in_a_spreadsheet(customer):
    customer.name = "=HYPERLINK(1)"
    customer.save()
    recording.record("a-1.spool", [event(customer, 5)], 1)

    _, row = export.csv_rows(spans.between(*WEEK))

    assert row[1] == "'=HYPERLINK(1)"


def test_a_csv_file_is_read_day_by_day(customer, django_assert_num_queries):
    days = [NOON - number * datetime.timedelta(days=1) for number in (4, 2, 0)]
    events = [event(customer, 5, at=day) for day in days]
    recording.record("a-1.spool", events, 1)
    span = spans.of_minutes(Usage.objects.all())

    rows = export.csv_rows(span)
    next(rows)
    # Which days there are, and the first one of them.
    with django_assert_num_queries(2):
        first = next(rows)

    assert [row[0] for row in (first, *rows)] == [f"{day:%Y-%m-%d}" for day in days]


@pytest.mark.parametrize("now", [NOON, NOON.replace(day=1)], ids=["later", "the 1st"])
def test_what_several_customers_have_used_is_read_at_once(
    customer, now, django_assert_num_queries
):
    other, day = CustomerFactory(), datetime.timedelta(days=1)
    recording.record(
        "a-1.spool", [event(customer, 5, at=now), event(other, 2, at=now)], 1
    )
    recording.record("a-1.spool", [event(other, 7, at=now - day)], 2)
    customers = [customer, other, CustomerFactory()]

    # Marks; then days, and hours and minutes of days that were not added up.
    with django_assert_num_queries(4):
        used = display.used_by(
            [each.pk for each in customers], ["day", "month"], now=now
        )

    for each in customers:
        for quota in ("day", "month"):
            for unit in ("requests", "rows", "compute_ms"):
                alone, _ = reading.quota_used(each.pk, quota=quota, unit=unit, now=now)
                assert used.get(each.pk, {}).get((quota, unit), 0) == alone


def test_the_keys_that_a_model_answered_in_30_days_are_named_most_calls_first(customer):
    many = ApiKeyFactory(customer=customer, name="many")
    few = ApiKeyFactory(name="few")
    old = (NOON - datetime.timedelta(days=31)).timestamp()
    recording.record(
        "boot-1.spool",
        [
            changed(few.customer, key_id=few.key_id),
            *[changed(customer, key_id=many.key_id)] * 3,
            changed(customer, key_id="other", model="another"),
            changed(customer, key_id="refused", status=400, code="INVALID_INPUT"),
            changed(customer, key_id="old", at=old),
        ],
        9,
    )
    now = NOON + datetime.timedelta(hours=1)
    model = Usage.objects.get(key_id=few.key_id).model

    names, count = reading.callers_of(model, now=now)
    [first], both = reading.callers_of(model, now=now, most=1)

    assert names == [f"{customer.name} (key many)", f"{few.customer.name} (key few)"]
    assert (count, both) == (2, 2)
    assert first == names[0]
