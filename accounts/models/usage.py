"""What was used, by minute, hour and day, and how far the spool has been read."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from accounts.models.customers import Customer

# Together they name one row of `Usage`.
USAGE_IDENTITY = (
    "segment",
    "key_id",
    "operation",
    "model",
    "version",
    "variant",
    "minute",
    "status",
    "code",
)


class SpoolSegment(models.Model):
    """How far one spool file has been ingested; moves with the usage it adds."""

    name = models.CharField(max_length=200, unique=True)
    ingested_bytes = models.PositiveBigIntegerField(default=0)
    completed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class UsageSums(models.Model):
    """Calls of one kind, added up. What they cost is in the `charged_` sums.

    Ids and names are plain values: usage outlives what it names.
    """

    # What calls that are added up have in common, besides their time.
    KIND: ClassVar = (
        "customer_id",
        "key_id",
        "operation",
        "model",
        "version",
        "variant",
        "status",
        "code",
    )
    SUMS: ClassVar = (
        "requests",
        "rows",
        "charged_requests",
        "charged_rows",
        "compute_us",
        "total_us",
        "shap_samples",
        "charged_compute_us",
        "charged_shap_samples",
    )

    key_id = models.CharField(max_length=32)
    operation = models.CharField(max_length=16, help_text="predict, batch, explain…")
    model = models.CharField(max_length=255, blank=True)
    version = models.CharField(max_length=32, blank=True)
    variant = models.CharField(max_length=16, blank=True)
    status = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=40, blank=True, help_text="Error code, if any.")
    requests = models.PositiveBigIntegerField(default=0)
    rows = models.PositiveBigIntegerField(default=0)
    charged_requests = models.PositiveBigIntegerField(default=0)
    charged_rows = models.PositiveBigIntegerField(default=0)
    compute_us = models.PositiveBigIntegerField(default=0)
    total_us = models.PositiveBigIntegerField(default=0)
    shap_samples = models.PositiveBigIntegerField(default=0)
    charged_compute_us = models.PositiveBigIntegerField(default=0)
    charged_shap_samples = models.PositiveBigIntegerField(default=0)
    # Latencies in powers-of-two buckets of 100 µs, so that percentiles add up.
    latency_buckets = models.JSONField(default=dict)
    # None: some of the calls are of the time before this was kept.
    slowest_us = models.PositiveBigIntegerField(null=True)

    class Meta:
        abstract = True

    def add(self, other: "UsageSums") -> None:
        """Add calls of the same kind."""
        if not self.requests:
            self.slowest_us = other.slowest_us
        elif self.slowest_us is None or other.slowest_us is None:
            self.slowest_us = None
        else:
            self.slowest_us = max(self.slowest_us, other.slowest_us)
        for name in self.SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for bucket, count in other.latency_buckets.items():
            self.latency_buckets[bucket] = self.latency_buckets.get(bucket, 0) + count


class Usage(UsageSums):
    """Answered calls, aggregated per spool file and minute.

    The segment is part of the key so that one file's share can be checked, and
    counted again, alone.
    """

    segment = models.CharField(max_length=200)
    # Found by the index below that begins with it.
    customer = models.ForeignKey(
        Customer, on_delete=models.PROTECT, related_name="usage", db_index=False
    )
    minute = models.DateTimeField()

    class Meta:
        verbose_name_plural = "usage by minute"
        constraints = [
            models.UniqueConstraint(
                fields=USAGE_IDENTITY,
                name="accounts_usage_unique",
            ),
            models.CheckConstraint(
                condition=Q(total_us__gte=F("compute_us")),
                name="accounts_usage_total_covers_compute",
            ),
        ]
        indexes = [
            # The dashboards and /usage read a customer's or everyone's recent time.
            models.Index(fields=["customer", "minute"], name="accounts_usage_customer"),
            # By the time alone PostgreSQL would read a customer's month from it too,
            # through everyone's rows: those of one time lie next to each other.
            models.Index(fields=["minute", "customer"], name="accounts_usage_time"),
            # The admin lists the newest usage of one model.
            models.Index(fields=["model", "minute"], name="accounts_usage_model"),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.minute} {self.status}"


class RolledUsage(UsageSums):
    """Usage of all spool files together, over a longer time."""

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, db_index=False)
    start = models.DateTimeField()

    class Meta:
        abstract = True
        constraints = [
            # Begins with what readers select by.
            models.UniqueConstraint(
                fields=["customer", "start", *UsageSums.KIND[1:]],
                name="%(app_label)s_%(class)s_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.start} {self.status}"


class UsageHour(RolledUsage):
    """The minutes of one UTC hour, added up."""

    class Meta(RolledUsage.Meta):
        verbose_name_plural = "usage by hour"
        indexes = [
            models.Index(fields=["start", "customer"], name="accounts_usagehour_time"),
            models.Index(fields=["model", "start"], name="accounts_usagehour_model"),
        ]


class UsageDay(RolledUsage):
    """The hours of one UTC day, added up."""

    class Meta(RolledUsage.Meta):
        verbose_name_plural = "usage by day"
        indexes = [
            models.Index(fields=["start", "customer"], name="accounts_usageday_time"),
            models.Index(fields=["model", "start"], name="accounts_usageday_model"),
        ]


class UnrolledHour(models.Model):
    """An hour with usage that is in its minutes only; its row is also their lock.

    Whoever adds to minutes or rolls them up holds the row until its transaction ends.
    """

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="unrolled_hours"
    )
    hour = models.DateTimeField()
    # When the first of that usage came.
    since = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["hour", "customer"], name="accounts_unrolled_hour_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.customer_id} {self.hour}"


class UsageKeeping(models.Model):
    """One row: from when on minutes are kept; locked by whoever changes roll-ups."""

    minutes_from = models.DateTimeField(help_text="A UTC midnight.")

    def __str__(self) -> str:
        return f"minutes from {self.minutes_from}"
