import datetime
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.admission.admission import Admission, Refusal
from accounts.admission.limits import LeaseGrant, LeaseRequest, Limits, Quota, Rate
from accounts.admission.windows import window_of
from tests import torture

# The 21st of November 2026, 12:00:00 UTC: a whole minute.
NOON = 1_795_262_400.0


def limits(*rates: Rate, quotas: tuple[Quota, ...] = (), **kwargs: Any) -> Limits:
    return Limits(plan="test", rates=rates, quotas=quotas, **kwargs)


class Site:
    """Grant leases as the database does: never more than the limit per window."""

    def __init__(self, *quotas: Quota) -> None:
        self.limits = {(quota.name, quota.unit): quota.limit for quota in quotas}
        self.granted: dict[tuple[str, str, int], int] = {}
        self.asked = 0

    def grant(self, request: LeaseRequest) -> LeaseGrant:
        self.asked += 1
        window = (request.quota, request.unit, request.window_start)
        granted = self.granted.get(window, 0)
        left = self.limits[request.quota, request.unit] - granted
        units = min(max(0, left), request.units)
        if units < request.minimum:
            units = 0
        self.granted[window] = granted + units
        return LeaseGrant(units=units, remaining=left - units)


def spend(admission: Admission, site: Site, rows: int, now: float) -> Refusal | None:
    outcome = admission.spend(rows, now)
    while isinstance(outcome, LeaseRequest):
        admission.accept(outcome, site.grant(outcome), now)
        outcome = admission.spend(rows, now)
    return outcome


def named(admission: Admission, now: float) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in admission.headers(now)}


# Rates


def test_a_rate_admits_exactly_its_quota_in_one_window():
    admission = Admission(1, limits(Rate("burst", 20, 1)))

    outcomes = [admission.enter(NOON + i / 100) for i in range(100)]

    assert outcomes.count(None) == 20
    assert outcomes[:20] == [None] * 20


def test_a_new_window_starts_at_a_multiple_of_its_length():
    admission = Admission(1, limits(Rate("sustained", 1, 60)))

    assert admission.enter(NOON + 59.9) is None
    assert admission.enter(NOON + 59.99) is not None
    assert admission.enter(NOON + 60) is None


def test_nothing_is_counted_unless_every_rate_has_room():
    admission = Admission(1, limits(Rate("burst", 1, 1), Rate("sustained", 5, 60)))

    for second in range(3):
        assert admission.enter(NOON + second) is None
        for _ in range(10):
            refusal = admission.enter(NOON + second + 0.5)
            assert refusal is not None
            assert refusal.limit_name == "burst"

    # Three calls were counted against the minute, not thirty-three.
    assert admission.enter(NOON + 3) is None
    assert admission.enter(NOON + 4) is None
    refusal = admission.enter(NOON + 5)
    assert refusal is not None
    assert refusal.limit_name == "sustained"


def test_a_refusal_names_the_limit_that_opens_last():
    admission = Admission(1, limits(Rate("burst", 1, 1), Rate("sustained", 1, 60)))
    admission.enter(NOON)

    refusal = admission.enter(NOON + 0.25)

    assert refusal is not None
    assert refusal.kind == "rate"
    assert refusal.limit_name == "sustained"
    assert refusal.retry_after_s == 59.75


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 90)), min_size=1, max_size=3),
    st.lists(st.floats(0, 3), max_size=80),
    st.floats(NOON, NOON + 1e6),
)
def test_a_client_that_waits_as_told_gets_past_that_limit(rates, gaps, start):
    admission = Admission(
        1, limits(*(Rate(f"rate{i}", *rate) for i, rate in enumerate(rates)))
    )
    now = start
    for gap in gaps:
        now += gap
        refusal = admission.enter(now)
        if refusal is None:
            continue
        now += refusal.retry_after_s
        again = admission.enter(now)
        assert again is None or again.limit_name != refusal.limit_name


@settings(max_examples=torture.examples(50))
@given(st.integers(0, 2**32))
def test_no_window_ever_admits_more_than_its_quota(seed: int):
    choice = random.Random(seed)
    rates = (Rate("burst", 7, 1), Rate("sustained", 40, 10))
    admission = Admission(1, limits(*rates))
    admitted: dict[tuple[str, int], int] = {}
    now = NOON
    for _ in range(600):
        now += choice.expovariate(15)
        # A clock that is put back by up to the shorter window.
        seen = now - choice.choice([0, 0, 0, 0.5])
        if admission.enter(seen) is None:
            admission.leave()
            for rate in rates:
                window = (rate.name, int(now // rate.window_s))
                admitted[window] = admitted.get(window, 0) + 1

    # Windows follow the clock shown, at most half a second behind the true one; so
    # the true second may hold the end of one window and one whole other.
    assert max(n for (name, _), n in admitted.items() if name == "burst") <= 14
    assert max(n for (name, _), n in admitted.items() if name == "sustained") <= 47


def test_a_clock_that_steps_back_a_little_gives_no_second_helping():
    admission = Admission(1, limits(Rate("burst", 2, 1)))
    assert [admission.enter(NOON + 1.0) for _ in range(2)] == [None, None]

    assert admission.enter(NOON + 0.9) is not None
    assert admission.enter(NOON + 1.1) is not None


def test_a_clock_that_steps_back_an_hour_locks_nobody_out():
    admission = Admission(1, limits(Rate("burst", 2, 1)))
    assert [admission.enter(NOON) for _ in range(2)] == [None, None]

    assert admission.enter(NOON - 3600) is not None
    assert admission.enter(NOON - 3599) is None


def test_new_limits_keep_what_was_counted():
    admission = Admission(1, limits(Rate("sustained", 10, 60)))
    for _ in range(8):
        admission.enter(NOON)

    admission.replace_limits(limits(Rate("sustained", 9, 60)))

    assert admission.enter(NOON + 1) is None
    assert admission.enter(NOON + 1) is not None
    admission.replace_limits(limits(Rate("sustained", 11, 60)))
    assert admission.enter(NOON + 2) is None
    assert admission.enter(NOON + 2) is None
    assert admission.enter(NOON + 2) is not None


def test_a_longer_window_keeps_what_was_counted():
    admission = Admission(1, limits(Rate("sustained", 3, 60)))
    for _ in range(3):
        admission.enter(NOON)

    admission.replace_limits(limits(Rate("sustained", 3, 3600)))

    assert admission.enter(NOON + 120) is not None
    assert admission.enter(NOON + 3600) is None


def test_concurrency_counts_calls_until_they_leave():
    admission = Admission(1, limits(max_concurrency=2))
    assert admission.enter(NOON) is None
    assert admission.enter(NOON) is None

    refusal = admission.enter(NOON)

    assert refusal is not None
    assert refusal.kind == "concurrency"
    assert refusal.retry_after_s > 0
    admission.leave()
    assert admission.enter(NOON) is None


def test_a_call_refused_for_its_rate_holds_no_concurrency():
    admission = Admission(1, limits(Rate("burst", 1, 1), max_concurrency=1))
    admission.enter(NOON)
    admission.leave()
    admission.enter(NOON)

    assert admission.enter(NOON + 1) is None


# Quotas

DAY = Quota("day", "rows", 1000)
MONTH = Quota("month", "rows", 5000)


def test_a_quota_is_spent_to_the_last_unit_and_no_further():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))

    outcomes = [spend(admission, site, 1, NOON) for _ in range(1500)]

    assert outcomes.count(None) == 1000
    assert outcomes[:1000] == [None] * 1000


def test_a_spent_quota_says_when_it_opens_again():
    site = Site(Quota("day", "rows", 1))
    admission = Admission(1, limits(quotas=(Quota("day", "rows", 1),)))
    spend(admission, site, 1, NOON)

    refusal = spend(admission, site, 1, NOON)

    assert refusal is not None
    assert refusal.kind == "quota"
    assert refusal.limit_name == "day"
    assert refusal.retry_after_s == 12 * 3600
    assert spend(admission, site, 1, NOON + refusal.retry_after_s) is None


def test_a_request_that_does_not_fit_leaves_the_rest_for_smaller_ones():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))
    spend(admission, site, 960, NOON)

    refusal = spend(admission, site, 50, NOON)

    assert refusal is not None
    assert "40 of 1000 rows are left" in refusal.message
    assert spend(admission, site, 40, NOON) is None
    assert spend(admission, site, 1, NOON) is not None


def test_a_request_larger_than_the_whole_quota_is_told_so():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))

    refusal = spend(admission, site, 1001, NOON)

    assert refusal is not None
    assert "more than the whole daily quota of 1000" in refusal.message


def test_one_quota_without_room_leaves_the_other_untouched():
    small = Quota("month", "rows", 100)
    site = Site(DAY, small)
    admission = Admission(1, limits(quotas=(DAY, small)))
    assert spend(admission, site, 60, NOON) is None
    for _ in range(5):
        assert spend(admission, site, 60, NOON) is not None

    admission.replace_limits(limits(quotas=(DAY,)))
    for _ in range(940):
        assert spend(admission, site, 1, NOON) is None
    assert spend(admission, site, 1, NOON) is not None


def test_a_quota_of_requests_counts_calls_whatever_their_rows():
    quota = Quota("day", "requests", 3)
    site = Site(quota)
    admission = Admission(1, limits(quotas=(quota,)))

    outcomes = [spend(admission, site, 500, NOON) for _ in range(4)]

    assert outcomes[:3] == [None] * 3
    assert outcomes[3] is not None


def test_refunded_units_can_be_spent_again():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))
    assert spend(admission, site, 1000, NOON) is None

    admission.refund(300, NOON)

    assert spend(admission, site, 300, NOON) is None
    assert spend(admission, site, 1, NOON) is not None


def test_a_refund_from_yesterday_does_not_enlarge_today():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))
    spend(admission, site, 500, NOON)
    tomorrow = NOON + 86400
    spend(admission, site, 1000, tomorrow)

    admission.refund(500, NOON)

    assert spend(admission, site, 1, tomorrow) is not None


def test_a_grant_for_a_window_that_is_over_is_not_spent():
    admission = Admission(1, limits(quotas=(DAY,)))
    request = admission.spend(10, NOON)
    assert isinstance(request, LeaseRequest)
    tomorrow = NOON + 86400
    assert isinstance(admission.spend(10, tomorrow), LeaseRequest)

    admission.accept(request, LeaseGrant(units=10, remaining=0), tomorrow)

    assert isinstance(admission.spend(10, tomorrow), LeaseRequest)


def test_exhaustion_is_remembered_without_asking_again():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))
    spend(admission, site, 1000, NOON)
    spend(admission, site, 1, NOON)
    asked = site.asked

    for _ in range(100):
        assert isinstance(admission.spend(1, NOON + 1), Refusal)

    assert site.asked == asked


def test_a_customer_switched_off_and_on_again_is_not_refused_for_long():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))
    request = admission.spend(1, NOON)
    assert isinstance(request, LeaseRequest)
    admission.accept(request, LeaseGrant(0, remaining=0, unknown=True), NOON)
    assert isinstance(admission.spend(1, NOON + 0.5), Refusal)

    assert spend(admission, site, 1, NOON + 1) is None


def test_a_site_without_units_is_asked_ever_later():
    site = Site(Quota("day", "rows", 0))
    admission = Admission(1, limits(quotas=(Quota("day", "rows", 0),)))

    for tenth in range(6000):
        spend(admission, site, 1, NOON + tenth / 10)

    # Ten minutes: after 2, 4, 8, 16, 32 s, then every minute.
    assert 12 <= site.asked <= 16


def test_units_that_another_process_gave_back_are_found_within_a_minute():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))
    site.granted["day", "rows", int(NOON) - 12 * 3600] = 1000
    assert spend(admission, site, 1, NOON) is not None
    site.granted["day", "rows", int(NOON) - 12 * 3600] = 400

    assert spend(admission, site, 1, NOON + 60) is None


def test_a_raised_limit_opens_a_spent_quota_at_once():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))
    spend(admission, site, 1000, NOON)
    assert spend(admission, site, 1, NOON) is not None
    larger = Quota("day", "rows", 1200)
    site.limits["day", "rows"] = 1200

    admission.replace_limits(limits(quotas=(larger,)))

    outcomes = [spend(admission, site, 1, NOON) for _ in range(300)]
    assert outcomes.count(None) == 200


def test_a_lowered_limit_takes_back_units_in_hand():
    plenty = Quota("day", "rows", 100_000)
    site = Site(plenty)
    admission = Admission(1, limits(quotas=(plenty,)))
    for _ in range(150):
        assert spend(admission, site, 1, NOON) is None
    site.limits["day", "rows"] = 160

    admission.replace_limits(limits(quotas=(Quota("day", "rows", 160),)))

    outcomes = [spend(admission, site, 1, NOON) for _ in range(200)]
    assert outcomes.count(None) <= 10


def test_units_withheld_under_a_lowered_limit_return_with_the_old_one():
    plenty = Quota("day", "rows", 100_000)
    site = Site(plenty)
    admission = Admission(1, limits(quotas=(plenty,)))
    spend(admission, site, 1, NOON)
    held = admission.held()
    assert held > 0

    admission.replace_limits(limits(quotas=(Quota("day", "rows", 1),)))
    admission.replace_limits(limits(quotas=(plenty,)))

    assert admission.held() == held
    assert admission.spend(held, NOON) is None


def test_what_is_held_and_what_was_spent_add_up_to_what_was_granted():
    site = Site(DAY, MONTH)
    admission = Admission(7, limits(quotas=(DAY, MONTH)))
    for _ in range(21):
        spend(admission, site, 3, NOON)

    before = dict(site.granted)
    requests = admission.release()

    assert {request.quota for request in requests} == {"day", "month"}
    for request in requests:
        window = (request.quota, request.unit, request.window_start)
        assert (request.units, request.minimum, request.leased) == (0, 0, 63)
        assert before[window] > 63
    assert admission.held() == 0


def test_little_is_leased_ahead_near_the_limit():
    site = Site(DAY)
    admission = Admission(1, limits(quotas=(DAY,)))
    spend(admission, site, 985, NOON)

    request = admission.spend(1, NOON)

    assert isinstance(request, LeaseRequest)
    assert request.units == request.minimum == 1


def test_fast_spending_needs_few_leases():
    plenty = Quota("month", "rows", 10**9)
    site = Site(plenty)
    admission = Admission(1, limits(quotas=(plenty,)))

    for call in range(100_000):
        assert spend(admission, site, 1, NOON + call / 10_000) is None

    assert site.asked < 40


@settings(max_examples=torture.examples(60), deadline=None)
@given(st.integers(0, 2**32))
def test_several_holders_together_never_exceed_a_quota(seed: int):
    """Spends, refunds, plan changes and clock steps, by three holders of one site."""
    choice = random.Random(seed)
    day, month = Quota("day", "rows", 300), Quota("month", "rows", 900)
    site = Site(day, month)
    plan = limits(quotas=(day, month))
    holders = [Admission(1, plan) for _ in range(3)]
    spent: dict[tuple[str, int], int] = {}
    now = NOON
    for _ in range(400):
        now += choice.choice([0.01, 60, 4000])
        seen = now - choice.choice([0, 0, 0, 5])
        holder = choice.choice(holders)
        rows = choice.choice([1, 1, 7, 40])
        if spend(holder, site, rows, seen) is not None:
            continue
        if choice.random() < 0.2:
            holder.refund(rows, seen)
            continue
        for name in ("day", "month"):
            # Just after midnight, a clock put back may belong to either side.
            starts = max(window_of(name, seen)[0], window_of(name, now)[0])
            if window_of(name, seen) == window_of(name, now):
                spent[name, starts] = spent.get((name, starts), 0) + rows

    assert spent
    assert all(n <= (300 if name == "day" else 900) for (name, _), n in spent.items())
    for (_, _, _), granted in site.granted.items():
        assert granted <= 900


def test_months_follow_the_calendar():
    at = datetime.datetime(2028, 2, 29, 23, 59, tzinfo=datetime.UTC).timestamp()

    starts, ends = window_of("month", at)

    assert datetime.datetime.fromtimestamp(starts, datetime.UTC).day == 1
    assert (ends - starts) // 86400 == 29


# Headers


def test_headers_describe_the_limit_nearest_to_exhaustion():
    admission = Admission(1, limits(Rate("burst", 20, 1), Rate("sustained", 300, 60)))
    for call in range(53):
        assert admission.enter(NOON + call / 10) is None

    headers = named(admission, NOON + 26)

    assert headers == {
        "X-RateLimit-Limit": "300",
        "X-RateLimit-Remaining": "247",
        "X-RateLimit-Reset": str(int(NOON) + 60),
        "RateLimit-Policy": '"burst";q=20;w=1, "sustained";q=300;w=60',
        "RateLimit": '"sustained";r=247;t=34',
    }


@pytest.mark.parametrize(
    ("calls", "limit", "remaining", "reset"),
    [(3, b"20", b"17", 1), (0, b"20", b"20", 1)],
)
def test_headers_count_down(calls, limit, remaining, reset):
    admission = Admission(1, limits(Rate("burst", 20, 1), Rate("sustained", 300, 60)))
    for _ in range(calls):
        admission.enter(NOON)

    headers = dict(admission.headers(NOON))

    assert headers[b"X-RateLimit-Limit"] == limit
    assert headers[b"X-RateLimit-Remaining"] == remaining
    assert headers[b"X-RateLimit-Reset"] == b"%d" % (int(NOON) + reset)


def test_headers_of_a_refused_call_show_nothing_left():
    admission = Admission(1, limits(Rate("burst", 1, 1), Rate("sustained", 3, 60)))
    for second in range(4):
        admission.enter(NOON + second)

    headers = named(admission, NOON + 26)

    assert headers["X-RateLimit-Limit"] == "3"
    assert headers["X-RateLimit-Remaining"] == "0"
    assert headers["RateLimit"] == '"sustained";r=0;t=34'


def test_headers_show_what_is_left_of_a_quota():
    site = Site(DAY)
    admission = Admission(1, limits(Rate("burst", 10**6, 1), quotas=(DAY,)))
    spend(admission, site, 100, NOON)

    headers = named(admission, NOON)

    assert headers["X-RateLimit-Limit"] == "1000"
    assert headers["X-RateLimit-Remaining"] == "900"
    assert headers["X-RateLimit-Reset"] == str(int(NOON) + 12 * 3600)
    assert '"day";q=1000;w=86400;qu="rows"' in headers["RateLimit-Policy"]


def test_without_limits_there_are_no_headers():
    assert Admission(1, limits()).headers(NOON) == []
