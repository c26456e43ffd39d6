"""The life of a prediction job.

    pending ──claim──► processing ──finish──► completed
       │  ▲              │  │
       │  └───retry────┐ │  └─────cancel────► cancelled
       │               │ fail                     ▲
       │               failed                     │
       └──────────────────cancel──────────────────┘

The row in the database is the truth; Celery carries hints that some job waits. A worker
holds a claim and writes with its fencing token, so that a worker that was wrongly
thought dead changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce
from kombu.exceptions import ChannelError, KombuError

from accounts.admission.limit_words import counted
from accounts.admission.limits import Limits, ReachedLimit
from accounts.customers import plans
from accounts.models import ApiKey, Customer
from inference.codecs.answers import Warned
from inference.engine.signatures.signature import Signature
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.jobs import charging as job_metering
from inference.jobs import files
from inference.models import JobChunk, JobTurn, PredictionJob
from inference.snapshot.contents import Ending

# With a sweep every 10 s, a dead worker's job starts again within 30 s.
CLAIM_S = 15.0
# A claim that ends later was taken before the clock was set back.
_LONGEST_CLAIM_S = 60.0
# After this many starts in a row that died, the job counts as poison.
MAX_ATTEMPTS = 3
# A guess: how long the earlier jobs take is unknown.
_JOB_RETRY_S = 5.0
_DISK_RETRY_S = 60.0
# A hint that no worker took by then is useless: the sweep has sent others.
_HINT_EXPIRES_S = 30

Status = PredictionJob.Status
UNFINISHED = (Status.PENDING, Status.PROCESSING)

logger = structlog.get_logger(__name__)


class ClaimLost(Exception):
    """The job was cancelled, ended or taken over: this worker's output is void."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write to a job as long as no newer token exists."""

    job_id: str
    token: int
    # For logs: whose job it is, and which request submitted it.
    customer_id: int = 0
    key_id: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class JobTarget:
    """The version that a job uses, chosen when it is submitted."""

    model: str
    version: int
    variant: str
    signature: Signature
    # What its caller is told of its end.
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class ChunkOutput:
    """A worker's output for one chunk of consecutive rows.

    `predictions` has one entry per row, or None if `errors` has the reason.
    `input_end` is the byte of the input where the next chunk begins.
    """

    index: int
    predictions: Sequence[Any]
    errors: Sequence[Problem]
    input_end: int
    compute_us: int = 0
    total_us: int = 0
    # About rows that have a prediction.
    warnings: Sequence[Warned] = ()

    @property
    def rows(self) -> int:
        return len(self.predictions)

    @property
    def rows_failed(self) -> int:
        return len({problem.index for problem in self.errors})


def submit(
    job_id: str,
    *,
    api_key: ApiKey,
    target: JobTarget,
    stored: files.StoredInput,
    options: dict[str, Any],
    request_id: str = "",
) -> PredictionJob:
    """Accept a job whose input is stored, and send a hint once that is committed.

    Raises ApiError: CONCURRENCY_EXCEEDED if as many jobs as the plan allows wait or
    run, QUOTA_EXCEEDED if the customer's inputs would take too many bytes.
    """
    with transaction.atomic():
        _require_room(api_key.customer, input_bytes=stored.bytes)
        job = PredictionJob.objects.create(
            id=job_id,
            customer_id=api_key.customer_id,
            api_key=api_key,
            model=target.model,
            version=target.version,
            variant=target.variant,
            signature=msgspec.to_builtins(target.signature),
            input_format=stored.format,
            input_file=stored.file,
            input_bytes=stored.bytes,
            rows_total=stored.rows,
            options=options,
            request_id=request_id,
        )
        transaction.on_commit(dispatch)
    logger.info(
        "job_submitted",
        job=job_id,
        customer_id=job.customer_id,
        key_id=api_key.key_id,
        version=f"{job.model}/{job.version}",
        bytes=job.input_bytes,
    )
    return job


def _require_room(customer: Customer, *, input_bytes: int) -> None:
    limits = plans.limits_of(customer)
    # One customer's submissions take turns here, so that two cannot share the last
    # place.
    Customer.objects.select_for_update().get(pk=customer.pk)
    _require_disk(customer, limits, input_bytes)
    most = limits.max_jobs_in_flight
    if most is None:
        return
    unfinished = customer.jobs.unfinished().count()
    if unfinished < most:
        return
    raise ApiError(
        ErrorCode.CONCURRENCY_EXCEEDED,
        f"{counted(most, 'jobs')} may wait or run at once. Let one finish, or cancel"
        " one.",
        retry_after_s=_JOB_RETRY_S,
        limit=ReachedLimit(
            name="max_jobs_in_flight",
            scope="customer",
            source=limits.source_of("max_jobs_in_flight"),
            unit="jobs",
            maximum=most,
            used=unfinished,
        ),
    )


def _require_disk(customer: Customer, limits: Limits, needed: int) -> None:
    """Limit a customer's stored inputs to the plan's upload bytes, or one file."""
    most = max(limits.max_upload_bytes, settings.JOB_FILE_MAX_BYTES)
    found = customer.jobs.needing_input().aggregate(used=Sum("input_bytes"))
    used = found["used"] or 0
    if used + needed <= most:
        return
    raise ApiError(
        ErrorCode.QUOTA_EXCEEDED,
        f"The inputs of your jobs that wait, run or have failed may take"
        f" {counted(most, 'bytes')}. They take {used}, and this one needs {needed}"
        " more. Let some jobs complete, or cancel some.",
        retry_after_s=_DISK_RETRY_S,
        limit=ReachedLimit(
            name="max_upload_bytes",
            scope="customer",
            source=limits.source_of("max_upload_bytes")
            if most == limits.max_upload_bytes
            else "site",
            unit="bytes",
            maximum=most,
            used=used,
            needed=needed,
        ),
    )


def dispatch() -> bool:
    """Send workers a hint that a job waits; return False if the broker refuses it.

    A hint names no job: another customer's turn may come first. A lost hint does no
    harm: the sweep sends others.
    """
    try:
        current_app.send_task(
            "inference.tasks.run_jobs",
            expires=_HINT_EXPIRES_S,
            retry=False,
            ignore_result=True,
        )
    except (KombuError, ChannelError, OSError) as error:
        logger.warning("job_hint_not_sent", outage="broker", reason=error)
        return False
    return True


def claimable(now: datetime) -> QuerySet[PredictionJob]:
    """Return the unfinished jobs that no worker holds."""
    return PredictionJob.objects.unfinished().filter(_held_by_nobody(now))


def _held_by_nobody(now: datetime) -> Q:
    return Q(lease_expires_at=None) | Q(lease_expires_at__lte=now)


def next_in_turn(*, now: datetime) -> str | None:
    """Return the id of the job that a worker should claim next; None if no job waits.

    Customers take turns, so that one customer's many jobs do not delay the others.
    First comes the customer whose jobs the fewest workers hold now, then the customer
    whose last turn began longest ago. Each of a customer's jobs has its first turn
    before any has its second.
    """
    waiting = PredictionJob.objects.unfinished().order_by().values("customer")
    shares = waiting.annotate(
        ready=Count("pk", filter=_held_by_nobody(now)),
        held=Count(
            "pk",
            # A job that waits for an engine is claimed, but no worker is busy with it.
            filter=Q(lease_expires_at__gt=now, waiting_since=None),
        ),
    )
    held = {
        share["customer"]: share["held"]
        for share in shares.filter(ready__gt=0).iterator()
    }
    if not held:
        return None
    turns = JobTurn.objects.filter(customer__in=held)
    began = dict(turns.values_list("customer", "began_at"))
    never = datetime.min.replace(tzinfo=UTC)
    customer = min(held, key=lambda one: (held[one], began.get(one, never), one))
    theirs = claimable(now).filter(customer=customer)
    longest = F("lease_expires_at").asc(nulls_first=True)
    return theirs.order_by(longest, "id").values_list("pk", flat=True).first()


def cut_claims(*, now: datetime) -> int:
    """Shorten claims that were taken before the clock was set back; return how many.

    A live worker renews its claim in time. The claim of a dead worker would keep the
    job from all others until the clock reaches its old time again.
    """
    longest = now + timedelta(seconds=_LONGEST_CLAIM_S)
    held = PredictionJob.objects.unfinished().filter(lease_expires_at__gt=longest)
    return held.update(lease_expires_at=now + timedelta(seconds=CLAIM_S))


def claim(job_id: str, *, worker: str, now: datetime) -> Claim | None:
    """Claim a job; None if it is held, finished or was just quarantined."""
    with transaction.atomic():
        waiting = claimable(now).filter(pk=job_id)
        claimed = waiting.filter(attempts__lt=MAX_ATTEMPTS).update(
            status=Status.PROCESSING,
            attempts=F("attempts") + 1,
            worker=worker,
            lease_token=F("lease_token") + 1,
            lease_expires_at=now + timedelta(seconds=CLAIM_S),
            started_at=Coalesce(F("started_at"), Value(now)),
        )
        if not claimed:
            quarantine(waiting, now=now)
            return None
        jobs = PredictionJob.objects.values_list(
            "lease_token", "customer", "api_key__key_id", "request_id"
        )
        token, customer, key_id, request_id = jobs.get(pk=job_id)
        JobTurn.objects.update_or_create(
            customer_id=customer, defaults={"began_at": now}
        )
        return Claim(
            job_id=job_id,
            token=token,
            customer_id=customer,
            key_id=key_id,
            request_id=request_id,
        )


def quarantine(jobs: QuerySet[PredictionJob], *, now: datetime) -> int:
    """Fail the jobs whose starts died too often; return how many."""
    return jobs.filter(attempts__gte=MAX_ATTEMPTS).update(
        status=Status.FAILED,
        completed_at=now,
        lease_expires_at=None,
        lease_token=F("lease_token") + 1,
        error_code=ErrorCode.INTERNAL_ERROR,
        error_message=f"The job was stopped: {MAX_ATTEMPTS} starts in a row died at "
        "the same rows, the first ones without a result. Check these rows.",
    )


def is_quarantined(job: PredictionJob) -> bool:
    """Return whether a job failed because its starts died too often."""
    return job.status == Status.FAILED and job.attempts >= MAX_ATTEMPTS


def renew(claim: Claim, *, now: datetime) -> bool:
    """Extend the claim; return False if it is lost."""
    expires_at = now + timedelta(seconds=CLAIM_S)
    return bool(_held(claim).update(lease_expires_at=expires_at))


def count_rows(claim: Claim, *, rows: int) -> None:
    """Store the number of rows of the input; like a chunk, this counts as progress."""
    _write(claim, rows_total=rows, attempts=1)


def note_waiting(claim: Claim, *, now: datetime) -> datetime:
    """Record that the job waits for an engine; return since when it has waited."""
    with transaction.atomic():
        _write(claim, waiting_since=Coalesce(F("waiting_since"), Value(now)))
        waiting = PredictionJob.objects.values_list("waiting_since", flat=True)
        since = waiting.get(pk=claim.job_id)
    assert since is not None
    return since


def commit_chunk(claim: Claim, output: ChunkOutput, *, now: datetime) -> None:
    """Store a chunk's output, progress, charge and usage in one transaction.

    Raises ClaimLost, or ApiError with QUOTA_EXCEEDED if a quota does not cover the
    rows. A chunk that is repeated because its worker died was never charged before.
    """
    with transaction.atomic():
        _write(
            claim,
            rows_done=F("rows_done") + output.rows,
            rows_failed=F("rows_failed") + output.rows_failed,
            input_offset=output.input_end,
            # Starts that died earlier did not die at the next rows.
            attempts=1,
            waiting_since=None,
            lease_expires_at=now + timedelta(seconds=CLAIM_S),
        )
        JobChunk.objects.create(
            job_id=claim.job_id,
            index=output.index,
            rows=output.rows,
            predictions=list(output.predictions),
            errors=msgspec.to_builtins(list(output.errors)),
            warnings=msgspec.to_builtins(list(output.warnings)),
        )
        job_metering.charge(
            claim.job_id,
            sequence=output.index,
            rows=output.rows - output.rows_failed,
            compute_us=output.compute_us,
            total_us=output.total_us,
            now=now,
        )


def hand_back(claim: Claim, *, again_at: datetime, blameless: bool = True) -> None:
    """Release the job unfinished; no worker may claim it before `again_at`.

    If the start was `blameless`, it does not count as one that died.
    """
    attempts = F("attempts") - 1 if blameless else F("attempts")
    _write(claim, lease_expires_at=again_at, attempts=attempts)


def finish(claim: Claim, *, now: datetime) -> None:
    """End a job whose rows are all done; without any prediction it has failed."""
    with transaction.atomic():
        _write(claim, rows_total=F("rows_done"), attempts=0)
        counts = PredictionJob.objects.values_list("rows_done", "rows_failed")
        done, failed = counts.get(pk=claim.job_id)
        if failed and failed == done:
            _end(claim, Status.FAILED, _no_row_predicted(claim.job_id, done), now=now)
        else:
            _end(claim, Status.COMPLETED, now=now)
            _remove_input(claim.job_id)


def _no_row_predicted(job_id: str, rows: int) -> ApiError:
    first = JobChunk.objects.get(job=job_id, index=0).errors[0]
    field = f"{first['field']}: " if "field" in first else ""
    others = " The errors name the others." if rows > 1 else ""
    return ApiError(
        ErrorCode(first.get("code", ErrorCode.INVALID_INPUT)),
        f"No row could be predicted. The first one: {field}{first['issue']}.{others}",
    )


def fail(claim: Claim, error: ApiError, *, now: datetime) -> None:
    """End a job early; its committed chunks stay."""
    _end(claim, Status.FAILED, error, now=now)


def _end(
    claim: Claim, status: Status, error: ApiError | None = None, *, now: datetime
) -> None:
    _write(
        claim,
        status=status,
        completed_at=now,
        lease_expires_at=None,
        waiting_since=None,
        error_code=error.code if error else "",
        error_message=error.message if error else "",
    )


def cancel(job_id: str, *, now: datetime) -> None:
    """End an unfinished job for good; raise CONFLICT for a finished one."""
    cancelled = (
        PredictionJob.objects.unfinished()
        .filter(pk=job_id)
        .update(
            status=Status.CANCELLED,
            completed_at=now,
            lease_expires_at=None,
            lease_token=F("lease_token") + 1,
            waiting_since=None,
        )
    )
    if not cancelled:
        raise ApiError(
            ErrorCode.CONFLICT, "The job is already finished and cannot be cancelled."
        )
    _remove_input(job_id)


def _remove_input(job_id: str) -> None:
    """Delete the input once the end is committed; the sweep does it after a crash."""
    transaction.on_commit(partial(files.remove, job_id))


def retry(job_id: str) -> bool:
    """Continue a failed job after its last chunk; return False if it is not failed."""
    with transaction.atomic():
        failed = PredictionJob.objects.filter(
            pk=job_id, status=Status.FAILED, removed_at=None
        )
        # A job whose removal has begun has no input any more.
        revived = failed.exclude(input_file="").update(
            status=Status.PENDING,
            attempts=0,
            completed_at=None,
            error_code="",
            error_message="",
        )
        if revived:
            transaction.on_commit(dispatch)
    return bool(revived)


def _held(claim: Claim) -> QuerySet[PredictionJob]:
    return PredictionJob.objects.filter(
        pk=claim.job_id, status=Status.PROCESSING, lease_token=claim.token
    )


def _write(claim: Claim, **fields: Any) -> None:  # fields have several types
    if not _held(claim).update(**fields):
        raise ClaimLost(claim.job_id)
