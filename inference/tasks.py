"""Celery tasks of this app."""

import socket
from os import getpid
from typing import Any

from celery import shared_task
from celery.signals import worker_shutting_down
from django.utils import timezone

from inference.environments import turn as environment_turn
from inference.following import mails, telling
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
    """Send hints for jobs that no worker holds."""
    job_sweep.sweep(now=timezone.now())


@shared_task
def remove_old_jobs() -> None:
    """Delete inputs and outputs of jobs that ended long ago."""
    job_sweep.remove_old(now=timezone.now())


@shared_task
def remove_expired_uploads() -> None:
    """Delete expired uploads."""
    uploaded_files.remove_expired(now=timezone.now())


@shared_task
def tell_followers() -> None:
    """Tell people what happened to the models that they follow."""
    telling.look(now=timezone.now())
    mails.send(now=timezone.now())


@shared_task
def forget_messages() -> None:
    """Delete messages that are old enough."""
    telling.forget(now=timezone.now())


# A build takes up to half an hour. The next message asks again if this one is lost.
@shared_task(acks_late=False)
def keep_environments() -> None:
    """Build the environments that versions wait for, and remove unused ones."""
    environment_turn.take_turn()


@worker_shutting_down.connect
def stop_building(**_: Any) -> None:
    environment_turn.stopping.set()
