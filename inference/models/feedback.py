"""Feedback: what callers say of answers, of single ones and added up by day."""

from typing import Self

from django.db import models
from django.db.models import Q

from accounts.models import Customer


class FeedbackQuerySet(models.QuerySet["Feedback"]):
    def uncounted(self) -> Self:
        """Select what is not part of the sums yet, as it is said now."""
        return self.filter(counted_at=None)


class Feedback(models.Model):
    """What a caller said of one instance's answer; a correction replaces it.

    It holds numbers only: of a label, whether the answer was right.
    """

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    # The id of the call's usage event: callers may use a request id again.
    call_id = models.CharField(max_length=100)
    index = models.PositiveIntegerField()
    called_at = models.DateTimeField()
    # Of the call; the feedback may come by another key.
    key_id = models.CharField(max_length=32)
    model = models.CharField(max_length=255)
    # The one that answered.
    version = models.CharField(max_length=32)
    # Whether the call fell on a canary, and its chance of each by version; empty: it is
    # no evidence.
    to_canary = models.BooleanField(default=False)
    chances = models.JSONField(default=dict)
    # Numbers by measure (`feedback/items.py`), and those that the sums hold.
    said = models.JSONField()
    counted = models.JSONField(default=dict)
    given_at = models.DateTimeField()
    counted_at = models.DateTimeField(null=True)
    # It was the first of its key and minute, which alone is evidence.
    is_unit = models.BooleanField(default=False)

    objects = FeedbackQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        verbose_name_plural = "feedback"
        constraints = [
            models.UniqueConstraint(
                fields=["call_id", "index"], name="inference_feedback_once"
            )
        ]
        indexes = [
            # The controller looks for them every second.
            models.Index(
                fields=["id"],
                condition=Q(counted_at=None),
                name="inference_feedback_uncounted",
            ),
            # They are deleted by their age.
            models.Index(fields=["given_at"], name="inference_feedback_age"),
            # So does it for the minutes that have one.
            models.Index(
                fields=["model", "key_id", "called_at"],
                name="inference_feedback_units",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.call_id} {self.index}"


class FeedbackSum(models.Model):
    """One measure of one version's answers of a day, added up over all callers.

    Names are plain values, as sums outlive the rows that they name.
    """

    model = models.CharField(max_length=255)
    version = models.CharField(max_length=32)
    # The UTC day of the calls.
    day = models.DateField()
    measure = models.CharField(max_length=16)
    count = models.BigIntegerField(default=0)
    total = models.FloatField(default=0.0)

    class Meta:
        ordering = ["-day", "model", "version", "measure"]
        constraints = [
            models.UniqueConstraint(
                fields=["model", "version", "day", "measure"],
                name="inference_feedback_sum_unique",
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} v{self.version} {self.day} {self.measure}"


class FeedbackUse(models.Model):
    """How many items of feedback a customer sent on a UTC day."""

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    day = models.DateField()
    items = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "day"], name="inference_feedback_use_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.customer_id} {self.day}"
