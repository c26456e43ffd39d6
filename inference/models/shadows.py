"""What shadows answered to copies of calls."""

from django.db import models


class ShadowTotals(models.Model):
    """The sums over all copies that one version got of the calls of another."""

    model = models.CharField(max_length=255)
    default_version = models.PositiveIntegerField()
    shadow_version = models.PositiveIntegerField()
    calls = models.PositiveBigIntegerField(default=0)
    # Copies that the shadow answered with an error of its own.
    failed = models.PositiveBigIntegerField(default=0)
    # The sum over calls of the share of their rows whose answer was another.
    changed = models.FloatField(default=0.0)
    rows = models.PositiveBigIntegerField(default=0)
    changed_rows = models.PositiveBigIntegerField(default=0)
    # The sum over rows of how far apart the answers were, each from 0 to 1.
    distance = models.FloatField(default=0.0)
    # Time on the device, of the calls and of their copies.
    default_us = models.PositiveBigIntegerField(default=0)
    shadow_us = models.PositiveBigIntegerField(default=0)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        ordering = ["-last_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["model", "shadow_version", "default_version"],
                name="inference_shadow_totals_of_versions",
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} v{self.shadow_version} beside v{self.default_version}"


class ShadowExample(models.Model):
    """One call that a shadow answered otherwise than the default.

    It holds what a customer sent, so a route has to allow it (`Route.keeps_examples`).
    """

    # Given by the gateway, so that none is kept twice.
    name = models.CharField(max_length=100, unique=True)
    customer = models.ForeignKey(
        "accounts.Customer", on_delete=models.CASCADE, related_name="+"
    )
    at = models.DateTimeField()
    request_id = models.CharField(max_length=200)
    model = models.CharField(max_length=255)
    default_version = models.PositiveIntegerField()
    shadow_version = models.PositiveIntegerField()
    body = models.TextField()
    default_answer = models.TextField()
    shadow_answer = models.TextField()

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [
            models.Index(fields=["model", "-at"], name="inference_shadow_examples_of")
        ]

    def __str__(self) -> str:
        return f"{self.model} at {self.at:%Y-%m-%d %H:%M:%S}"
