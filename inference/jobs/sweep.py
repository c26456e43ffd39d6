"""What keeps jobs going without anybody's help, and what ends their storage."""

from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db.models import QuerySet

from inference.jobs import charging as job_metering
from inference.jobs import files as job_files
from inference.jobs import life_cycle as jobs
from inference.models import JobChunk, PredictionJob

# Hints per sweep: more would only queue up behind busy workers.
_MAX_HINTS = 32
# Old jobs per run, and chunks per transaction, so that no write takes long.
_MAX_REMOVALS = 100
_CHUNKS_AT_ONCE = 50

logger = structlog.get_logger(__name__)


def sweep(*, now: datetime) -> int:
    """Quarantine poison and send a hint for each job that nobody holds.

    Returns how many. If the broker is down, the first failure ends the sweep; the next
    one tries again.
    """
    if cut := jobs.cut_claims(now=now):
        logger.warning("job_claims_of_another_time", count=cut)
    if given_up := jobs.quarantine(jobs.claimable(now), now=now):
        logger.warning("jobs_quarantined", count=given_up)
    waiting = min(jobs.claimable(now).count(), _MAX_HINTS)
    for sent in range(waiting):
        if not jobs.dispatch():
            return sent
    return waiting


def remove_old(*, now: datetime) -> int:
    """Delete input and output of jobs that finished long ago; return how many.

    The job itself stays, so that its id still says what became of it.
    """
    job_ids = list(removable(now=now).values_list("pk", flat=True)[:_MAX_REMOVALS])
    for job_id in job_ids:
        # First the note: nobody is offered an output of which half is gone. It also
        # keeps a retry from reviving the job.
        job = PredictionJob.objects.filter(pk=job_id)
        job.update(input_file="")
        _remove_chunks(job_id)
        job_files.remove(job_id)
        job_metering.close(job_id, now=now)
        # Last, so that a removal that was interrupted begins again.
        job.update(removed_at=now)
    return len(job_ids) + job_files.remove_orphans(now=now)


def removable(*, now: datetime) -> QuerySet[PredictionJob]:
    """Return the jobs whose output is past its time, the oldest first."""
    oldest = now - timedelta(days=settings.JOB_RETENTION_DAYS)
    old = PredictionJob.objects.filter(removed_at=None, completed_at__lt=oldest)
    return old.order_by("completed_at")


def _remove_chunks(job_id: str) -> None:
    chunks = JobChunk.objects.filter(job_id=job_id)
    while ids := list(chunks.values_list("pk", flat=True)[:_CHUNKS_AT_ONCE]):
        JobChunk.objects.filter(pk__in=ids).delete()
