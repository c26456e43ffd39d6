"""Statements: closed months, and their corrections."""

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.models.customers import Customer


class Statement(models.Model):
    """A customer's month as it was exported, or a correction of one; never changed."""

    number = models.PositiveBigIntegerField(
        unique=True, help_text="One after the other, without a gap."
    )
    customer = models.ForeignKey(
        Customer, on_delete=models.PROTECT, related_name="statements"
    )
    customer_name = models.CharField(max_length=200)
    month = models.DateField(help_text="Its first day, in UTC.")
    corrects = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="corrections",
        help_text="The statement that it corrects; empty: it closed the month.",
    )
    reason = models.TextField(blank=True, help_text="Why it was corrected.")
    # As `accounts.usage.statements` writes them: numbers are text, and so exact.
    lines = models.JSONField(default=list)
    total = models.CharField(max_length=120, help_text="Exact, as text.")
    closed_at = models.DateTimeField()
    closed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "month"],
                condition=Q(corrects=None),
                name="accounts_statement_closes_a_month_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.number}"

    def save(self, **kwargs: Any) -> None:
        """Insert the statement; raises TypeError for a change."""
        if not self._state.adding:
            raise TypeError("A statement stays as it is. Correct it by another one.")
        super().save(**kwargs)
