"""Charge a job's quotas and record its usage, chunk by chunk.

Both are part of the transaction that commits the chunk, so a chunk that is repeated
after a crash is neither charged nor counted twice.
"""

from datetime import datetime

from django.db.models import F

from accounts.admission.limit_words import OWNERS, PERIOD_ADJECTIVES, counted
from accounts.admission.limits import LeaseRequest, Quota, Source
from accounts.admission.refusal import reached_quota
from accounts.admission.windows import window_of
from accounts.customers import plans
from accounts.metering.event import UsageEvent
from accounts.models import ApiKey, SpoolSegment
from accounts.quotas import leases
from accounts.usage import recording
from inference.errors.api_error import ApiError, ErrorCode
from inference.models import JobTotals, PredictionJob


def holder(job_id: str) -> str:
    """Return a job's name as a holder of leases."""
    return f"job:{job_id}"


def segment(job_id: str) -> str:
    """Return a name for a job's usage, as if it came from a spool file of that holder.

    By this name, the settling of leases of ended holders finds that a job has spent all
    units that it was granted.
    """
    return f"{holder(job_id)}-chunks"


def charge(
    job_id: str,
    *,
    sequence: int,
    rows: int,
    compute_us: int,
    total_us: int,
    now: datetime,
) -> None:
    """Spend the quota units of one chunk with `rows` answered rows; record its usage.

    A chunk counts as one request, for the customer and for a key with its own quotas.
    Raises ApiError with QUOTA_EXCEEDED if a quota does not cover all of it; the caller
    rolls back.
    """
    job = PredictionJob.objects.select_related("customer__plan", "api_key").get(
        pk=job_id
    )
    charged = rows > 0 and job.api_key.mode != ApiKey.Mode.TEST
    if charged:
        costs = {
            "requests": 1,
            "rows": rows,
            "compute_ms": -(-compute_us // 1000),
            "shap_samples": 0,
        }
        limits = plans.limits_of(job.customer)
        own = plans.key_limits_of(job.api_key.limited_as, limits)
        for quota in limits.quotas:
            source = limits.source_of(quota.policy_name)
            _spend(job, quota, source, units=costs[quota.unit], now=now)
        for quota in own.quotas if own is not None else ():
            _spend(job, quota, "key", units=costs[quota.unit], now=now)
    event = UsageEvent(
        id=f"{job_id}-{sequence}",
        at=now.timestamp(),
        customer_id=job.customer_id,
        key_id=job.api_key.key_id,
        operation="job",
        model=job.model,
        version=str(job.version),
        variant=job.variant,
        status=200,
        code="",
        rows=rows,
        charged=charged,
        compute_us=compute_us,
        total_us=max(total_us, compute_us),
        shap_samples=0,
        request_id=job_id,
    )
    # A job has no spool file: the number of chunks stands for the ingested bytes.
    recording.record(segment(job_id), [event], ingested_bytes=sequence + 1)
    # Last: workers on the same version wait here for each other's commit.
    _count(job, rows=rows, compute_us=compute_us)


def _count(job: PredictionJob, *, rows: int, compute_us: int) -> None:
    of_version = {"model": job.model, "version": job.version, "variant": job.variant}
    JobTotals.objects.bulk_create([JobTotals(**of_version)], ignore_conflicts=True)
    JobTotals.objects.filter(**of_version).update(
        requests=F("requests") + 1,
        rows=F("rows") + rows,
        compute_us=F("compute_us") + compute_us,
    )


def close(job_id: str, *, now: datetime) -> None:
    """Mark a job's usage as complete, so that the ledger can forget it."""
    SpoolSegment.objects.filter(name=segment(job_id), completed_at=None).update(
        completed_at=now
    )


def _spend(
    job: PredictionJob, quota: Quota, source: Source, *, units: int, now: datetime
) -> None:
    if not units:
        return
    window = window_of(quota.name, now.timestamp())
    request = LeaseRequest(
        customer_id=job.customer_id,
        quota=quota.name,
        unit=quota.unit,
        window_start=window[0],
        units=units,
        minimum=units,
        key_id=job.api_key.quota_key_id if source == "key" else "",
    )
    grant = leases.grant(holder(job.pk), request)
    if grant.units < units:
        raise ApiError(
            ErrorCode.QUOTA_EXCEEDED,
            f"The {PERIOD_ADJECTIVES[quota.name]} quota of"
            f" {counted(quota.limit, quota.unit)} of {OWNERS[source]} does not cover"
            f" the next {units}. You can fetch the rows that are done.",
            retry_after_s=window[1] - now.timestamp(),
            limit=reached_quota(
                quota, source, left=grant.remaining, needed=units, window=window
            ),
        )
