import datetime
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from django.db import connection

from accounts.admission.limits import LeaseGrant, LeaseRequest, Recalled
from accounts.admission.windows import window_of
from accounts.customers import api_keys
from accounts.metering.event import UsageEvent
from accounts.models import ApiKey, Lease, QuotaCounter
from accounts.quotas import leases
from accounts.usage import recording
from tests.factories import ApiKeyFactory, CustomerFactory, issue_key

NOON = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
DAY = window_of("day", NOON.timestamp())[0]
MONTH = window_of("month", NOON.timestamp())[0]
# A connection for each thread: two of these tests at once are more than PostgreSQL
# takes with its usual settings.
many_connections = pytest.mark.xdist_group("many connections")


def ask(
    customer, units, minimum=1, *, quota="day", unit="rows", window_start=DAY, **holder
):
    return LeaseRequest(
        customer_id=customer.pk,
        quota=quota,
        unit=unit,
        window_start=window_start,
        units=units,
        minimum=minimum,
        **holder,
    )


def event(customer, rows, *, number=0, charged=True, at=NOON):
    return UsageEvent(
        id=f"boot-{number}",
        at=at.timestamp(),
        customer_id=customer.pk,
        key_id=f"key{customer.pk}",
        operation="predict",
        model="digits",
        version="1",
        variant="default",
        status=200,
        code="",
        rows=rows,
        charged=charged,
        compute_us=100,
        total_us=200,
        shap_samples=0,
        request_id="req_1",
    )


def granted():
    return QuotaCounter.objects.get().granted


@pytest.fixture
def customer(db):
    return CustomerFactory(plan__daily_quota=1000)


def test_units_are_lent_until_none_are_left(customer):
    assert leases.grant("a", ask(customer, 600)) == LeaseGrant(600, remaining=400)
    assert leases.grant("b", ask(customer, 600)) == LeaseGrant(400, 0, holders=2)
    assert leases.grant("a", ask(customer, 1)) == LeaseGrant(0, remaining=0, holders=2)
    assert granted() == 1000


def test_less_than_the_minimum_is_not_lent(customer):
    leases.grant("a", ask(customer, 950))

    assert leases.grant("a", ask(customer, 100, minimum=51)) == LeaseGrant(0, 50)
    assert leases.grant("a", ask(customer, 100, minimum=50)) == LeaseGrant(50, 0)


def test_a_key_and_its_customer_have_counters_of_their_own(customer):
    key = ApiKeyFactory(customer=customer, daily_quota=100)

    of_key = leases.grant("a", ask(customer, 500, key_id=key.key_id))
    of_customer = leases.grant("a", ask(customer, 500))

    assert of_key == LeaseGrant(100, remaining=0)
    assert of_customer == LeaseGrant(500, remaining=500)


def test_a_key_s_counter_begins_with_what_that_key_has_used(customer):
    key = ApiKeyFactory(customer=customer, daily_quota=100, key_id=f"key{customer.pk}")
    other = ApiKeyFactory(customer=customer, daily_quota=100)
    recording.record("boot-1.spool", [event(customer, 70)], 100)

    assert leases.grant("a", ask(customer, 500, key_id=key.key_id)).units == 30
    assert leases.grant("a", ask(customer, 500, key_id=other.key_id)).units == 100


def test_a_rotated_key_and_its_heirs_have_one_quota_together(customer):
    limits = api_keys.OwnLimits(daily_quota=100)
    old = issue_key(customer, limits=limits).key
    new = api_keys.rotate(old).key
    newest = api_keys.rotate(new).key
    old.refresh_from_db()
    for number, key in enumerate((old, new, newest)):
        spent = msgspec.structs.replace(event(customer, 20), key_id=key.key_id)
        recording.record(f"boot{number}-1.spool", [spent], 100)
    # Only the newest key's limit counts.
    ApiKey.objects.filter(pk=newest.pk).update(daily_quota=90)

    assert old.quota_key_id == new.quota_key_id == newest.quota_key_id == old.key_id
    assert leases.grant("boot0", ask(customer, 500, key_id=old.key_id)).units == 30
    assert leases.grant("boot1", ask(customer, 1, key_id=old.key_id)).units == 0
    # Only the dead holder's units that calls of the newer keys have spent stay.
    assert leases.settle("boot0") == 10


def test_days_and_months_are_counted_apart(customer):
    customer.plan.monthly_quota = 1500
    customer.plan.save()
    leases.grant("a", ask(customer, 1000))

    grant = leases.grant("a", ask(customer, 2000, quota="month", window_start=MONTH))

    assert grant == LeaseGrant(1500, remaining=0)
    tomorrow = leases.grant("a", ask(customer, 10, window_start=DAY + 86400))
    assert tomorrow == LeaseGrant(10, remaining=990)


def test_a_window_that_begins_nowhere_is_refused(customer):
    with pytest.raises(leases.InvalidWindow):
        leases.grant("a", ask(customer, 1, window_start=DAY + 3600))


def test_an_inactive_customer_is_lent_nothing(customer):
    customer.active = False
    customer.save()

    assert leases.grant("a", ask(customer, 1)) == LeaseGrant(0, 0, unknown=True)


def test_a_lowered_limit_holds_for_the_next_grant(customer):
    leases.grant("a", ask(customer, 600))
    customer.plan.daily_quota = 500
    customer.plan.save()

    assert leases.grant("a", ask(customer, 1)) == LeaseGrant(0, remaining=-100)


def test_a_raised_limit_holds_for_the_next_grant(customer):
    leases.grant("a", ask(customer, 1000))
    customer.plan.daily_quota = 1200
    customer.plan.save()

    assert leases.grant("a", ask(customer, 500)) == LeaseGrant(200, remaining=0)


def test_a_quota_that_is_gone_from_the_plan_limits_nobody(customer):
    customer.plan.daily_quota = None
    customer.plan.save()

    assert leases.grant("a", ask(customer, 5000)).units == 5000


def test_a_quota_added_in_mid_window_counts_what_was_used_before(customer):
    recording.record("boot-1.spool", [event(customer, 700)], 100)

    assert leases.grant("a", ask(customer, 1000)) == LeaseGrant(300, remaining=0)


def test_a_holder_that_has_less_than_it_was_lent_lost_the_rest(customer):
    leases.grant("a", ask(customer, 1000, 1000, number=1))

    # The answer never arrived.
    leases.grant("a", ask(customer, 0, 0, number=2, leased=0))

    assert granted() == 0


def test_a_request_that_was_overtaken_lends_nothing(customer):
    leases.grant("a", ask(customer, 10, number=2))

    assert leases.grant("a", ask(customer, 10, number=1)).units == 0
    assert granted() == 10


def test_what_was_overdrawn_is_counted_and_kept_on_record(customer):
    leases.grant("a", ask(customer, 10, 10, number=1))

    grant = leases.grant("a", ask(customer, 1, number=2, leased=10, overdrawn=7))

    assert grant.remaining == 1000 - 10 - 7 - 1
    lease = Lease.objects.get()
    assert (lease.granted, lease.overdrawn) == (18, 7)


def test_others_give_up_what_they_hold_before_anybody_is_refused(customer):
    leases.grant("a", ask(customer, 600, 600, number=1))
    leases.grant("b", ask(customer, 400, 400, number=1))
    asked = []

    def ask_holder(holder, recall):
        asked.append((holder, recall.customer_id, recall.quota))
        return Recalled(units=250, number=1)

    grant = leases.grant(
        "b", ask(customer, 5, 5, number=2, leased=400), ask_holder=ask_holder
    )

    assert asked == [("a", customer.pk, "day")]
    assert (grant.units, grant.remaining) == (5, 245)
    assert Lease.objects.get(holder="a").granted == 350


def test_nobody_is_asked_while_enough_is_left(customer):
    leases.grant("a", ask(customer, 600, 600))

    def ask_holder(holder, recall):
        raise AssertionError("a recall costs a round trip")

    assert leases.grant("b", ask(customer, 5), ask_holder=ask_holder).units > 0


def test_holders_that_do_not_answer_leave_the_refusal_as_it_was(customer):
    leases.grant("a", ask(customer, 1000, 1000))

    grant = leases.grant("b", ask(customer, 1), ask_holder=lambda *_: None)

    assert grant == LeaseGrant(0, remaining=0, holders=2)


def test_settling_returns_what_a_dead_holder_did_not_spend(customer):
    leases.grant("boot", ask(customer, 800))
    leases.grant("other", ask(customer, 100))
    recording.record(
        "boot-1.spool",
        [event(customer, 30), event(customer, 20), event(customer, 9, charged=False)],
        100,
    )
    recording.record("other-1.spool", [event(customer, 70)], 100)

    assert leases.settle("boot") == 750

    assert granted() == 150
    assert Lease.objects.get(holder="boot").granted == 50


def test_settling_twice_returns_nothing_more(customer):
    leases.grant("boot", ask(customer, 800, 800))
    leases.settle("boot")

    assert leases.settle("boot") == 0
    assert granted() == 0


def test_settling_finds_what_was_overdrawn_and_never_reported(customer):
    leases.grant("boot", ask(customer, 10, 10))
    recording.record("boot-1.spool", [event(customer, 25)], 100)

    assert leases.settle("boot") == -15

    assert granted() == 25
    assert Lease.objects.get().overdrawn == 15


def test_settling_counts_only_the_lease_s_own_window(customer):
    leases.grant("boot", ask(customer, 100))
    yesterday = NOON - datetime.timedelta(days=1)
    recording.record("boot-1.spool", [event(customer, 40, at=yesterday)], 100)

    assert leases.settle("boot") == 100


def test_a_holder_taken_for_dead_too_early_is_counted_right_in_the_end(customer):
    leases.grant("boot", ask(customer, 100))
    recording.record("boot-1.spool", [event(customer, 60)], 100)
    leases.settle("boot")
    leases.grant("boot", ask(customer, 50))
    recording.record("boot-1.spool", [event(customer, 10)], 200)

    assert leases.settle("boot") == 40
    assert granted() == 70


@many_connections
@pytest.mark.django_db(transaction=True)
def test_64_threads_are_lent_exactly_the_limit():
    customer = CustomerFactory(plan__daily_quota=1000)

    def take(thread: int) -> int:
        units = 0
        try:
            for block in (7, 3, 1, 19, 2):
                units += leases.grant(f"holder{thread}", ask(customer, block)).units
        finally:
            connection.close()
        return units

    with ThreadPoolExecutor(64) as pool:
        taken = list(pool.map(take, range(64)))

    # 64 threads ask for 2,048 in all.
    assert sum(taken) == granted() == 1000
    assert sum(lease.granted for lease in Lease.objects.all()) == 1000


@many_connections
@pytest.mark.django_db(transaction=True)
def test_racing_recalls_and_grants_lose_no_unit():
    customer = CustomerFactory(plan__daily_quota=200)

    def churn(thread: int) -> int:
        spent = number = 0
        holder = f"holder{thread}"
        try:
            for _ in range(6):
                number += 1
                asked = ask(customer, 10, number=number, leased=spent)
                spent += leases.grant(holder, asked).units > 0
            number += 1
            leases.grant(holder, ask(customer, 0, 0, number=number, leased=spent))
        finally:
            connection.close()
        return spent

    with ThreadPoolExecutor(16) as pool:
        spent = sum(pool.map(churn, range(16)))

    assert spent == granted() == sum(lease.granted for lease in Lease.objects.all())
    assert spent == 96


@many_connections
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("left", [1, 3])
def test_the_last_units_raced_by_64_have_as_many_winners(left):
    customer = CustomerFactory(plan__daily_quota=1000)
    leases.grant("first", ask(customer, 1000 - left, 1000 - left))

    def take(thread: int) -> int:
        try:
            return leases.grant(f"holder{thread}", ask(customer, 1)).units
        finally:
            connection.close()

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(take, range(64))) == left
