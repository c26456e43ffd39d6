import datetime

from hypothesis import given
from hypothesis import strategies as st

from accounts.usage import grains
from accounts.usage.grains import DAY, HOUR, day_of, hour_of

MONDAY = datetime.datetime(2026, 11, 16, tzinfo=datetime.UTC)
EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)


def split(starts_at, ends_at, *, grain="day", unrolled=(), kept_from=EVER):
    return grains.split(
        starts_at, ends_at, grain=grain, unrolled=unrolled, kept_from=kept_from
    )


def test_whole_days_are_read_as_days_and_the_ends_as_hours_and_minutes():
    ranges = split(MONDAY - HOUR - 5 * MINUTE, MONDAY + 3 * DAY + 2 * HOUR + MINUTE)

    assert ranges.days == [(MONDAY, MONDAY + 3 * DAY)]
    assert ranges.hours == [
        (MONDAY - HOUR, MONDAY),
        (MONDAY + 3 * DAY, MONDAY + 3 * DAY + 2 * HOUR),
    ]
    assert ranges.minutes == [
        (MONDAY - HOUR - 5 * MINUTE, MONDAY - HOUR),
        (MONDAY + 3 * DAY + 2 * HOUR, MONDAY + 3 * DAY + 2 * HOUR + MINUTE),
    ]


def test_an_hour_that_waits_is_read_by_minutes_and_its_day_by_hours():
    noon = MONDAY + 12 * HOUR

    ranges = split(MONDAY - DAY, MONDAY + 2 * DAY, unrolled=[noon])

    assert ranges.days == [(MONDAY - DAY, MONDAY), (MONDAY + DAY, MONDAY + 2 * DAY)]
    assert ranges.hours == [(MONDAY, noon), (noon + HOUR, MONDAY + DAY)]
    assert ranges.minutes == [(noon, noon + HOUR)]


def test_buckets_of_an_hour_are_not_read_from_days():
    ranges = split(MONDAY, MONDAY + 2 * DAY, grain="hour")

    assert (ranges.days, ranges.minutes) == ([], [])
    assert ranges.hours == [(MONDAY, MONDAY + 2 * DAY)]


def test_before_minutes_are_kept_hours_are_the_finest():
    ranges = split(
        MONDAY + 5 * MINUTE, MONDAY + 2 * DAY, kept_from=MONDAY + DAY, grain="hour"
    )

    assert ranges.hours == [(MONDAY + 5 * MINUTE, MONDAY + 2 * DAY)]
    assert split(MONDAY, MONDAY + HOUR, grain="minute", kept_from=MONDAY + DAY) == (
        grains.Ranges()
    )


def test_no_query_grows_beyond_two_ranges_a_day():
    every_other_hour = [MONDAY + number * 2 * HOUR for number in range(12 * 366)]

    ranges = split(MONDAY, MONDAY + 366 * DAY, unrolled=every_other_hour)

    assert len(ranges.minutes) <= 366
    assert len(ranges.hours) <= 367


minutes = st.integers(0, 6 * 24 * 60).map(lambda number: MONDAY + number * MINUTE)
hours = st.integers(0, 6 * 24).map(lambda number: MONDAY + number * HOUR)


@given(
    ends=st.tuples(minutes, minutes),
    grain=st.sampled_from(["minute", "hour", "day"]),
    unrolled=st.sets(hours),
    kept=st.integers(0, 6).map(lambda number: MONDAY + number * DAY),
)
def test_every_minute_is_read_once_from_something_that_knows_it(
    ends, grain, unrolled, kept
):
    starts_at, ends_at = sorted(ends)
    # Nothing waits to be rolled up before minutes are kept.
    unrolled = {hour for hour in unrolled if hour >= kept}

    ranges = split(starts_at, ends_at, grain=grain, unrolled=unrolled, kept_from=kept)

    at = max(MONDAY, kept)
    while at < MONDAY + 6 * DAY:
        read = [
            name
            for name, start_of in (("days", day_of), ("hours", hour_of))
            if _inside(start_of(at), getattr(ranges, name))
        ]
        read += ["minutes"] * _inside(at, ranges.minutes)
        assert len(read) == (starts_at <= at < ends_at)
        if hour_of(at) in unrolled:
            assert read in ([], ["minutes"])
        if grain != "day":
            assert "days" not in read
        at += 7 * MINUTE


def _inside(at, ranges):
    return sum(start <= at < end for start, end in ranges)
