"""The admin of accounts; each kind of row has a module of its own."""

from accounts.admin_billing import LimitEventAdmin, PriceAdmin
from accounts.admin_customers import CustomerAdmin
from accounts.admin_keys import ApiKeyAdmin
from accounts.admin_plans import PlanAdmin
from accounts.admin_suspicions import SuspicionAdmin
from accounts.admin_usage import (
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
