"""Rollouts: a canary on its way to become the default, and all that decided it."""

from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from registry.models import ModelVersion, RegisteredModel

# So many rollouts are shown on the page of a version or a route.
_LISTED = 10


class RolloutQuerySet(models.QuerySet["Rollout"]):
    def listed(self) -> "RolloutQuerySet":
        """Return the newest, without their numbers and plans."""
        found = self.select_related("registered_model", "version", "started_by")
        return found.defer("sums", "plan").order_by("-started_at", "-pk")[:_LISTED]


class Rollout(models.Model):
    """One canary's way by a plan. Nothing else moves a weight of a running rollout."""

    class State(models.TextChoices):
        WAITING = "waiting", "waiting for its version"
        RUNNING = "running", "running"
        PAUSED = "paused", "paused"
        APPROVAL = "approval", "waiting for a second person"
        PROMOTED = "promoted", "promoted"
        ROLLED_BACK = "rolled_back", "rolled back"

    # They move weights, or may do so again.
    ACTIVE = (State.WAITING, State.RUNNING, State.PAUSED, State.APPROVAL)

    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, related_name="rollouts"
    )
    version = models.ForeignKey(
        ModelVersion, on_delete=models.CASCADE, related_name="rollouts"
    )
    default_version = models.ForeignKey(
        ModelVersion, on_delete=models.CASCADE, related_name="+"
    )
    plan = models.JSONField(help_text="As it was when the rollout began.")
    state = models.CharField(
        max_length=16, choices=State.choices, default=State.WAITING
    )
    # Counted from 0.
    stage = models.PositiveSmallIntegerField(default=0)
    # None while the stage's weight is not served yet.
    stage_began_at = models.DateTimeField(null=True, blank=True)
    # The weight that it set last: another one in the route was set by hand.
    weight_percent = models.PositiveSmallIntegerField()
    # Everything that was counted; see `rollouts/counting.py`.
    sums = models.JSONField(default=dict)
    reason = models.TextField(blank=True, help_text="Why it is in its state.")
    override_reason = models.TextField(
        blank=True, help_text="Why it may break callers; empty: it may not."
    )
    override_allows = models.JSONField(
        default=list, blank=True, help_text="The differences that the reason is for."
    )
    started_at = models.DateTimeField()
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = RolloutQuerySet.as_manager()

    class Meta:
        ordering = ["-started_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["version"],
                condition=Q(state__in=("waiting", "running", "paused", "approval")),
                name="inference_one_active_rollout_of_a_version",
            )
        ]
        # Pages show the newest first.
        indexes = [
            models.Index(fields=["-started_at", "-id"], name="inference_rollout_newest")
        ]

    def __str__(self) -> str:
        return f"rollout of {self.registered_model.name} v{self.version.version}"

    @property
    def is_active(self) -> bool:
        return self.state in self.ACTIVE


class RolloutEventQuerySet(models.QuerySet["RolloutEvent"]):
    def untold(self) -> Self:
        """Select what followers have not been told yet."""
        return self.filter(told_at=None)


class RolloutEvent(models.Model):
    """One step of a rollout: what was done, by whom, and the numbers that decided."""

    rollout = models.ForeignKey(
        Rollout, on_delete=models.CASCADE, related_name="events"
    )
    at = models.DateTimeField()
    # What was done, e.g. started, advanced, rolled back.
    action = models.CharField(max_length=32)
    stage = models.PositiveSmallIntegerField()
    weight_percent = models.PositiveSmallIntegerField()
    reason = models.TextField(blank=True)
    guard = models.CharField(max_length=32, blank=True)
    sums = models.JSONField(default=dict)
    # None: the rollout itself.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    # When the followers of its model were told, or needed not be.
    told_at = models.DateTimeField(null=True, blank=True)

    objects = RolloutEventQuerySet.as_manager()

    class Meta:
        ordering = ["-at", "-pk"]
        # A worker looks for them every few seconds.
        indexes = [
            models.Index(
                fields=["at"],
                condition=Q(told_at=None),
                name="inference_rollout_event_untold",
            )
        ]

    def __str__(self) -> str:
        return f"{self.action} at {self.at:%Y-%m-%d %H:%M:%S}"
