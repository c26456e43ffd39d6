"""Plans that customers can have, and their prices."""

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import Q
from simple_history.models import HistoricalRecords

from accounts.admission import overrides
from accounts.signals import access_changed

# Greater numbers do not fit into every database's integers.
_RATE = [MinValueValidator(1), MaxValueValidator(overrides.MAX_RATE)]


def _checked_by(check: Callable[[Any], None], given: Any) -> None:
    try:
        check(given)
    except ValueError as error:
        raise ValidationError(str(error)) from error


def validate_overrides(given: Any) -> None:
    _checked_by(overrides.check_overrides, given)


def validate_quotas(given: Any) -> None:
    _checked_by(overrides.check_quotas, given)


class QuotaUnit(models.TextChoices):
    REQUESTS = "requests", "requests"
    ROWS = "rows", "rows"
    COMPUTE_MS = "compute_ms", "ms of compute"
    SHAP_SAMPLES = "shap_samples", "SHAP samples"


class Plan(models.Model):
    """What a customer may do: rates, quotas and sizes."""

    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True)
    burst_requests = models.PositiveIntegerField(
        default=20, validators=_RATE, help_text="Requests per second."
    )
    sustained_requests = models.PositiveIntegerField(
        default=300, validators=_RATE, help_text="Requests per minute."
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
    max_keys = models.PositiveIntegerField(
        default=20,
        help_text="Active API keys that customers may make themselves. 0: none.",
    )
    further_quotas = models.JSONField(
        default=dict,
        blank=True,
        validators=[validate_quotas],
        help_text="In other units, beside the quotas above:"
        ' {"day": {"compute_ms": 60000}, "month": {"shap_samples": 10000}}.',
    )
    max_body_bytes = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=_RATE,
        help_text="Of one prediction's body. Empty: as much as the site takes.",
    )
    max_jobs_in_flight = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Jobs that wait or run at once. Empty: no limit. 0: no jobs.",
    )
    max_uploads = models.PositiveIntegerField(
        default=1000,
        validators=[MaxValueValidator(overrides.MAX_RATE)],
        help_text="Uploads that have not expired. 0: none.",
    )
    max_upload_bytes = models.PositiveBigIntegerField(
        default=10_000_000_000,
        validators=[MaxValueValidator(overrides.MAX_QUOTA)],
        help_text="Of all uploads that have not expired.",
    )
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

    def save(self, **kwargs: Any) -> None:
        """Check the limits, save and tell gateways; raises ValidationError."""
        # A form reads an empty field as None.
        self.further_quotas = self.further_quotas or {}
        self.clean_fields()
        with transaction.atomic():
            super().save(**kwargs)
            access_changed.send(sender=Plan, rows=[self])


class Price(models.Model):
    """The price of one unit on a plan, from a day on; of one model or of all."""

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="prices")
    unit = models.CharField(max_length=16, choices=QuotaUnit.choices)
    model = models.CharField(
        max_length=255, blank=True, default="", help_text="Empty: every model."
    )
    amount = models.DecimalField(
        max_digits=18,
        decimal_places=9,
        validators=[MinValueValidator(0)],
        help_text="Per unit, in the currency of your invoices.",
    )
    valid_from = models.DateField(help_text="UTC day.")
    history = HistoricalRecords()

    class Meta:
        ordering = ["plan", "unit", "model", "-valid_from"]
        constraints = [
            models.UniqueConstraint(
                fields=["plan", "unit", "model", "valid_from"],
                name="accounts_price_unique",
            ),
            models.CheckConstraint(
                condition=Q(amount__gte=0), name="accounts_price_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} per {self.unit} {self.model}".rstrip()
