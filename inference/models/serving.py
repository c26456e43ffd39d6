"""Engines, their loaded versions, serving routes, snapshots and the leader."""

from django.db import models
from django.db.models import Q

from registry.shares import canaries, constraints
from registry.shares.canaries import Canary


class SnapshotState(models.Model):
    """The single row that counts the changes that gateways must learn of.

    Each change of a key, plan, customer, route or version adds one to `changed` in its
    transaction. The controller publishes it and sets `published` to the same number.
    """

    changed = models.PositiveBigIntegerField(default=1)
    # Counts only the changes that engines must learn of too, so not those of keys.
    models_changed = models.PositiveBigIntegerField(default=1)
    published = models.PositiveBigIntegerField(default=0)
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(pk=1), name="inference_snapshot_one_row")
        ]

    def __str__(self) -> str:
        return f"{self.published} of {self.changed}"


class SnapshotChange(models.Model):
    """A change since the last snapshot; deleted when it is published."""

    class Kind(models.TextChoices):
        EVERYTHING = "everything", "everything"
        KEY = "key", "key"
        CUSTOMER = "customer", "customer"
        PLAN = "plan", "plan"
        MODEL = "model", "model"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    # Digest of a key, id of a customer or plan, or name of a model; empty: all of them.
    name = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


class ControllerLease(models.Model):
    """The single row that names the leading controller."""

    holder = models.CharField(max_length=64, blank=True)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(pk=1), name="inference_controller_lease_one_row"
            )
        ]

    def __str__(self) -> str:
        return self.holder


class DatabaseHome(models.Model):
    """The single row that names the home whose processes use this database."""

    home_id = models.CharField(max_length=64)
    host = models.CharField(max_length=255)
    path = models.CharField(max_length=4096)
    since = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(pk=1), name="inference_database_home_one_row"
            )
        ]

    def __str__(self) -> str:
        return f"{self.path} on {self.host}"


class Engine(models.Model):
    """An engine process as the controller last saw it."""

    class State(models.TextChoices):
        UNREACHABLE = "unreachable", "unreachable"
        RUNNING = "running", "running"

    class Kind(models.TextChoices):
        DEVICE = "device", "torch programs of a device"
        OWN = "own", "one version"
        GROUP = "group", "a group of versions"

    name = models.CharField(
        max_length=64,
        unique=True,
        help_text="Device, e.g. cpu, or model, version and replica.",
    )
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.DEVICE)
    host = models.CharField(max_length=64, blank=True)
    environment = models.CharField(max_length=64, default="base")
    walls = models.JSONField(
        default=dict, blank=True, help_text="What holds the process: its sandbox."
    )
    started_at = models.DateTimeField(null=True, blank=True)
    memory_limit_bytes = models.PositiveBigIntegerField(
        default=0, help_text="Beyond that of an empty process; 0: none."
    )
    memory_samples = models.JSONField(
        default=list,
        blank=True,
        help_text="Pairs of time (seconds since the epoch) and bytes beyond those of "
        "an empty process, the newest last.",
    )
    address = models.CharField(max_length=255)
    state = models.CharField(
        max_length=16, choices=State.choices, default=State.UNREACHABLE
    )
    device = models.CharField(max_length=100, blank=True)
    pid = models.PositiveIntegerField(null=True, blank=True)
    memory_bytes = models.PositiveBigIntegerField(default=0)
    device_title = models.CharField(max_length=100, blank=True)
    device_total_bytes = models.PositiveBigIntegerField(default=0)
    device_used_bytes = models.PositiveBigIntegerField(
        default=0, help_text="By anybody, not only by this engine."
    )
    error = models.TextField(blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class LoadedVersion(models.Model):
    """One version on one engine, with the error if it failed to load."""

    class State(models.TextChoices):
        LOADING = "loading", "loading"
        READY = "ready", "ready"
        FAILED = "failed", "failed"
        EVICTED = "evicted", "loads when called"

    engine = models.ForeignKey(
        Engine, on_delete=models.CASCADE, related_name="loaded_versions"
    )
    model = models.CharField(max_length=255)
    version = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=State.choices)
    error = models.TextField(blank=True)
    load_ms = models.PositiveIntegerField(null=True, blank=True)
    memory_bytes = models.PositiveBigIntegerField(
        default=0, help_text="Measured when it was loaded."
    )
    notes = models.TextField(
        blank=True, help_text="How it runs: its precision, and why no graphs are used."
    )
    apart = models.TextField(
        blank=True, help_text="Why its requests share no batches; empty: they do."
    )
    ready_at = models.DateTimeField(null=True, blank=True)
    calls = models.PositiveBigIntegerField(default=0)
    rows = models.PositiveBigIntegerField(default=0)
    single_row_ms = models.FloatField(
        default=0.0, help_text="Time of a batch of one row; 0: not known yet."
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["model", "-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["engine", "model", "version"],
                name="inference_loaded_version_unique",
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} v{self.version} on {self.engine}"


class ServingRoute(models.Model):
    """The variants that gateways use now; follows the desired route once loaded."""

    model = models.CharField(max_length=255, unique=True)
    default_version = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty: nothing is served yet."
    )
    default_weight_percent = models.PositiveSmallIntegerField(default=100)
    canary_version = models.PositiveIntegerField(null=True, blank=True)
    canary_weight_percent = models.PositiveSmallIntegerField(default=0)
    canary_2_version = models.PositiveIntegerField(null=True, blank=True)
    canary_2_weight_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    canary_3_version = models.PositiveIntegerField(null=True, blank=True)
    canary_3_weight_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    canary_4_version = models.PositiveIntegerField(null=True, blank=True)
    canary_4_weight_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    salt = models.CharField(
        max_length=32,
        blank=True,
        help_text="Secret; deals sticky callers, anew whenever the variants change.",
        db_default="",
    )
    former_version = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="The default before this one: it stays loaded for an hour, and "
        "answers while this one is quarantined.",
    )
    waiting_for = models.TextField(
        blank=True, help_text="Why the desired route is not served yet."
    )
    moved_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["model"]
        constraints = [
            models.CheckConstraint(
                condition=constraints.weights_sum_to_100(),
                name="inference_serving_weights_sum_to_100",
            ),
            models.CheckConstraint(
                condition=Q(canary_version__isnull=True)
                | Q(default_version__isnull=False),
                name="inference_serving_no_canary_without_default",
            ),
        ]

    def __str__(self) -> str:
        return self.model

    @property
    def canaries(self) -> tuple[Canary[int], ...]:
        return canaries.of(self)
