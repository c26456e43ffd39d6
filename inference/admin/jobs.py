"""Admin pages of prediction jobs, where people follow, cancel and retry them."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RangeDateTimeFilter
from unfold.decorators import action, display

from accounts.admin.filters import ModelFilter
from inference.admin.owners import OwnedRowsAdmin
from inference.errors.api_error import ApiError
from inference.jobs import life_cycle as jobs
from inference.jobs.api.serializers import percent_done
from inference.models import PredictionJob

Status = PredictionJob.Status
_STATUS_COLORS = {
    Status.PENDING.value: "info",
    Status.PROCESSING.value: "warning",
    Status.COMPLETED.value: "success",
    Status.FAILED.value: "danger",
    "quarantined": "danger",
}


@admin.register(PredictionJob)
class PredictionJobAdmin(OwnedRowsAdmin):
    """Read-only, but with actions to cancel and retry, which call the job's own API."""

    list_display = (
        "id",
        "customer",
        "model_version",
        "status_label",
        "course",
        "created_at",
    )
    list_select_related = ("customer",)
    list_filter = ("status", ModelFilter, ("created_at", RangeDateTimeFilter))
    list_filter_submit = True
    list_per_page = 50
    search_fields = ("id", "customer__name", "model", "api_key__key_id")
    actions = ("cancel_jobs", "retry_jobs")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "id",
                    "customer",
                    "api_key",
                    "model_version",
                    "status_label",
                    "progress",
                    "error",
                )
            },
        ),
        (
            "Input",
            {"fields": ("input_format", "input_bytes", "rows_total", "options")},
        ),
        (
            "Work",
            {
                "fields": (
                    "rows_done",
                    "rows_failed",
                    "attempts",
                    "worker",
                    "lease_expires_at",
                    "waiting_since",
                )
            },
        ),
        (
            "Times",
            {"fields": ("created_at", "started_at", "completed_at", "removed_at")},
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(
        self, request: HttpRequest, obj: Any = None
    ) -> tuple[str, ...]:
        shown = (name for _, group in self.fieldsets for name in group["fields"])
        return (*shown, *super().get_readonly_fields(request, obj))

    @display(description="Model", ordering="model")
    def model_version(self, job: PredictionJob) -> str:
        role = f", {job.variant}" if job.variant else ""
        return f"{job.model} v{job.version}{role}"

    @display(description="Status", ordering="status", label=_STATUS_COLORS)
    def status_label(self, job: PredictionJob) -> str:
        return "quarantined" if jobs.is_quarantined(job) else job.status

    @display(description="Progress")
    def progress(self, job: PredictionJob) -> SafeString:
        total = "?" if job.rows_total is None else f"{job.rows_total:,}"
        failed = f", {job.rows_failed:,} failed" if job.rows_failed else ""
        return render_to_string(
            "inference/job_progress.html",
            {
                "percent": percent_done(job),
                "text": f"{job.rows_done:,} of {total}{failed}",
            },
        )

    @display(description="Progress")
    def course(self, job: PredictionJob) -> SafeString:
        """Show a job's progress and error in one column of the list."""
        return format_html(
            '{}<div class="text-xs">{}</div>', self.progress(job), self.error(job) or ""
        )

    @display(description="Error", empty_value="")
    def error(self, job: PredictionJob) -> str | None:
        if job.error_code:
            return f"{job.error_code}: {job.error_message}"
        if job.waiting_since is not None and job.status in jobs.UNFINISHED:
            return f"Has waited for an engine since {job.waiting_since:%H:%M:%S} UTC."
        return None

    @action(description="Cancel", permissions=["change"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        cancelled = finished = 0
        for job_id in queryset.values_list("pk", flat=True):
            try:
                jobs.cancel(job_id, now=timezone.now())
                cancelled += 1
            except ApiError:
                finished += 1
        self._tell(request, cancelled, "cancelled", finished, "already finished")

    @action(description="Retry failed jobs", permissions=["change"])
    def retry_jobs(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        job_ids = list(queryset.values_list("pk", flat=True))
        revived = sum(jobs.retry(job_id) for job_id in job_ids)
        self._tell(
            request, revived, "started again", len(job_ids) - revived, "not failed"
        )

    def _tell(
        self, request: HttpRequest, done: int, what: str, left: int, why: str
    ) -> None:
        if done:
            noun = "job" if done == 1 else "jobs"
            self.message_user(request, f"{done} {noun} {what}.", messages.SUCCESS)
        if left:
            noun = "job was" if left == 1 else "jobs were"
            self.message_user(
                request, f"{left} {noun} left alone: {why}.", messages.WARNING
            )
