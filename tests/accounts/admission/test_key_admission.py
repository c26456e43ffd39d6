import pytest

from accounts.admission.admission import Refusal
from accounts.admission.admissions import Admissions
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.limits import KeyLimits, LeaseRequest, Quota, Rate, Recall
from tests.accounts.admission.test_admission import DAY, NOON, Site, limits, named

PLAN = limits(Rate("burst", 10, 1), quotas=(DAY,))
OWN = KeyLimits(rates=(Rate("burst", 3, 1),), quotas=(Quota("day", "rows", 100),))


class Sites:
    """Lend the customer's units and the key's, each from a counter of its own."""

    def __init__(self):
        self.of_customer = Site(DAY)
        self.of_key = Site(OWN.quotas[0])

    def grant(self, request):
        site = self.of_key if request.key_id else self.of_customer
        return site.grant(request)


@pytest.fixture
def admissions():
    return Admissions()


def find(admissions, key_id="k", own=OWN):
    return admissions.find(customer_id=1, limits=PLAN, key_id=key_id, key_limits=own)


def spend(admission, sites, rows):
    outcome = admission.spend(rows, NOON)
    while isinstance(outcome, LeaseRequest):
        admission.accept(outcome, sites.grant(outcome), NOON)
        outcome = admission.spend(rows, NOON)
    return outcome


def test_a_key_without_limits_of_its_own_uses_its_customers_counts(admissions):
    first = find(admissions, "a", own=None)
    second = find(admissions, "b", own=None)

    assert first is second


def test_an_unrecorded_call_of_an_heir_gives_back_what_both_keys_share(admissions):
    sites = Sites()
    heir = admissions.find(
        customer_id=1, limits=PLAN, key_id="b", key_limits=OWN, quota_key_id="k"
    )
    assert spend(heir, sites, 100) is None
    assert isinstance(spend(find(admissions), sites, 100), Refusal)

    admissions.refund(customer_id=1, key_id="b", rows=100, now=NOON)

    assert spend(find(admissions), sites, 100) is None


def test_a_key_is_refused_beyond_its_own_rate(admissions):
    admission = find(admissions)

    outcomes = [admission.enter(NOON) for _ in range(5)]

    assert outcomes.count(None) == 3


def test_what_the_key_refuses_is_not_counted_for_its_customer(admissions):
    limited, free = find(admissions), find(admissions, "b", own=None)
    for _ in range(20):
        limited.enter(NOON)

    assert [free.enter(NOON) for _ in range(20)].count(None) == 7


def test_what_the_customer_refuses_is_not_counted_for_the_key(admissions):
    limited, free = find(admissions), find(admissions, "b", own=None)
    for _ in range(10):
        free.enter(NOON)

    assert limited.enter(NOON) is not None

    assert dict(limited.key.headers(NOON))[b"X-RateLimit-Remaining"] == b"3"


def test_a_quota_of_the_key_is_spent_beside_that_of_its_customer(admissions):
    admission, sites = find(admissions), Sites()

    outcomes = [spend(admission, sites, 10) for _ in range(12)]

    assert outcomes.count(None) == 10
    refusal = outcomes[-1]
    assert isinstance(refusal, Refusal)
    assert "quota of 100 rows" in refusal.message
    free = find(admissions, "b", own=None)
    assert [spend(free, sites, 10) for _ in range(95)].count(None) == 90


def test_a_refund_goes_to_both(admissions):
    admission, sites = find(admissions), Sites()
    spend(admission, sites, 100)

    admissions.refund(customer_id=1, key_id="k", rows=100, now=NOON)

    assert spend(admission, sites, 100) is None


def test_headers_describe_what_is_nearer_to_exhaustion(admissions):
    admission = find(admissions)
    admission.enter(NOON)
    admission.enter(NOON)

    assert named(admission, NOON)["X-RateLimit-Limit"] == "3"


def test_a_key_counts_on_after_a_change_of_its_limits(admissions):
    admission = find(admissions)
    for _ in range(3):
        admission.enter(NOON)

    larger = find(admissions, own=KeyLimits(rates=(Rate("burst", 4, 1),)))

    assert isinstance(larger, KeyAdmission)
    assert [larger.enter(NOON) for _ in range(3)].count(None) == 1


def test_units_of_a_key_are_recalled_by_its_name(admissions):
    quota = Quota("day", "rows", 1000)
    admission = find(admissions, own=KeyLimits(quotas=(quota,)))
    sites = Sites()
    sites.of_key = Site(quota)
    spend(admission, sites, 1)
    held = admission.key.held()

    recall = Recall(
        customer_id=1,
        key_id="k",
        quota="day",
        unit="rows",
        window_start=admission.key.quotas()[0].starts,
    )

    assert held > 0
    assert admissions.recall(recall).units == held
    assert admission.customer.held() > 0
