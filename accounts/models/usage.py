"""Usage by minute, hour and day, and how far the spool has been read."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from accounts.models.customers import Customer

# The fields that together identify one row of `Usage`.
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
    """How far one spool file was ingested; changes in the same transaction as usage."""

    name = models.CharField(max_length=200, unique=True)
    ingested_bytes = models.PositiveBigIntegerField(default=0)
    completed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class UsageSums(models.Model):
    """Calls of one kind, added up; the `charged_` sums are those that cost something.

    Ids and names are plain values, as usage outlives the rows that they name.
    """

    # The fields that calls of one kind have in common, besides their time.
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
    # None: some of the calls are older than this field.
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

    The segment is part of the key, so that the usage of one file can be checked and
    counted again alone.
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
            # Dashboards and /usage read the recent usage of one customer or of all.
            models.Index(fields=["customer", "minute"], name="accounts_usage_customer"),
            # With an index of the time alone, PostgreSQL would also read one customer's
            # month from it, through everybody's rows, as rows of one time lie together.
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
            # Readers select by the first fields.
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
    """An hour with usage that is only in its minutes; the row is also their lock.

    A transaction that adds to minutes or rolls them up holds the row until it ends.
    """

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="unrolled_hours"
    )
    hour = models.DateTimeField()
    # When the first usage came that is not rolled up.
    since = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["hour", "customer"], name="accounts_unrolled_hour_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.customer_id} {self.hour}"


class FieldUse(models.Model):
    """Which inputs that may be left out a key's calls of one day used."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    model = models.CharField(max_length=255)
    day = models.DateField()
    key_id = models.CharField(max_length=32)
    version = models.CharField(max_length=32)
    used = models.PositiveBigIntegerField(
        default=0, help_text="A bit for each optional input of the version."
    )
    requests = models.PositiveBigIntegerField(
        default=0, help_text="Answered calls that the bits are of."
    )

    class Meta:
        verbose_name_plural = "uses of fields"
        constraints = [
            # Readers select by the first fields.
            models.UniqueConstraint(
                fields=["model", "day", "key_id", "version"],
                name="accounts_field_use_once_a_day",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.model} v{self.version} {self.day}"


class UsageKeeping(models.Model):
    """The one row that says since when minutes are kept; a lock for roll-ups."""

    minutes_from = models.DateTimeField(help_text="A UTC midnight.")

    def __str__(self) -> str:
        return f"minutes from {self.minutes_from}"
