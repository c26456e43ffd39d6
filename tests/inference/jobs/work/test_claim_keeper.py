"""Renew a claim while its worker is busy."""

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


def expires_at(claim):
    return PredictionJob.objects.get(pk=claim.job_id).lease_expires_at


def test_a_beat_moves_the_expiry():
    claim = claimed()
    before = expires_at(claim)

    assert ClaimKeeper(claim).beat()

    assert expires_at(claim) > before


def test_a_lost_lease_is_not_renewed():
    claim = claimed()
    jobs.cancel(claim.job_id, now=timezone.now())

    assert not ClaimKeeper(claim).beat()


def test_a_worker_that_hangs_loses_its_lease():
    claim, clock = claimed(), ManualClock()
    keeper = ClaimKeeper(claim, monotonic=clock)
    before = expires_at(claim)
    clock.advance(3600)

    assert not keeper.beat()

    assert expires_at(claim) == before


def test_progress_is_what_keeps_it():
    claim, clock = claimed(), ManualClock()
    keeper = ClaimKeeper(claim, monotonic=clock)
    clock.advance(3600)
    keeper.note()

    assert keeper.beat()


def test_a_database_that_is_away_for_a_moment_is_tried_again(monkeypatch):
    claim = claimed()

    def fail(*args, **kwargs):
        raise DatabaseError("away")

    monkeypatch.setattr(jobs, "renew", fail)
    monkeypatch.setattr(
        "inference.jobs.work.claim_keeper.connection.close", lambda: None
    )

    assert ClaimKeeper(claim).beat()


def test_nothing_is_left_running():
    claim = claimed()
    name = f"claim-{claim.job_id}"

    with ClaimKeeper(claim):
        assert name in {thread.name for thread in threading.enumerate()}

    assert name not in {thread.name for thread in threading.enumerate()}
