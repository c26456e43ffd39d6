"""Keeping a lease while its worker is busy."""

import threading
from datetime import timedelta

import pytest
from django.db import DatabaseError
from django.utils import timezone

from inference.jobs import life_cycle as jobs
from inference.jobs.work.claim_keeper import ClaimKeeper
from inference.models import PredictionJob
from tests.factories_jobs import make_job
from tests.fakes import ManualClock

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]


def claimed(seconds_ago=10):
    job = make_job()
    now = timezone.now() - timedelta(seconds=seconds_ago)
    return jobs.claim(job.pk, worker="w1", now=now)


def expires_at(lease):
    return PredictionJob.objects.get(pk=lease.job_id).lease_expires_at


def test_a_beat_moves_the_expiry():
    lease = claimed()
    before = expires_at(lease)

    assert ClaimKeeper(lease).beat()

    assert expires_at(lease) > before


def test_a_lost_lease_is_not_renewed():
    lease = claimed()
    jobs.cancel(lease.job_id, now=timezone.now())

    assert not ClaimKeeper(lease).beat()


def test_a_worker_that_hangs_loses_its_lease():
    lease, clock = claimed(), ManualClock()
    keeper = ClaimKeeper(lease, monotonic=clock)
    before = expires_at(lease)
    clock.advance(3600)

    assert not keeper.beat()

    assert expires_at(lease) == before


def test_progress_is_what_keeps_it():
    lease, clock = claimed(), ManualClock()
    keeper = ClaimKeeper(lease, monotonic=clock)
    clock.advance(3600)
    keeper.note()

    assert keeper.beat()


def test_a_database_that_is_away_for_a_moment_is_tried_again(monkeypatch):
    lease = claimed()

    def fail(*args, **kwargs):
        raise DatabaseError("away")

    monkeypatch.setattr(jobs, "renew", fail)
    monkeypatch.setattr(
        "inference.jobs.work.claim_keeper.connection.close", lambda: None
    )

    assert ClaimKeeper(lease).beat()


def test_nothing_is_left_running():
    lease = claimed()
    name = f"lease-{lease.job_id}"

    with ClaimKeeper(lease):
        assert name in {thread.name for thread in threading.enumerate()}

    assert name not in {thread.name for thread in threading.enumerate()}
