"""The sweep restarts, quarantines and deletes jobs."""

import os
from datetime import timedelta

import pytest
from kombu.exceptions import OperationalError

from accounts.models import SpoolSegment
from inference.jobs import life_cycle as jobs
from inference.jobs import sweep as job_sweep
from inference.models import JobChunk, PredictionJob
from tests.factories_jobs import make_job, new_job_id
from tests.fakes import JobClock

pytestmark = pytest.mark.django_db

Status = PredictionJob.Status
NOW = JobClock().now()


@pytest.fixture(autouse=True)
def files(home):
    return home.jobs


@pytest.fixture
def hints(monkeypatch):
    sent = []
    monkeypatch.setattr(
        "inference.jobs.life_cycle.current_app.send_task",
        lambda name, **options: sent.append(name),
    )
    return sent


def test_jobs_that_nobody_holds_are_sent_again(hints):
    waiting = make_job()
    dead = make_job(
        status=Status.PROCESSING, lease_expires_at=NOW - timedelta(seconds=1)
    )
    make_job(status=Status.PROCESSING, lease_expires_at=NOW + timedelta(seconds=1))
    for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
        make_job(status=status)

    assert job_sweep.sweep(now=NOW) == 2

    assert hints == ["inference.tasks.run_jobs"] * 2
    assert set(jobs.claimable(NOW)) == {waiting, dead}


def test_a_dead_workers_job_is_sent_within_thirty_seconds(hints):
    job = make_job()
    jobs.claim(job.pk, worker="w1", now=NOW)
    now = NOW
    while not hints:
        # As often as beat sweeps.
        now += timedelta(seconds=10)
        job_sweep.sweep(now=now)

    assert now - NOW <= timedelta(seconds=30)


def test_a_dead_workers_job_does_not_wait_for_a_clock_that_was_put_back(hints):
    job = make_job()
    jobs.claim(job.pk, worker="w1", now=NOW + timedelta(hours=1))
    now = NOW
    while not hints and now - NOW < timedelta(hours=1):
        now += timedelta(seconds=10)
        job_sweep.sweep(now=now)

    assert now - NOW <= timedelta(seconds=30)
    assert jobs.claim(job.pk, worker="w2", now=now)


def test_a_clock_that_was_put_back_takes_no_job_from_a_worker_that_lives(hints):
    third = jobs.MAX_ATTEMPTS - 1
    job = make_job(attempts=third)
    claim = jobs.claim(job.pk, worker="w1", now=NOW + timedelta(hours=1))
    for seconds in range(0, 60, 5):
        now = NOW + timedelta(seconds=seconds)
        job_sweep.sweep(now=now)
        assert jobs.renew(claim, now=now)

    assert hints == []
    jobs.finish(claim, now=now)


def test_hints_are_no_more_than_some(hints, monkeypatch):
    monkeypatch.setattr(job_sweep, "_MAX_HINTS", 2)
    for _ in range(3):
        make_job()

    assert job_sweep.sweep(now=NOW) == len(hints) == 2


def test_poison_is_given_up_and_not_sent(hints):
    job = make_job(
        status=Status.PROCESSING, attempts=jobs.MAX_ATTEMPTS, lease_expires_at=NOW
    )
    innocent = make_job()

    assert job_sweep.sweep(now=NOW) == 1

    job.refresh_from_db()
    assert job.status == Status.FAILED
    assert jobs.next_in_turn(now=NOW) == innocent.pk


def test_a_broker_outage_ends_the_sweep_and_the_next_one_heals(monkeypatch):
    make_job()
    make_job()
    tries = []

    def refuse(name, **options):
        tries.append(name)
        raise OperationalError("no broker")

    monkeypatch.setattr("inference.jobs.life_cycle.current_app.send_task", refuse)
    assert job_sweep.sweep(now=NOW) == 0
    assert len(tries) == 1

    monkeypatch.setattr(
        "inference.jobs.life_cycle.current_app.send_task", lambda *args, **options: None
    )
    assert job_sweep.sweep(now=NOW) == 2


def old_job(days, **fields):
    job = make_job(
        completed_at=NOW - timedelta(days=days),
        **{"status": Status.COMPLETED, **fields},
    )
    JobChunk.objects.create(job=job, index=0, rows=1, predictions=[1])
    return job


def test_old_output_and_input_are_deleted_and_the_job_stays(files):
    old, recent = old_job(8), old_job(6)
    SpoolSegment.objects.create(name=f"job:{old.pk}-chunks", ingested_bytes=1)

    job_sweep.remove_old(now=NOW)

    old.refresh_from_db()
    recent.refresh_from_db()
    assert (old.status, old.removed_at) == (Status.COMPLETED, NOW)
    assert not old.chunks.exists()
    assert not (files / old.pk).exists()
    assert recent.removed_at is None
    assert recent.chunks.exists()
    assert (files / recent.pk / "input.csv").exists()
    assert SpoolSegment.objects.get().completed_at == NOW


def test_inputs_that_a_worker_or_a_cancelling_left_are_deleted_after_a_day(files):
    ended = [old_job(2), old_job(2, status=Status.CANCELLED)]
    failed = old_job(2, status=Status.FAILED)
    for job in (*ended, failed):
        age(files / job.pk, 25)

    job_sweep.remove_old(now=NOW)

    assert not any((files / job.pk).exists() for job in ended)
    assert (files / failed.pk / "input.csv").exists()
    assert all(job.chunks.exists() for job in ended)


def test_the_age_is_a_setting(settings):
    settings.JOB_RETENTION_DAYS = 1

    job = old_job(2)
    job_sweep.remove_old(now=NOW)

    assert not job.chunks.exists()


def test_a_removal_that_stopped_half_way_is_completed(files):
    job = old_job(8, input_file="")

    job_sweep.remove_old(now=NOW)

    job.refresh_from_db()
    assert job.removed_at == NOW
    assert not job.chunks.exists()
    assert not (files / job.pk).exists()


def age(path, hours):
    when = (NOW - timedelta(hours=hours)).timestamp()
    os.utime(path, (when, when))


def test_what_never_became_a_job_is_deleted_after_a_day(files):
    orphan, upload = files / new_job_id(), files / "tmpabc.upload.csv"
    young, foreign = files / new_job_id(), files / "something else"
    for folder in (orphan, young, foreign):
        folder.mkdir()
    upload.touch()
    job = make_job()
    for path, hours in (
        (orphan, 25),
        (upload, 25),
        (young, 1),
        (foreign, 25),
        (files / job.pk, 25),
    ):
        age(path, hours)

    job_sweep.remove_old(now=NOW)

    assert not orphan.exists()
    assert not upload.exists()
    assert young.exists()
    assert foreign.exists()
    assert (files / job.pk).exists()
