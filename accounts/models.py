"""Customers, their plans and API keys, and what they have used."""

import datetime
from typing import Self

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from simple_history.models import HistoricalRecords


class QuotaUnit(models.TextChoices):
    REQUESTS = "requests", "requests"
    ROWS = "rows", "rows"


class Plan(models.Model):
    """What a customer may do: rates, quotas and sizes."""

    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True)
    burst_requests = models.PositiveIntegerField(
        default=20, validators=[MinValueValidator(1)], help_text="Requests per second."
    )
    sustained_requests = models.PositiveIntegerField(
        default=300, validators=[MinValueValidator(1)], help_text="Requests per minute."
    )
    quota_unit = models.CharField(
        max_length=16, choices=QuotaUnit.choices, default=QuotaUnit.ROWS
    )
    daily_quota = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Units per UTC day. Empty: no daily quota."
    )
    monthly_quota = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Units per UTC month. Empty: no monthly quota."
    )
    max_concurrency = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests in flight at once. Empty: no limit."
    )
    max_predict_rows = models.PositiveIntegerField(default=100)
    max_batch_rows = models.PositiveIntegerField(default=1000)
    max_job_rows = models.PositiveIntegerField(default=1_000_000)
    retired = models.BooleanField(
        default=False, help_text="No longer offered; customers on it keep it."
    )
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(burst_requests__gte=1) & Q(sustained_requests__gte=1),
                name="accounts_plan_rates_at_least_1",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Customer(models.Model):
    """Who pays: owns API keys, limits and usage."""

    name = models.CharField(max_length=200, unique=True)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="customers")
    active = models.BooleanField(
        default=True, help_text="An inactive customer's keys are refused."
    )
    contact_email = models.EmailField(blank=True)
    notes = models.TextField(blank=True)
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, blank=True, related_name="customers"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def valid(self, at: datetime.datetime) -> Self:
        """Keep the keys that a call at `at` may use."""
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=at),
            revoked_at__isnull=True,
            customer__active=True,
        )


class ApiKey(models.Model):
    """A credential, stored as a public id and the SHA-256 of the whole token."""

    class Mode(models.TextChoices):
        LIVE = "live", "live"
        TEST = "test", "test"

    class State(models.TextChoices):
        ACTIVE = "active", "active"
        EXPIRED = "expired", "expired"
        REVOKED = "revoked", "revoked"

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="api_keys"
    )
    name = models.CharField(max_length=100)
    mode = models.CharField(max_length=8, choices=Mode.choices, default=Mode.LIVE)
    key_id = models.CharField(
        max_length=32, unique=True, help_text="Public part of the key."
    )
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256, hex.")
    scopes = models.JSONField(default=list)
    allowed_models = models.JSONField(
        default=list,
        blank=True,
        help_text="Names of the models it may call. Empty: every model.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    history = HistoricalRecords(excluded_fields=["digest", "last_used_at"])

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.key_id})"

    @property
    def state(self) -> State:
        if self.revoked_at is not None:
            return self.State.REVOKED
        if self.expires_at is not None and self.expires_at <= timezone.now():
            return self.State.EXPIRED
        return self.State.ACTIVE


class QuotaCounter(models.Model):
    """Units of one quota granted to leases in one window."""

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="quota_counters"
    )
    name = models.CharField(max_length=16, help_text="`day` or `month`.")
    unit = models.CharField(max_length=16, choices=QuotaUnit.choices)
    window_start = models.DateField()
    granted = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "name", "unit", "window_start"],
                name="accounts_quota_counter_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.customer_id} {self.name} {self.window_start}"


class Lease(models.Model):
    """Units a front process may spend without asking again."""

    counter = models.ForeignKey(
        QuotaCounter, on_delete=models.CASCADE, related_name="leases"
    )
    holder = models.CharField(max_length=64, help_text="Boot id of the process.")
    granted = models.PositiveBigIntegerField(default=0)
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


class SpoolSegment(models.Model):
    """How far one spool file has been ingested; moves with the usage it adds."""

    name = models.CharField(max_length=200, unique=True)
    ingested_bytes = models.PositiveBigIntegerField(default=0)
    completed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class Usage(models.Model):
    """Answered calls, aggregated per spool file and minute.

    The segment is part of the key so that one file's share can be checked, and
    counted again, alone. Ids and names are plain values: usage outlives what it names.
    """

    segment = models.CharField(max_length=200)
    customer = models.ForeignKey(
        Customer, on_delete=models.PROTECT, related_name="usage"
    )
    key_id = models.CharField(max_length=32)
    operation = models.CharField(max_length=16, help_text="predict, batch, explain…")
    model = models.CharField(max_length=255, blank=True)
    version = models.CharField(max_length=32, blank=True)
    variant = models.CharField(max_length=16, blank=True)
    minute = models.DateTimeField()
    status = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=40, blank=True, help_text="Error code, if any.")
    requests = models.PositiveBigIntegerField(default=0)
    rows = models.PositiveBigIntegerField(default=0)
    charged_requests = models.PositiveBigIntegerField(default=0)
    charged_rows = models.PositiveBigIntegerField(default=0)
    compute_us = models.PositiveBigIntegerField(default=0)
    total_us = models.PositiveBigIntegerField(default=0)
    shap_samples = models.PositiveBigIntegerField(default=0)
    # Latencies in powers-of-two buckets of 100 µs, so that percentiles add up.
    latency_buckets = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "usage"
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "segment",
                    "key_id",
                    "operation",
                    "model",
                    "version",
                    "variant",
                    "minute",
                    "status",
                    "code",
                ],
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
            models.Index(fields=["minute"], name="accounts_usage_minute"),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.minute} {self.status}"
