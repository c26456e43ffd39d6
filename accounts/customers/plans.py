"""Turn a plan and its overrides into the limits that admission works with."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from accounts.admission.limits import KeyLimits, Limits, Period, Quota, Rate, Unit
from accounts.admission.overrides import PERIODS
from accounts.models import Customer

# The names that callers read, if they are not those of a plan's fields.
_LABELS = {
    "burst_requests": "burst",
    "sustained_requests": "sustained",
    "daily_quota": "day",
    "monthly_quota": "month",
    "max_concurrency": "concurrency",
}


class HasOwnLimits(Protocol):
    """An ApiKey, or a row of these columns."""

    burst_requests: int | None
    sustained_requests: int | None
    daily_quota: int | None
    monthly_quota: int | None
    max_concurrency: int | None


def limits_of(customer: Customer) -> Limits:
    """Return the limits of the customer's plan, with the customer's overrides.

    Select the plan together with the customer.
    """
    plan = customer.plan
    own = customer.limit_overrides

    def limit(name: str) -> Any:
        return own[name] if name in own else getattr(plan, name)

    return Limits(
        plan=plan.name,
        rates=(
            Rate(name="burst", quota=limit("burst_requests"), window_s=1),
            Rate(name="sustained", quota=limit("sustained_requests"), window_s=60),
        ),
        quotas=_quotas(
            customer,
            main={"day": limit("daily_quota"), "month": limit("monthly_quota")},
        ),
        max_concurrency=limit("max_concurrency"),
        max_predict_rows=limit("max_predict_rows"),
        max_batch_rows=limit("max_batch_rows"),
        max_job_rows=limit("max_job_rows"),
        max_body_bytes=limit("max_body_bytes"),
        max_jobs_in_flight=limit("max_jobs_in_flight"),
        max_uploads=limit("max_uploads"),
        max_upload_bytes=limit("max_upload_bytes"),
        overridden=tuple(_labels(own)),
    )


def _quotas(
    customer: Customer, *, main: Mapping[Period, int | None]
) -> tuple[Quota, ...]:
    """List the quotas; of two with the same unit and period, the main one counts."""
    unit = cast(Unit, customer.plan.quota_unit)
    quotas = [
        Quota(name=period, unit=unit, limit=limit)
        for period, limit in main.items()
        if limit is not None
    ]
    own = customer.limit_overrides.get("further_quotas", {})
    for period in PERIODS:
        further = customer.plan.further_quotas.get(period, {}) | own.get(period, {})
        quotas += [
            Quota(name=period, unit=other, limit=limit, label=f"{period}-{other}")
            for other, limit in further.items()
            if other != unit and limit is not None
        ]
    return tuple(quotas)


def _labels(own: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of overridden limits, as callers read them."""
    for name, value in own.items():
        if name == "further_quotas":
            for period, units in value.items():
                yield from (f"{period}-{unit}" for unit in units)
        else:
            yield _LABELS.get(name, name)


def key_limits_of(key: HasOwnLimits, limits: Limits) -> KeyLimits | None:
    """Return a key's own limits; None if it has none.

    Its quotas count in the unit of the plan's first quota, or in rows.
    """
    rates = []
    if key.burst_requests is not None:
        rates.append(Rate(name="key-burst", quota=key.burst_requests, window_s=1))
    if key.sustained_requests is not None:
        rates.append(
            Rate(name="key-sustained", quota=key.sustained_requests, window_s=60)
        )
    unit = main_unit(limits)
    quotas = []
    if key.daily_quota is not None:
        quotas.append(Quota("day", unit, key.daily_quota, label="key-day"))
    if key.monthly_quota is not None:
        quotas.append(Quota("month", unit, key.monthly_quota, label="key-month"))
    if not rates and not quotas and key.max_concurrency is None:
        return None
    return KeyLimits(
        rates=tuple(rates), quotas=tuple(quotas), max_concurrency=key.max_concurrency
    )


def main_unit(limits: Limits) -> Unit:
    """Return the unit that the quotas of a customer's keys count in."""
    return limits.quotas[0].unit if limits.quotas else "rows"
