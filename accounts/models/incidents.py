"""Calls that were refused, and patterns that a person should look at."""

from django.conf import settings
from django.db import models

from accounts.models.customers import Customer


class Refusal(models.Model):
    """One call that was refused or failed, kept to tell its caller why.

    Only the newest of many are kept; `Usage` counts them all.
    """

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="refusals"
    )
    key_id = models.CharField(max_length=32)
    request_id = models.CharField(max_length=128)
    at = models.DateTimeField()
    operation = models.CharField(max_length=16)
    model = models.CharField(max_length=255, blank=True)
    version = models.CharField(max_length=32, blank=True)
    status = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=40)
    message = models.TextField(blank=True, help_text="What its caller was told.")
    limit = models.JSONField(
        default=dict,
        blank=True,
        help_text="Which limit it was for, if any, as its caller was told.",
    )

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            # The portal lists a customer's newest, and finds one by request id.
            models.Index(fields=["customer", "-at"], name="accounts_refusal_newest"),
            models.Index(
                fields=["customer", "request_id"], name="accounts_refusal_request"
            ),
            # Staff look for a request of any customer.
            models.Index(fields=["request_id"], name="accounts_refusal_any_request"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}: {self.status} {self.code}"


class KeyNetworks(models.Model):
    """The networks, not the addresses, that a key was used from on one day."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    key_id = models.CharField(max_length=32)
    day = models.DateField()
    networks = models.JSONField(default=list, help_text="In order of appearance.")

    class Meta:
        verbose_name_plural = "networks of keys"
        constraints = [
            models.UniqueConstraint(
                fields=["day", "key_id"], name="accounts_key_networks_once_a_day"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.day}: {len(self.networks)}"


class Suspicion(models.Model):
    """A pattern in a key's calls that a person should look at: once per key and day."""

    class Kind(models.TextChoices):
        GROWTH = "growth", "sudden growth"
        SCANNING = "scanning", "scanning of model names"
        NETWORKS = "networks", "many networks"

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="suspicions"
    )
    key_id = models.CharField(max_length=32)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    day = models.DateField()
    detail = models.CharField(max_length=200)
    at = models.DateTimeField()
    dismissed_at = models.DateTimeField(null=True, blank=True)
    dismissed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )

    class Meta:
        ordering = ["-at"]
        constraints = [
            models.UniqueConstraint(
                fields=["key_id", "kind", "day"], name="accounts_suspicion_once_a_day"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key_id}: {self.kind}"
