"""Customers and their API keys."""

import datetime
import re
import unicodedata
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone
from simple_history.models import HistoricalRecords

from accounts.models.plans import Plan, validate_overrides
from accounts.signals import access_changed

# Unicode's control and format characters, such as zero-width ones, are invisible.
_UNSEEN = {"Cc", "Cf"}
# Other invisible characters: joiners, fillers and variation selectors.
_FORMLESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_BRAILLE_BLANK = "\u2800"
_LONGEST_AS_READ = 600
UNSEEN_NAME = "Write a name that people can see."


def as_read(name: str) -> str:
    """Fold a name, so that names that look the same to people become equal."""
    seen = "".join(
        " " if each.isspace() else each
        for each in unicodedata.normalize("NFKC", name.replace(_BRAILLE_BLANK, " "))
        if each.isspace() or unicodedata.category(each) not in _UNSEEN
    )
    seen = _FORMLESS.sub("", seen)
    # Case folding may decompose letters, and make a name too long for an index.
    folded = unicodedata.normalize("NFKC", " ".join(seen.split()).casefold())
    return folded[:_LONGEST_AS_READ]


class NameAsRead(models.CharField):  # type: ignore[type-arg]  # not generic at run time
    """The folded name; set whenever a row is written, in bulk too."""

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        value = as_read(model_instance.name)  # type: ignore[attr-defined]
        setattr(model_instance, self.attname, value)
        return value


class Customer(models.Model):
    """Owns API keys, limits and usage, and pays for them."""

    name = models.CharField(max_length=200, db_index=True)
    name_as_read = NameAsRead(
        max_length=_LONGEST_AS_READ, unique=True, blank=True, editable=False, default=""
    )
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="customers")
    active = models.BooleanField(
        default=True, help_text="An inactive customer's keys are refused."
    )
    contact_email = models.EmailField(blank=True)
    notes = models.TextField(blank=True)
    limit_overrides = models.JSONField(
        default=dict,
        blank=True,
        validators=[validate_overrides],
        help_text="What differs from the plan for this customer, e.g."
        ' {"burst_requests": 50, "monthly_quota": null}.',
    )
    archived_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="Since when its keys are ended; its usage stays.",
    )
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, blank=True, related_name="customers"
    )
    for_staff = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="Holds the personal keys of staff.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    history = HistoricalRecords(excluded_fields=["name_as_read"])

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["for_staff"],
                condition=Q(for_staff=True),
                name="accounts_customer_one_for_staff",
            ),
            models.CheckConstraint(
                condition=Q(archived_at=None) | Q(active=False),
                name="accounts_customer_archived_is_inactive",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, **kwargs: Any) -> None:
        """Check the limits, save and tell gateways; raises ValidationError."""
        self.limit_overrides = self.limit_overrides or {}
        self.clean_fields()
        with transaction.atomic():
            super().save(**kwargs)
            access_changed.send(sender=Customer, rows=[self])

    def clean(self) -> None:
        """Refuse a name that is invisible or looks like another customer's."""
        read = as_read(self.name)
        if self.name and not read:
            raise ValidationError({"name": UNSEEN_NAME})
        same = Customer.objects.filter(name_as_read=read).exclude(pk=self.pk).first()
        if same is not None:
            raise ValidationError(
                {"name": f"There is a customer “{same.name}” already."}
            )

    @property
    def max_keys(self) -> int:
        """How many active keys the customer may make itself."""
        own: int = self.limit_overrides.get("max_keys", self.plan.max_keys)
        return own


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def valid(self, at: datetime.datetime) -> Self:
        """Keep the keys that a call at `at` may use."""
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=at),
            revoked_at__isnull=True,
            customer__active=True,
        )

    def ended(self, at: datetime.datetime) -> Self:
        """Keep the keys that a call at `at` may not use."""
        return self.filter(
            Q(revoked_at__isnull=False)
            | Q(expires_at__lte=at)
            | Q(customer__active=False)
        )

    def sharing(self, quota_key_id: str) -> Self:
        """Keep the keys that share rates and quotas, the newest last."""
        same = Q(key_id=quota_key_id) | Q(first_key_id=quota_key_id)
        return self.filter(same).order_by("pk")


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
        Customer, on_delete=models.PROTECT, related_name="api_keys"
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
    allowed_networks = models.JSONField(
        default=list,
        blank=True,
        help_text="IPv4 and IPv6 networks it may be used from. Empty: anywhere.",
    )
    burst_requests = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Requests per second. Empty: as the plan says.",
    )
    sustained_requests = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Requests per minute. Empty: as the plan says.",
    )
    daily_quota = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="In the plan's unit, of the plan's quota."
    )
    monthly_quota = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="In the plan's unit, of the plan's quota."
    )
    max_concurrency = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Requests in flight at once. Empty: as the plan says.",
    )
    replaced_by = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="replaces",
        help_text="The key that rotation gave for it.",
    )
    first_key_id = models.CharField(
        max_length=32,
        blank=True,
        default="",
        editable=False,
        help_text="The first key of its rotations: all of them have one quota together."
        " Empty: this one.",
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
        # The admin lists the newest first.
        indexes = [models.Index(fields=["-created_at"], name="accounts_apikey_newest")]
        constraints = [
            models.CheckConstraint(
                condition=(
                    (Q(burst_requests=None) | Q(burst_requests__gte=1))
                    & (Q(sustained_requests=None) | Q(sustained_requests__gte=1))
                    & (Q(max_concurrency=None) | Q(max_concurrency__gte=1))
                ),
                name="accounts_key_limits_at_least_1",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.key_id})"

    @property
    def quota_key_id(self) -> str:
        """The id of the key under which its rates and quotas are counted."""
        return self.first_key_id or self.key_id

    @property
    def limited_as(self) -> "ApiKey":
        """The key whose limits hold for it: after a rotation, its replacement.

        Both share one quota, and two limits of one quota would contradict each other.
        """
        if self.replaced_by_id is None:
            return self
        sharing = ApiKey.objects.sharing(self.quota_key_id)
        return sharing.filter(revoked_at=None).last() or self

    @property
    def state(self) -> State:
        if self.revoked_at is not None:
            return self.State.REVOKED
        if self.expires_at is not None and self.expires_at <= timezone.now():
            return self.State.EXPIRED
        return self.State.ACTIVE
