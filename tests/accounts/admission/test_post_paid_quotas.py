"""Quotas in units whose cost is known only when a call is over."""

import pytest

from accounts.admission.admission import Admission, Refusal
from accounts.admission.limits import LeaseRequest, Quota
from tests.accounts.admission.test_admission import NOON, Site, limits, named, spend

DEVICE = Quota("day", "compute_ms", 1000)
SAMPLES = Quota("day", "shap_samples", 1000)


@pytest.fixture
def site():
    return Site(DEVICE, SAMPLES)


def run(admission, site, *, compute_us=0, samples=0, rows=1, explains=False, now=NOON):
    """Admit one call and settle its cost; return the refusal if there is one."""
    outcome = admission.spend(rows, now, explains=explains)
    while isinstance(outcome, LeaseRequest):
        admission.accept(outcome, site.grant(outcome), now)
        outcome = admission.spend(rows, now, explains=explains)
    if outcome is None:
        admission.settle(
            admission.reserved,
            rows=rows,
            compute_us=compute_us,
            samples=samples,
            now=now,
        )
    return outcome


def left(admission):
    return int(named(admission, NOON)["X-RateLimit-Remaining"])


def test_a_call_costs_what_it_took(site):
    admission = Admission(1, limits(quotas=(DEVICE,)))

    run(admission, site, compute_us=100_000)

    assert left(admission) == 900


def test_parts_of_a_millisecond_add_up(site):
    admission = Admission(1, limits(quotas=(DEVICE,)))
    for _ in range(100):
        run(admission, site, compute_us=2_500)

    assert left(admission) == 750


def test_calls_go_on_until_the_quota_is_used_up(site):
    admission = Admission(1, limits(quotas=(DEVICE,)))

    outcomes = [run(admission, site, compute_us=7_000) for _ in range(300)]

    admitted = outcomes.count(None)
    # The last one may cost more than what was left.
    assert 1000 - 7 <= admitted * 7 <= 1000 + 7
    assert isinstance(outcomes[-1], Refusal)
    assert "ms of compute" in outcomes[-1].message


def test_the_estimate_follows_what_rows_cost(site):
    admission = Admission(1, limits(quotas=(DEVICE,)))
    run(admission, site, compute_us=10_000)

    # Eight rows are expected to take 80 ms: as many calls fit at once.
    outcomes = [spend(admission, site, 8, NOON) for _ in range(20)]

    assert outcomes.count(None) == 990 // 80


def test_a_call_that_fails_costs_nothing(site):
    admission = Admission(1, limits(quotas=(DEVICE,)))
    run(admission, site, compute_us=10_000)
    assert spend(admission, site, 40, NOON) is None

    admission.refund(40, NOON, admission.reserved)

    assert left(admission) == 990


def test_a_call_that_costs_more_than_is_left_delays_the_next(site):
    admission = Admission(1, limits(quotas=(DEVICE,)))
    run(admission, site, compute_us=5_000_000)

    refusal = spend(admission, site, 1, NOON)

    assert isinstance(refusal, Refusal)
    assert refusal.retry_after_s == 12 * 3600
    assert spend(admission, site, 1, NOON + 12 * 3600) is None


def test_only_explanations_spend_shap_samples(site):
    admission = Admission(1, limits(quotas=(SAMPLES,)))
    run(admission, site, compute_us=10_000)
    assert left(admission) == 1000

    run(admission, site, samples=200, explains=True)

    assert left(admission) == 800


def test_predictions_go_on_when_the_samples_are_used_up(site):
    admission = Admission(1, limits(quotas=(SAMPLES,)))
    run(admission, site, samples=1200, explains=True)

    assert isinstance(run(admission, site, explains=True), Refusal)
    assert run(admission, site) is None


def test_a_cost_of_yesterday_is_not_charged_today(site):
    admission = Admission(1, limits(quotas=(DEVICE,)))
    assert spend(admission, site, 1, NOON) is None
    reserved = admission.reserved
    tomorrow = NOON + 86400
    assert spend(admission, site, 1, tomorrow) is None

    admission.settle(reserved, rows=1, compute_us=900_000, samples=0, now=NOON)

    assert int(named(admission, tomorrow)["X-RateLimit-Remaining"]) == 999
