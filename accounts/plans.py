"""What a customer's plan allows, as the data that admission works with."""

from typing import Literal, cast

from accounts.limits import Limits, Quota, Rate
from accounts.models import Customer


def limits_of(customer: Customer) -> Limits:
    """Return the limits of the customer's plan; select it along with the customer."""
    plan = customer.plan
    unit = cast(Literal["requests", "rows"], plan.quota_unit)
    quotas = []
    if plan.daily_quota is not None:
        quotas.append(Quota(name="day", unit=unit, limit=plan.daily_quota))
    if plan.monthly_quota is not None:
        quotas.append(Quota(name="month", unit=unit, limit=plan.monthly_quota))
    return Limits(
        plan=plan.name,
        rates=(
            Rate(name="burst", quota=plan.burst_requests, window_s=1),
            Rate(name="sustained", quota=plan.sustained_requests, window_s=60),
        ),
        quotas=tuple(quotas),
        max_concurrency=plan.max_concurrency,
        max_predict_rows=plan.max_predict_rows,
        max_batch_rows=plan.max_batch_rows,
        max_job_rows=plan.max_job_rows,
    )
