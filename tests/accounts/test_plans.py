import pytest

from accounts import plans
from accounts.limits import Limits, Quota, Rate
from tests.factories import CustomerFactory

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
