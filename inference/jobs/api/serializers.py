"""Serializers of jobs and of queries for them."""

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from accounts.api.serializers import QuerySerializer
from inference.jobs import ids as job_ids
from inference.models import PredictionJob

Status = PredictionJob.Status
_FINISHED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class JobModelSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.CharField()
    variant = serializers.CharField(
        help_text="Role in the route, or `published` for a version outside of it."
    )


class JobProgressSerializer(serializers.Serializer[Any]):
    rows_done = serializers.IntegerField()
    rows_total = serializers.IntegerField(
        allow_null=True, help_text="Null while a large file is not counted yet."
    )
    rows_failed = serializers.IntegerField(help_text="Rows without a prediction.")
    percent = serializers.IntegerField()


class JobErrorSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class JobSerializer(serializers.Serializer[Any]):
    """A job, its progress and the addresses of its output."""

    id = serializers.CharField()
    status = serializers.ChoiceField(choices=Status.values)
    model = JobModelSerializer()
    progress = JobProgressSerializer()
    created_at = serializers.DateTimeField(default_timezone=UTC)
    started_at = serializers.DateTimeField(allow_null=True, default_timezone=UTC)
    completed_at = serializers.DateTimeField(allow_null=True, default_timezone=UTC)
    eta_s = serializers.IntegerField(
        allow_null=True, help_text="Estimated seconds to the end."
    )
    result_url = serializers.CharField(
        allow_null=True, help_text="Null until the job has ended."
    )
    errors_url = serializers.CharField(allow_null=True)
    error = JobErrorSerializer(allow_null=True)


class JobListQuerySerializer(QuerySerializer):
    limit = serializers.IntegerField(
        min_value=1, max_value=100, default=20, help_text="Jobs of one page."
    )
    cursor = serializers.CharField(
        max_length=30, required=False, help_text="`next_cursor` of the page before."
    )

    def validate_cursor(self, value: str) -> str:
        if not job_ids.is_id(value):
            raise serializers.ValidationError("It must be `next_cursor` of a page.")
        return value


class JobListSerializer(serializers.Serializer[Any]):
    # Not an attribute: a field named `data` would hide DRF's own `data`.
    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {
            "data": JobSerializer(many=True),
            "next_cursor": serializers.CharField(allow_null=True),
        }


class JobResultLinkSerializer(serializers.Serializer[Any]):
    url = serializers.URLField()
    expires_at = serializers.DateTimeField()


@extend_schema_serializer(component_name="JobRowError")
class RowErrorSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField(help_text="Position of the row, from 0.")
    code = serializers.CharField()
    field = serializers.CharField(required=False)
    issue = serializers.CharField()
    received = serializers.CharField(required=False)


class WarningSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    code = serializers.CharField()


class JobResultSerializer(serializers.Serializer[Any]):
    """All predictions, in the order of the rows; null at rows that failed."""

    job_id = serializers.CharField()
    status = serializers.ChoiceField(choices=_FINISHED)
    model = JobModelSerializer()
    predictions = serializers.ListField(child=serializers.JSONField())

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return super().get_fields() | {
            "errors": RowErrorSerializer(many=True),
            "warnings": WarningSerializer(many=True, required=False),
        }


class JobErrorsSerializer(serializers.Serializer[Any]):
    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {"data": RowErrorSerializer(many=True)}


def present(job: PredictionJob, *, url: str, now: datetime) -> dict[str, Any]:
    """Return a job in the form of JobSerializer; `url` is the job's own address."""
    offers_output = job.status in _FINISHED and job.has_output
    facts = {
        "id": job.pk,
        "status": job.status,
        "model": {
            "name": job.model,
            "version": str(job.version),
            "variant": job.variant,
        },
        "progress": {
            "rows_done": job.rows_done,
            "rows_total": job.rows_total,
            "rows_failed": job.rows_failed,
            "percent": percent_done(job),
        },
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "eta_s": _eta_s(job, now=now),
        "result_url": f"{url}/result" if offers_output else None,
        "errors_url": f"{url}/errors" if offers_output else None,
        "error": {"code": job.error_code, "message": job.error_message}
        if job.error_code
        else None,
    }
    return dict(JobSerializer(facts).data)


def percent_done(job: PredictionJob) -> int:
    """Return the finished percentage: of rows, or of bytes until rows are counted."""
    if job.status == Status.COMPLETED:
        return 100
    done, total = job.rows_done, job.rows_total
    if total is None:
        done, total = job.input_offset, job.input_bytes
    return min(100, done * 100 // total) if total else 0


def _eta_s(job: PredictionJob, *, now: datetime) -> int | None:
    if job.status != Status.PROCESSING or job.waiting_since is not None:
        return None
    if job.started_at is None or not job.rows_done or job.rows_total is None:
        return None
    seconds_per_row = (now - job.started_at).total_seconds() / job.rows_done
    return max(0, round(seconds_per_row * (job.rows_total - job.rows_done)))
