"""What the engines run, what the gateways may serve, and prediction jobs."""

from django.db import models
from django.db.models import F, Q

from accounts.models import ApiKey, Customer


class SnapshotState(models.Model):
    """The one row that counts changes which gateways must learn of.

    Whoever changes a key, plan, customer, route or version adds one to `changed` in
    the same transaction; the controller publishes and moves `published` up to it.
    """

    changed = models.PositiveBigIntegerField(default=1)
    # Only what engines must learn of, too: a change of keys is none of theirs.
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
    """Something that changed since the last snapshot; deleted when it is published."""

    class Kind(models.TextChoices):
        EVERYTHING = "everything", "everything"
        KEY = "key", "key"
        CUSTOMER = "customer", "customer"
        PLAN = "plan", "plan"
        MODEL = "model", "model"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    # Digest of a key, id of a customer or plan, name of a model; empty: all of them.
    name = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


class ControllerLease(models.Model):
    """The one row that names the leading controller."""

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
    """The one row that names the home whose processes use this database."""

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

    name = models.CharField(max_length=64, unique=True, help_text="Device, e.g. cpu.")
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
    """One version on one engine, and why it is not ready if it is not."""

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
        return f"{self.model} v{self.version} on {self.engine_id}"


class ServingRoute(models.Model):
    """The variants gateways use now; follows the desired route when loaded."""

    model = models.CharField(max_length=255, unique=True)
    default_version = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty: nothing is served yet."
    )
    default_weight_percent = models.PositiveSmallIntegerField(default=100)
    canary_version = models.PositiveIntegerField(null=True, blank=True)
    canary_weight_percent = models.PositiveSmallIntegerField(default=0)
    waiting_for = models.TextField(
        blank=True, help_text="Why the desired route is not served yet."
    )
    moved_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["model"]
        constraints = [
            models.CheckConstraint(
                condition=Q(default_weight_percent=100 - F("canary_weight_percent")),
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


class PredictionJobQuerySet(models.QuerySet["PredictionJob"]):
    def unfinished(self) -> "PredictionJobQuerySet":
        """Return the jobs that have not ended.

        Asked by the time of their end, as their index is: databases use a partial
        index only where a query names its condition, and SQLite sees in the query the
        marks of its parameters, not their values.
        """
        return self.filter(completed_at=None)


class PredictionJob(models.Model):
    """Asynchronous prediction over many instances. This row is the truth."""

    class Status(models.TextChoices):
        PENDING = "pending", "pending"
        PROCESSING = "processing", "processing"
        COMPLETED = "completed", "completed"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    id = models.CharField(max_length=32, primary_key=True)
    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="jobs"
    )
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="jobs")
    model = models.CharField(max_length=255)
    version = models.PositiveIntegerField()
    variant = models.CharField(max_length=16)
    status = models.CharField(
        max_length=16, choices=Status.choices, default=Status.PENDING
    )
    input_format = models.CharField(max_length=8, help_text="json or csv.")
    input_file = models.CharField(
        max_length=255,
        blank=True,
        help_text="Relative to the jobs folder. Empty once its removal has begun.",
    )
    input_bytes = models.PositiveBigIntegerField(default=0)
    input_offset = models.PositiveBigIntegerField(
        default=0, help_text="Where the next chunk begins in the input, in bytes."
    )
    # As it was when the job was accepted: later edits of rules or thresholds must not
    # make one half of an output differ from the other.
    signature = models.JSONField(default=dict)
    options = models.JSONField(default=dict, blank=True)
    chunk_rows = models.PositiveIntegerField(default=500)
    rows_total = models.PositiveIntegerField(null=True, blank=True)
    rows_done = models.PositiveIntegerField(default=0)
    rows_failed = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="Starts since the last committed chunk that ended badly."
    )
    worker = models.CharField(
        max_length=100, blank=True, help_text="Who last held the lease."
    )
    lease_token = models.PositiveIntegerField(
        default=0, help_text="Fencing token: writes with an older one are refused."
    )
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    waiting_since = models.DateTimeField(
        null=True, blank=True, help_text="Since when no engine takes its next rows."
    )
    error_code = models.CharField(max_length=40, blank=True)
    error_message = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    completed_at = models.DateTimeField(null=True, blank=True)
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="When its input and output were deleted."
    )

    objects = PredictionJobQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["pending", "processing"], completed_at=None)
                | Q(
                    status__in=["completed", "failed", "cancelled"],
                    completed_at__isnull=False,
                ),
                name="inference_job_ends_at_a_time",
            ),
            models.CheckConstraint(
                condition=Q(rows_failed__lte=F("rows_done")),
                name="inference_job_failed_rows_are_done",
            ),
        ]
        indexes = [
            # Whose turn it is, what the sweep finds, and which versions jobs need.
            models.Index(
                fields=["customer", "lease_expires_at"],
                condition=Q(completed_at__isnull=True),
                name="inference_job_unfinished",
            ),
            # The admin asks for a span of time.
            models.Index(fields=["created_at"], name="inference_job_created"),
            # Ids sort by time, so a list needs no other order.
            models.Index(fields=["customer", "-id"], name="inference_job_list"),
            # Retention looks for old output that is still there.
            models.Index(
                fields=["completed_at"],
                condition=Q(removed_at__isnull=True),
                name="inference_job_retention",
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def has_output(self) -> bool:
        """Tell whether nothing of its input and output was deleted yet."""
        return self.removed_at is None and self.input_file != ""


class JobTurn(models.Model):
    """When a worker last took up a job of a customer; whose turn comes next."""

    customer = models.OneToOneField(
        Customer, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    began_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.customer_id} at {self.began_at}"


class JobTotals(models.Model):
    """What jobs have predicted by one version since there are any, for metrics.

    Usage says the same by time, in rows that grow with every job.
    """

    model = models.CharField(max_length=255)
    version = models.PositiveIntegerField()
    variant = models.CharField(max_length=16)
    # Each chunk is one, as it is in usage.
    requests = models.PositiveBigIntegerField(default=0)
    rows = models.PositiveBigIntegerField(default=0)
    compute_us = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "job totals"
        constraints = [
            models.UniqueConstraint(
                fields=["model", "version", "variant"],
                name="inference_job_totals_of_a_version",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} v{self.version}: {self.rows}"


class JobChunk(models.Model):
    """The committed output of one run of consecutive rows."""

    job = models.ForeignKey(
        PredictionJob, on_delete=models.CASCADE, related_name="chunks"
    )
    index = models.PositiveIntegerField()
    rows = models.PositiveIntegerField()
    predictions = models.JSONField()
    errors = models.JSONField(default=list)
    warnings = models.JSONField(default=list)

    class Meta:
        ordering = ["job", "index"]
        constraints = [
            models.UniqueConstraint(
                fields=["job", "index"], name="inference_job_chunk_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.job_id}[{self.index}]"


class Upload(models.Model):
    """A file that a customer sends first and names as `input_uri` later.

    The row is there before the file is; `stored_at` says that all of it has come.
    """

    id = models.CharField(primary_key=True, max_length=40)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    content_type = models.CharField(max_length=100)
    max_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
    stored_at = models.DateTimeField(null=True, blank=True)
    # Name in the storage; empty once the file is deleted.
    file = models.CharField(max_length=200, blank=True)
    bytes = models.PositiveBigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.id
