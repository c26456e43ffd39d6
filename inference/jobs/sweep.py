"""Restart jobs that no worker holds, and delete old inputs and outputs."""

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
# Limits of old jobs per run and chunks per transaction, so that no write takes long.
_MAX_REMOVALS = 100
_CHUNKS_AT_ONCE = 50

logger = structlog.get_logger(__name__)


def sweep(*, now: datetime) -> int:
    """Quarantine poison jobs and send a hint for each job that no worker holds.

    Returns the number of hints. If the broker is down, the first failure ends this
    sweep.
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
    """Delete input and output of jobs that ended long ago; return how many.

    The job itself stays, so that callers can still read how it ended.
    """
    job_ids = list(removable(now=now).values_list("pk", flat=True)[:_MAX_REMOVALS])
    for job_id in job_ids:
        # First the mark: it keeps callers from fetching a half-deleted output, and a
        # retry from reviving the job.
        job = PredictionJob.objects.filter(pk=job_id)
        job.update(input_file="")
        _remove_chunks(job_id)
        job_files.remove(job_id)
        job_metering.close(job_id, now=now)
        # Last, so that an interrupted removal begins again.
        job.update(removed_at=now)
    return len(job_ids) + job_files.remove_orphans(now=now)


def removable(*, now: datetime) -> QuerySet[PredictionJob]:
    """Return the jobs whose output is older than the retention, oldest first."""
    oldest = now - timedelta(days=settings.JOB_RETENTION_DAYS)
    old = PredictionJob.objects.filter(removed_at=None, completed_at__lt=oldest)
    return old.order_by("completed_at")


def _remove_chunks(job_id: str) -> None:
    chunks = JobChunk.objects.filter(job_id=job_id)
    while ids := list(chunks.values_list("pk", flat=True)[:_CHUNKS_AT_ONCE]):
        JobChunk.objects.filter(pk__in=ids).delete()
