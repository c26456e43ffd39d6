"""Hosts, what happened to versions in their processes, and environments."""

from typing import Self

from django.conf import settings
from django.db import models


class Host(models.Model):
    """A machine that runs engine processes, as the controller last saw it."""

    name = models.CharField(max_length=64, unique=True)
    devices = models.JSONField(default=list, blank=True)
    memory_bytes = models.PositiveBigIntegerField(default=0)
    memory_used_bytes = models.PositiveBigIntegerField(default=0)
    walls = models.JSONField(
        default=dict,
        blank=True,
        help_text="What holds processes there: sandbox, network, memory.",
    )
    lacking = models.JSONField(
        default=list,
        blank=True,
        help_text="What does not fit, by name and need.",
    )
    error = models.TextField(blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class VersionEventQuerySet(models.QuerySet["VersionEvent"]):
    def untold(self) -> Self:
        """Select what followers are told of, and have not been told yet."""
        kinds = VersionEvent.Kind.QUARANTINED, VersionEvent.Kind.LOAD_FAILED
        return self.filter(told_at=None, kind__in=kinds)


class VersionEvent(models.Model):
    """Something that happened to a version while it was served."""

    class Kind(models.TextChoices):
        DEATH = "death", "its process died"
        QUARANTINED = "quarantined", "quarantined"
        RELEASED = "released", "released"
        FAILURE = "failure", "a batch failed"
        LOAD_FAILED = "load_failed", "could not be loaded"
        MOVED = "moved", "moved to a process of its own"
        RECYCLED = "recycled", "a fresh process took over"
        LEAK = "leak", "its memory grows steadily"

    model = models.CharField(max_length=255)
    version = models.PositiveIntegerField()
    kind = models.CharField(max_length=16, choices=Kind.choices)
    at = models.DateTimeField()
    engine = models.CharField(max_length=64, blank=True, help_text="Process.")
    host = models.CharField(max_length=64, blank=True)
    # A sentence; `detail` has the trace or the last lines of output.
    text = models.TextField()
    detail = models.TextField(blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    signal = models.CharField(max_length=16, blank=True)
    rows = models.PositiveIntegerField(default=0)
    request_ids = models.JSONField(default=list, blank=True)
    # When the followers of its model were told; most kinds are not told.
    told_at = models.DateTimeField(null=True, blank=True)

    objects = VersionEventQuerySet.as_manager()

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [
            models.Index(
                fields=["model", "version", "-at"], name="inference_version_event"
            ),
            # A worker looks for them every few seconds.
            models.Index(
                fields=["kind", "at"],
                condition=models.Q(told_at=None),
                name="inference_version_event_untold",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} v{self.version}: {self.kind}"


class VersionCondition(models.Model):
    """Whether a version is quarantined, and what people asked for it."""

    model = models.CharField(max_length=255)
    version = models.PositiveIntegerField()
    quarantined_at = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(blank=True)
    # Deaths and failures before these times count no more.
    released_at = models.DateTimeField(null=True, blank=True)
    load_again_at = models.DateTimeField(null=True, blank=True)
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    # Its single row took too long on a shared engine.
    slow_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["model", "-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["model", "version"], name="inference_condition_of_a_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} v{self.version}"


class ModelEnvironment(models.Model):
    """A Python environment that was built for versions with the same requirements."""

    class State(models.TextChoices):
        WAITING = "waiting", "waiting to be built"
        BUILDING = "building", "is being built"
        READY = "ready", "ready"
        FAILED = "failed", "could not be built"

    digest = models.CharField(max_length=64, primary_key=True)
    python = models.CharField(max_length=32)
    requirements = models.JSONField(default=list)
    state = models.CharField(
        max_length=16, choices=State.choices, default=State.WAITING
    )
    error = models.TextField(blank=True)
    log = models.TextField(blank=True)
    size_bytes = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    built_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "environment"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.digest[:12]
