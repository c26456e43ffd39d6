import math
import random

import pytest

from accounts.admission.admission import Admission
from accounts.admission.back_off import FORGIVEN_S, LONGEST_S, TOLERATED, BackOffs
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.limits import KeyLimits, Quota, Rate
from accounts.admission.shared_counts import CLOSED_UNTIL, SharedCounts
from tests.accounts.admission.test_admission import NOON, limits

MINUTE = limits(Rate("sustained", 1, 60))
SECOND = limits(Rate("burst", 1, 1))


class Caller:
    """A key as a gateway sees it: its back-off, then its limits."""

    def __init__(self, counts, plan, *, key_id="k", admission=None):
        self.back_offs = BackOffs(counts)
        self.admission = admission or Admission(1, plan)
        self.back_off = self.back_offs.of_key(key_id, self.admission, None)

    def call(self, now):
        refusal = self.back_off.refusal(now)
        if refusal is None:
            refusal = self.admission.enter(now)
            if refusal is None:
                self.admission.leave()
            else:
                self.back_off.note(refusal, now)
        return refusal

    def hammer(self, now, *, calls=TOLERATED + 1):
        """Use up the limit and go on, within a millisecond; return the last refusal."""
        for call in range(calls + 1):
            refusal = self.call(now + call / 1e6)
        return refusal

    def hammer_on(self, now):
        """Hammer, and go on after the second's end, while the key is closed."""
        self.hammer(now)
        for call in range(TOLERATED + 2):
            refusal = self.call(now + 1.5 + call / 1e6)
        return refusal


@pytest.fixture
def counts(tmp_path):
    return SharedCounts(tmp_path / "counts")


def test_a_key_that_goes_on_while_refused_is_closed_beyond_the_window(counts):
    caller = Caller(counts, MINUTE)
    told = caller.hammer(NOON, calls=TOLERATED)
    assert told.limit_name == "sustained"
    assert told.retry_after_s == pytest.approx(60, abs=0.01)

    caller.call(NOON + 0.1)
    closed = caller.call(NOON + 0.2)

    assert closed.limit_name == "backoff"
    assert closed.kind == "rate"
    assert closed.limit.scope == "key"
    assert closed.retry_after_s == pytest.approx(60.8, abs=0.01)
    # The window is over, the wait is not.
    assert caller.call(NOON + 60.5).limit_name == "backoff"
    assert caller.call(NOON + closed.retry_after_s + 0.2) is None


def test_the_end_of_a_wait_never_moves(counts):
    caller = Caller(counts, SECOND)
    caller.hammer(NOON)
    ends = NOON + 2

    waits = [caller.call(NOON + 0.01 + call / 1000) for call in range(1900)]

    assert {wait.limit_name for wait in waits} == {"backoff"}
    assert all(
        NOON + 0.01 + call / 1000 + wait.retry_after_s == pytest.approx(ends, abs=0.01)
        for call, wait in enumerate(waits)
    )
    assert caller.call(ends + 0.01) is None


def test_calls_that_were_let_in_before_do_not_move_it_either(counts):
    caller = Caller(counts, MINUTE)
    told = caller.hammer(NOON)
    before = caller.call(NOON + 0.2)

    for _ in range(5 * TOLERATED):
        caller.back_off.note(told, NOON + 0.3)

    assert caller.call(NOON + 0.2).retry_after_s == before.retry_after_s


def test_waits_double_up_to_the_longest(counts):
    caller = Caller(counts, SECOND)
    now, waits = NOON, []
    for _ in range(12):
        closed = caller.hammer_on(now)
        # And what had passed since the end of the second that was used up.
        waits.append(round(closed.retry_after_s + 0.5))
        now = round(now + 1.5 + closed.retry_after_s)

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert waits[-1] == LONGEST_S


def test_a_minute_without_begins_anew(counts):
    caller = Caller(counts, SECOND)
    caller.hammer_on(NOON)
    caller.hammer_on(NOON + 10)
    assert caller.call(NOON + 10.5).retry_after_s == pytest.approx(2.5, abs=0.01)

    later = NOON + 13 + FORGIVEN_S + 1
    caller.hammer(later)

    assert caller.call(later + 0.5).retry_after_s == pytest.approx(1.5, abs=0.01)


def wait_after_the_next(caller, now):
    """Hammer in the minute that begins now; return how much longer the wait is."""
    caller.hammer(now)
    return caller.call(now + 0.5).retry_after_s - 59.5


@pytest.mark.parametrize(
    ("early_s", "allowed"),
    # In the window; after it, with those that the limit told to come then.
    [(1.1, TOLERATED), (59.9, TOLERATED), (60.1, TOLERATED + 1)],
)
def test_waits_grow_with_calls_that_come_too_early_alone(tmp_path, early_s, allowed):
    for calls, longer_s in ((allowed, 1), (allowed + 1, 2)):
        caller = Caller(SharedCounts(tmp_path / str(calls)), MINUTE)
        caller.hammer(NOON)
        for call in range(calls):
            assert caller.call(NOON + early_s + call / 1e6).limit_name == "backoff"

        assert wait_after_the_next(caller, NOON + 120) == pytest.approx(longer_s)


def test_a_crowd_is_over_after_a_second(counts):
    caller = Caller(counts, MINUTE)
    caller.hammer(NOON)
    for call in range(500):
        assert caller.call(NOON + 0.9 + call / 1e6).limit_name == "backoff"

    assert wait_after_the_next(caller, NOON + 120) == pytest.approx(1)


def test_those_that_waited_may_come_back_a_second_late(counts):
    """`Retry-After` is in whole seconds: they find the key open, or closed anew."""
    caller = Caller(counts, SECOND)
    caller.hammer(NOON)
    caller.hammer(NOON + 2)
    for call in range(500):
        assert caller.call(NOON + 3.2 + call / 1e6).limit_name == "backoff"

    caller.hammer(NOON + 4)

    assert caller.call(NOON + 4.5).retry_after_s == pytest.approx(1.5)


def test_all_gateways_count_calls_that_come_too_early(tmp_path):
    path = tmp_path / "counts"
    callers = [
        Caller(SharedCounts(path, process=n, processes=2), MINUTE) for n in range(2)
    ]
    callers[0].hammer(NOON)
    for call in range(TOLERATED + 1):
        callers[call % 2].call(NOON + 2 + call / 1e6)

    assert wait_after_the_next(callers[1], NOON + 120) == pytest.approx(2)


def test_calls_for_a_spent_quota_are_too_early_until_it_opens(counts):
    plan = limits(quotas=(Quota("day", "requests", 0),))
    caller = Caller(counts, plan)
    for start, closed_s in ((NOON, 1), (NOON + 10, 2), (NOON + 20, 4)):
        refusal = caller.admission.lacks(1, start, explains=False)
        for _ in range(TOLERATED + 1):
            caller.back_off.note(refusal, start)

        assert caller.back_off.refusal(start + closed_s - 0.1) is not None
        assert caller.back_off.refusal(start + closed_s + 0.1) is None


@pytest.mark.parametrize("limit", [1, TOLERATED, 300])
def test_as_many_clients_as_a_limit_admits_may_share_a_key(counts, limit):
    """Each is refused once in a window, and waits: nobody is ever closed out."""
    caller = Caller(counts, limits(Rate("burst", limit, 1)))
    clients = limit + max(limit, TOLERATED)
    admitted = 0
    for second in range(20):
        outcomes = [caller.call(NOON + second + i / 1000) for i in range(clients)]
        assert "backoff" not in {refusal.limit_name for refusal in outcomes if refusal}
        admitted += outcomes.count(None)

    assert admitted == 20 * limit


def test_other_keys_of_the_customer_find_the_more_room(counts):
    plan = limits(Rate("burst", 5, 1))
    admission = Admission(1, plan)
    loud = Caller(counts, plan, key_id="loud", admission=admission)
    quiet = Caller(counts, plan, key_id="quiet", admission=admission)
    loud.hammer(NOON, calls=TOLERATED + 5)

    assert loud.call(NOON + 1.5).limit_name == "backoff"
    assert [quiet.call(NOON + 1.5) for _ in range(5)] == [None] * 5


def test_a_full_house_is_no_cause(counts):
    admission = Admission(1, limits(max_concurrency=1))
    caller = Caller(counts, None, admission=admission)
    assert admission.enter(NOON) is None

    refusals = [caller.call(NOON + call / 1000) for call in range(500)]

    assert {refusal.limit_name for refusal in refusals} == {"concurrency"}


def test_a_spent_quota_closes_for_seconds_and_says_when_it_opens(counts):
    plan = limits(quotas=(Quota("day", "requests", 0),))
    caller = Caller(counts, plan)
    for call in range(TOLERATED + 1):
        refusal = caller.admission.lacks(1, NOON, explains=False)
        caller.back_off.note(refusal, NOON + call / 1000)

    closed = caller.back_off.refusal(NOON + 0.5)

    # Units may come back at any time, so it is asked again after a second.
    assert closed.retry_after_s == 12 * 3600 - 0.5
    assert caller.back_off.refusal(NOON + 1.1) is None


def test_a_request_too_large_for_the_rest_of_a_quota_is_no_cause(counts):
    plan = limits(quotas=(Quota("day", "rows", 10),))
    caller = Caller(counts, plan)
    refusal = caller.admission.lacks(11, NOON, explains=False)

    for _ in range(500):
        caller.back_off.note(refusal, NOON)

    assert caller.back_off.refusal(NOON) is None


@pytest.mark.parametrize(
    "changed", [limits(Rate("sustained", 2, 60)), limits(Rate("burst", 1, 1))]
)
def test_changed_limits_forget_the_wait(counts, changed):
    caller = Caller(counts, MINUTE)
    caller.hammer(NOON)
    assert caller.call(NOON + 1).limit_name == "backoff"

    caller.admission.replace_limits(changed)

    assert caller.back_off.refusal(NOON + 1) is None


def test_all_gateways_of_a_machine_close_a_key_together(tmp_path):
    path = tmp_path / "counts"
    one, other = (
        Caller(SharedCounts(path, process=n, processes=2), MINUTE) for n in range(2)
    )
    one.hammer(NOON)

    assert other.back_off.cells[CLOSED_UNTIL] > NOON + 60
    assert other.call(NOON + 1).limit_name == "backoff"
    # Each counts those that it closed itself: the sum is right.
    assert (one.back_offs.closed_now(NOON + 1), other.back_offs.closed_now(NOON)) == (
        1,
        0,
    )
    assert one.back_offs.closed_now(NOON + 62) == 0


def test_a_key_with_limits_of_its_own_backs_off_too(counts):
    own = KeyLimits(rates=(Rate("key-burst", 1, 1),))
    key = Admission(1, limits(*own.rates), key_id="k")
    admission = KeyAdmission(key, Admission(1, MINUTE))
    caller = Caller(counts, None, admission=admission)

    caller.hammer(NOON)

    assert caller.call(NOON + 0.5).limit_name == "backoff"


@pytest.mark.parametrize("jump_s", [-86_400, -3600, -100, -1, 1, 100, 3600, 86_400])
def test_a_clock_that_jumps_locks_nobody_out_for_long(counts, jump_s):
    caller = Caller(counts, MINUTE)
    for start in range(5):
        caller.hammer(NOON + 120 * start)

    after = NOON + 480 + jump_s
    waited = 0.0
    while (refusal := caller.call(after + waited)) is not None:
        waited += max(1.0, refusal.retry_after_s)

    # The rest of the wait, the jump itself, and a window of one minute.
    assert waited <= 60 + LONGEST_S + 60


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_clock_does_an_obedient_key_is_never_closed(tmp_path, seed):
    choice = random.Random(seed)
    counts = SharedCounts(tmp_path / "counts")
    plan = limits(Rate("burst", 3, 1), Rate("sustained", 20, 60))
    admission = Admission(1, plan)
    loud = Caller(counts, plan, key_id="loud", admission=admission)
    good = Caller(counts, plan, key_id="good", admission=admission)
    now, offset, may_call = NOON, 0.0, NOON
    for _ in range(20_000):
        now += choice.expovariate(100)
        if choice.random() < 0.0005:
            offset = choice.choice([-3600, -30, -2, 0, 2, 30, 3600])
        loud.call(now + offset)
        if now < may_call:
            continue
        refusal = good.call(now + offset)
        if refusal is not None:
            assert refusal.limit_name != "backoff"
            may_call = now + math.ceil(refusal.retry_after_s)


def test_what_is_kept_of_keys_takes_no_more_room_with_each(tmp_path):
    path = tmp_path / "counts"
    counts = SharedCounts(path)
    size = path.stat().st_size
    closed = 0
    for number in range(300):
        caller = Caller(counts, SECOND, key_id=f"key {number}")
        caller.hammer(NOON)
        closed += caller.back_off.refusal(NOON + 0.5) is not None

    assert closed == 300
    assert path.stat().st_size == size
