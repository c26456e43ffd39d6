"""Counters of quotas, leases of their units, and warnings before they are used up."""

from django.db import models
from django.db.models import Q

from accounts.models.customers import Customer
from accounts.models.plans import QuotaUnit


class QuotaCounter(models.Model):
    """Units of one quota granted to leases in one window."""

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="quota_counters"
    )
    key_id = models.CharField(
        max_length=32, blank=True, default="", help_text="Of one key's own quota."
    )
    name = models.CharField(max_length=16, help_text="`day` or `month`.")
    unit = models.CharField(max_length=16, choices=QuotaUnit.choices)
    window_start = models.DateField()
    granted = models.PositiveBigIntegerField(default=0)

    class Meta:
        # The admin lists the newest first.
        indexes = [
            models.Index(fields=["-window_start"], name="accounts_counter_newest")
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "key_id", "name", "unit", "window_start"],
                name="accounts_quota_counter_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.customer_id} {self.name} {self.window_start}"


class Lease(models.Model):
    """Units that a gateway or the site may spend without asking again."""

    counter = models.ForeignKey(
        QuotaCounter, on_delete=models.CASCADE, related_name="leases"
    )
    holder = models.CharField(max_length=64, help_text="Boot id of the process.")
    granted = models.PositiveBigIntegerField(default=0)
    overdrawn = models.PositiveBigIntegerField(
        default=0, help_text="Of the granted units, those spent before they were lent."
    )
    request_number = models.PositiveBigIntegerField(
        default=0, help_text="The holder's last request that was answered."
    )
    settled_at = models.DateTimeField(null=True, blank=True)
    renewed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["counter", "holder"], name="accounts_lease_unique_per_holder"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.holder}: {self.granted}"


class LimitEvent(models.Model):
    """A quota came near its limit, or reached it: once per window and threshold."""

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="limit_events"
    )
    name = models.CharField(max_length=16, help_text="`day` or `month`.")
    unit = models.CharField(max_length=16, choices=QuotaUnit.choices)
    window_start = models.DateField()
    threshold_percent = models.PositiveSmallIntegerField()
    used = models.PositiveBigIntegerField()
    limit = models.PositiveBigIntegerField()
    at = models.DateTimeField()
    notified_at = models.DateTimeField(
        null=True, blank=True, help_text="When the customer's contact was written to."
    )

    class Meta:
        verbose_name = "warning"
        ordering = ["-at", "-threshold_percent"]
        indexes = [
            models.Index(fields=["-at"], name="accounts_limit_event_newest"),
            # Read every minute: few events wait, and all others are kept.
            models.Index(
                fields=["customer"],
                condition=Q(notified_at=None),
                name="accounts_limit_event_waiting",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "customer",
                    "name",
                    "unit",
                    "window_start",
                    "threshold_percent",
                ],
                name="accounts_limit_event_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.customer_id} {self.name} {self.unit}: {self.threshold_percent} %"
