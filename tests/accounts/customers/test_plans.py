import pytest

from accounts.admission.limits import KeyLimits, Limits, Quota, Rate
from accounts.customers import plans
from tests.factories import ApiKeyFactory, CustomerFactory

pytestmark = pytest.mark.django_db


def test_limits_follow_the_plan():
    customer = CustomerFactory(
        plan__name="Starter",
        plan__burst_requests=5,
        plan__sustained_requests=100,
        plan__quota_unit="requests",
        plan__daily_quota=1_000,
        plan__monthly_quota=20_000,
        plan__max_concurrency=4,
        plan__max_predict_rows=10,
        plan__max_batch_rows=50,
        plan__max_job_rows=500,
    )

    assert plans.limits_of(customer) == Limits(
        plan="Starter",
        rates=(Rate("burst", 5, 1), Rate("sustained", 100, 60)),
        quotas=(Quota("day", "requests", 1_000), Quota("month", "requests", 20_000)),
        max_concurrency=4,
        max_predict_rows=10,
        max_batch_rows=50,
        max_job_rows=500,
    )


def test_an_empty_quota_is_no_quota_and_zero_is_one():
    customer = CustomerFactory(plan__daily_quota=0, plan__monthly_quota=None)

    assert plans.limits_of(customer).quotas == (Quota("day", "rows", 0),)


def test_a_key_without_limits_of_its_own_has_none():
    key = ApiKeyFactory()

    assert plans.key_limits_of(key, plans.limits_of(key.customer)) is None


def test_limits_of_a_key_count_in_the_unit_of_the_plan():
    key = ApiKeyFactory(
        customer__plan__quota_unit="requests",
        customer__plan__daily_quota=10,
        burst_requests=2,
        sustained_requests=30,
        daily_quota=5,
        monthly_quota=50,
        max_concurrency=1,
    )

    assert plans.key_limits_of(key, plans.limits_of(key.customer)) == KeyLimits(
        rates=(Rate("key-burst", 2, 1), Rate("key-sustained", 30, 60)),
        quotas=(
            Quota("day", "requests", 5, label="key-day"),
            Quota("month", "requests", 50, label="key-month"),
        ),
        max_concurrency=1,
    )


def test_a_customer_may_have_limits_that_differ_from_its_plan():
    customer = CustomerFactory(
        plan__burst_requests=5,
        plan__monthly_quota=100,
        plan__max_concurrency=4,
        limit_overrides={
            "burst_requests": 50,
            "monthly_quota": None,
            "daily_quota": 7,
            "max_body_bytes": 1000,
            "max_jobs_in_flight": 0,
        },
    )

    limits = plans.limits_of(customer)

    assert limits.rates[0] == Rate("burst", 50, 1)
    assert limits.quotas == (Quota("day", "rows", 7),)
    assert limits.max_concurrency == 4
    assert (limits.max_body_bytes, limits.max_jobs_in_flight) == (1000, 0)


def test_a_plan_may_count_in_several_units():
    customer = CustomerFactory(
        plan__quota_unit="rows",
        plan__daily_quota=10,
        plan__further_quotas={
            "day": {"rows": 99, "compute_ms": 500},
            "month": {"shap_samples": 7},
        },
    )

    assert plans.limits_of(customer).quotas == (
        Quota("day", "rows", 10),
        Quota("day", "compute_ms", 500, label="day-compute_ms"),
        Quota("month", "shap_samples", 7, label="month-shap_samples"),
    )


def test_a_customer_may_have_further_quotas_that_differ_from_its_plan():
    customer = CustomerFactory(
        plan__daily_quota=None,
        plan__further_quotas={
            "day": {"compute_ms": 500, "requests": 9},
            "month": {"shap_samples": 7},
        },
        limit_overrides={
            "further_quotas": {
                "day": {"compute_ms": 600, "requests": None},
                "month": {"requests": 90},
            },
            "max_keys": 1,
        },
    )

    limits = plans.limits_of(customer)

    assert limits.quotas == (
        Quota("day", "compute_ms", 600, label="day-compute_ms"),
        Quota("month", "shap_samples", 7, label="month-shap_samples"),
        Quota("month", "requests", 90, label="month-requests"),
    )
    assert customer.max_keys == 1
    sources = {quota.label: limits.source_of(quota.label) for quota in limits.quotas}
    assert sources == {
        "day-compute_ms": "override",
        "month-shap_samples": "plan",
        "month-requests": "override",
    }


def test_what_differs_is_named_as_callers_read_it():
    customer = CustomerFactory(
        limit_overrides={"burst_requests": 5, "daily_quota": 7, "max_batch_rows": 9}
    )

    assert plans.limits_of(customer).overridden == ("burst", "day", "max_batch_rows")
