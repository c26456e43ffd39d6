"""Prediction jobs: their rows, turns, totals and chunks."""

from django.db import models
from django.db.models import F, Q

from accounts.models import ApiKey, Customer


class PredictionJobQuerySet(models.QuerySet["PredictionJob"]):
    def unfinished(self) -> "PredictionJobQuerySet":
        """Return the jobs that have not ended.

        The filter repeats the partial index's condition, or databases would not use it.
        A status does not work: SQLite sees the placeholder of a parameter, no value.
        """
        return self.filter(completed_at=None)

    def needing_input(self) -> "PredictionJobQuerySet":
        """Return the jobs that may still run: a retry may revive a failed one."""
        status = PredictionJob.Status
        may_run = (status.PENDING, status.PROCESSING, status.FAILED)
        return self.filter(status__in=may_run, removed_at=None)


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
    # The signature when the job was accepted: later edits of rules or thresholds must
    # not change the second half of an output.
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
    request_id = models.CharField(
        max_length=128,
        blank=True,
        default="",
        # During an upgrade, older processes insert rows without it.
        db_default="",
        help_text="Of the request that submitted it.",
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
            # For turns, the sweep, and the versions that jobs need.
            models.Index(
                fields=["customer", "lease_expires_at"],
                condition=Q(completed_at__isnull=True),
                name="inference_job_unfinished",
            ),
            # The admin filters by time.
            models.Index(fields=["created_at"], name="inference_job_created"),
            # Ids sort by time, so a list needs no other order.
            models.Index(fields=["customer", "-id"], name="inference_job_list"),
            # `remove_old` looks for old output that still exists.
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
        """Whether the removal of its output has not begun."""
        return self.removed_at is None and self.input_file != ""


class JobTurn(models.Model):
    """When a worker last claimed a job of a customer; decides whose turn is next."""

    customer = models.OneToOneField(
        Customer, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    began_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.customer_id} at {self.began_at}"


class JobTotals(models.Model):
    """Totals of one version's predictions in jobs, for metrics.

    Usage holds the same by time, but its number of rows grows with every job.
    """

    model = models.CharField(max_length=255)
    version = models.PositiveIntegerField()
    variant = models.CharField(max_length=16)
    # Each chunk counts as one, as in usage.
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
    """The committed output of one chunk of consecutive rows."""

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
