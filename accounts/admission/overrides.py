"""Check limits that people write as JSON, before they are kept."""

from collections.abc import Mapping
from typing import Any

from accounts.admission.limits import Period, Unit

# The largest numbers that every database takes.
MAX_RATE = 2**31 - 1
MAX_QUOTA = 2**63 - 1
PERIODS: tuple[Period, ...] = ("day", "month")
UNITS: tuple[Unit, ...] = ("requests", "rows", "compute_ms", "shap_samples")

# Limits of a plan that can be overridden for one customer: the least, the most, and
# whether null takes the limit away.
OVERRIDABLE: dict[str, tuple[int, int, bool]] = {
    "burst_requests": (1, MAX_RATE, False),
    "sustained_requests": (1, MAX_RATE, False),
    "daily_quota": (0, MAX_QUOTA, True),
    "monthly_quota": (0, MAX_QUOTA, True),
    "max_concurrency": (1, MAX_RATE, True),
    "max_predict_rows": (1, MAX_RATE, False),
    "max_batch_rows": (1, MAX_RATE, False),
    "max_job_rows": (1, MAX_RATE, False),
    "max_body_bytes": (1, MAX_RATE, True),
    "max_jobs_in_flight": (0, MAX_RATE, True),
    "max_uploads": (0, MAX_RATE, False),
    "max_upload_bytes": (0, MAX_QUOTA, False),
    "max_keys": (0, MAX_RATE, False),
}
# Quotas in other units: each replaces the plan's in that unit, or is added to them.
FURTHER_QUOTAS = "further_quotas"


def check_overrides(given: Any) -> None:
    """Raise ValueError with a sentence unless it is `{"burst_requests": 50, …}`."""
    if not isinstance(given, Mapping):
        raise ValueError("Write an object of limits and their values.")
    for name, value in given.items():
        if name == FURTHER_QUOTAS:
            check_quotas(value, may_be_null=True)
            continue
        if name not in OVERRIDABLE:
            known = ", ".join((*OVERRIDABLE, FURTHER_QUOTAS))
            raise ValueError(f"{name!r} is no limit that can be overridden: {known}.")
        least, most, may_be_null = OVERRIDABLE[name]
        if value is None and may_be_null:
            continue
        _check_number(name, value, least, most)


def check_quotas(given: Any, *, may_be_null: bool = False) -> None:
    """Raise ValueError unless it is `{"day": {"compute_ms": 1000}, "month": …}`.

    In an override for one customer null takes a quota away.
    """
    if not isinstance(given, Mapping):
        raise ValueError("Write an object of periods.")
    for period, units in given.items():
        if period not in PERIODS:
            raise ValueError(f"{period!r} is neither day nor month.")
        if not isinstance(units, Mapping):
            raise ValueError(f"{period}: write an object of units and their limits.")
        for unit, limit in units.items():
            if unit not in UNITS:
                raise ValueError(f"{unit!r} is none of {', '.join(UNITS)}.")
            if limit is None and may_be_null:
                continue
            _check_number(f"{period}, {unit}", limit, 0, MAX_QUOTA)


def _check_number(name: str, value: Any, least: int, most: int) -> None:
    # True is an int to Python.
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}.")
