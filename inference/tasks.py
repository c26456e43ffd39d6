"""What the workers do. The work itself is in the modules that these call."""

import socket
from os import getpid

from celery import shared_task
from django.utils import timezone

from inference.jobs import sweep as job_sweep
from inference.jobs.work import turn as job_runner
from inference.jobs.work.claim_keeper import ClaimKeeper
from inference.jobs.work.engines import LoadedEngines
from inference.uploads import files as uploaded_files


@shared_task
def run_jobs() -> None:
    """Work on the job whose turn it is."""
    with LoadedEngines() as engines:
        worker = job_runner.Worker(
            name=f"{socket.gethostname()}:{getpid()}",
            engines=engines,
            clock=job_runner.SystemClock(),
            keep=ClaimKeeper,
        )
        job_runner.take_next_turn(worker)


@shared_task
def sweep_jobs() -> None:
    """Start again what nobody works on."""
    job_sweep.sweep(now=timezone.now())


@shared_task
def remove_old_jobs() -> None:
    """Delete the files and outputs that are past their time."""
    job_sweep.remove_old(now=timezone.now())


@shared_task
def remove_expired_uploads() -> None:
    """Delete uploaded files that are past their time."""
    uploaded_files.remove_expired(now=timezone.now())
