"""Show account managers their customers, keys, plans and usage in the admin."""

from accounts.admin.billing import LimitEventAdmin, PriceAdmin
from accounts.admin.customers import CustomerAdmin
from accounts.admin.keys import ApiKeyAdmin
from accounts.admin.plans import PlanAdmin
from accounts.admin.suspicions import SuspicionAdmin
from accounts.admin.usage import (
    QuotaCounterAdmin,
    UsageAdmin,
    UsageDayAdmin,
    UsageHourAdmin,
)

__all__ = [
    "ApiKeyAdmin",
    "CustomerAdmin",
    "LimitEventAdmin",
    "PlanAdmin",
    "PriceAdmin",
    "QuotaCounterAdmin",
    "SuspicionAdmin",
    "UsageAdmin",
    "UsageDayAdmin",
    "UsageHourAdmin",
]
