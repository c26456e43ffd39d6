"""What keeps jobs going without anybody's help, and what ends their storage."""

from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q

from inference.jobs import files as job_files
from inference.jobs import life_cycle as jobs
from inference.jobs import metering as job_metering
from inference.models import JobChunk, PredictionJob

# Hints per sweep: more would only queue up behind busy workers.
_MAX_HINTS = 32
# Old jobs per run, and chunks per transaction, so that no write takes long.
_MAX_REMOVALS = 100
_CHUNKS_AT_ONCE = 50

logger = structlog.get_logger(__name__)


def sweep(*, now: datetime) -> int:
    """Quarantine poison and send hints for jobs that nobody holds; return how many.

    Those that were never started or have waited longest come first. If the broker is
    down, the first failure ends the sweep; the next one tries again.
    """
    if cut := jobs.cut_leases(now=now):
        logger.warning("job_leases_of_another_time", count=cut)
    if given_up := jobs.quarantine(jobs.claimable(now), now=now):
        logger.warning("jobs_quarantined", count=given_up)
    waiting = jobs.claimable(now).order_by(
        F("lease_expires_at").asc(nulls_first=True), "id"
    )
    sent = 0
    for job_id in waiting.values_list("pk", flat=True)[:_MAX_HINTS]:
        if not jobs.dispatch(job_id):
            break
        sent += 1
    return sent


def remove_old(*, now: datetime) -> int:
    """Delete input and output of jobs that finished long ago; return how many.

    The job itself stays, so that its id still says what became of it.
    """
    oldest = now - timedelta(days=settings.JOB_RETENTION_DAYS)
    # Chunks without the other condition: an earlier removal stopped half-way.
    old = PredictionJob.objects.filter(
        Q(removed_at=None) | Exists(JobChunk.objects.filter(job=OuterRef("pk"))),
        completed_at__lt=oldest,
    )
    job_ids = list(
        old.order_by("completed_at").values_list("pk", flat=True)[:_MAX_REMOVALS]
    )
    for job_id in job_ids:
        # First the note: nobody is offered an output of which half is gone. It also
        # keeps a retry from reviving the job.
        PredictionJob.objects.filter(pk=job_id, removed_at=None).update(removed_at=now)
        _remove_chunks(job_id)
        job_files.remove(job_id)
        job_metering.close(job_id, now=now)
    return len(job_ids) + job_files.remove_orphans(now=now)


def _remove_chunks(job_id: str) -> None:
    chunks = JobChunk.objects.filter(job_id=job_id)
    while ids := list(chunks.values_list("pk", flat=True)[:_CHUNKS_AT_ONCE]):
        JobChunk.objects.filter(pk__in=ids).delete()
