"""Check settings that would lose data, before anything starts."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from accounts.usage.roll_ups import LEAST_KEPT


@register()
def minutes_outlive_a_month(**_: Any) -> list[CheckMessage]:
    days: int = settings.USAGE_MINUTES_DAYS
    if days >= LEAST_KEPT.days:
        return []
    return [
        Error(
            f"USAGE_MINUTES_DAYS is less than {LEAST_KEPT.days}.",
            hint="Quotas of a month are settled by the minutes of that month.",
            id="accounts.E001",
        )
    ]
