"""The database rows of customers, plans, keys, quotas, usage and incidents."""

from accounts.models.customers import ApiKey, Customer
from accounts.models.incidents import KeyNetworks, Refusal, Suspicion
from accounts.models.notices import Notice
from accounts.models.plans import (
    Plan,
    Price,
    QuotaUnit,
    validate_overrides,
    validate_quotas,
)
from accounts.models.quotas import Lease, LimitEvent, QuotaCounter
from accounts.models.statements import Statement
from accounts.models.usage import (
    FieldUse,
    SpoolSegment,
    UnrolledHour,
    Usage,
    UsageDay,
    UsageHour,
    UsageKeeping,
)

__all__ = [
    "ApiKey",
    "Customer",
    "FieldUse",
    "KeyNetworks",
    "Lease",
    "LimitEvent",
    "Notice",
    "Plan",
    "Price",
    "QuotaCounter",
    "QuotaUnit",
    "Refusal",
    "SpoolSegment",
    "Statement",
    "Suspicion",
    "UnrolledHour",
    "Usage",
    "UsageDay",
    "UsageHour",
    "UsageKeeping",
    "validate_overrides",
    "validate_quotas",
]
