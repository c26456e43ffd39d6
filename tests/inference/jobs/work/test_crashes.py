"""Kill a worker at every point: the output is the same, and written once.

The effects of a job are its SQL statements and its calls of the engine. Each run kills
the worker at one of them, before or after it, then continues as the platform would.
"""

from contextlib import contextmanager

import pytest
from django.db import connection

from accounts.models import QuotaCounter, Usage
from inference.jobs import life_cycle as jobs
from inference.jobs import results as job_results
from inference.jobs import sweep as job_sweep
from inference.jobs.work import turn as job_runner
from inference.models import JobChunk, PredictionJob
from tests.factories import ApiKeyFactory, CustomerFactory, PlanFactory
from tests.factories_jobs import make_job
from tests.fakes import FakeJobEngine, JobClock, NoClaimKeeping
from tests.inference.jobs.test_life_cycle import submit

pytestmark = [
    # Real commits: a kill must lose what was not committed, and only that.
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("home"),
]

INPUT = "a,b\n1,1\nbad,1\n2,2\n3,3\n4\n"
ROWS, ANSWERED = 5, 3


class Killed(BaseException):
    """Like a SIGKILL, no `except Exception` catches it."""


class Effects:
    """Count effects, and kill at one of them."""

    def __init__(self, kill_at=None, *, after=False):
        self.count = 0
        self.kill_at = kill_at
        self.after = after

    @contextmanager
    def one(self):
        self.count += 1
        now = self.count == self.kill_at
        if now and not self.after:
            raise Killed
        yield
        if now:
            raise Killed

    def wrap_statement(self, execute, *args):
        with self.one():
            return execute(*args)


class CountedEngine(FakeJobEngine):
    def __init__(self, effects):
        super().__init__()
        self.effects = effects

    def predict(self, *args, **kwargs):
        with self.effects.one():
            return super().predict(*args, **kwargs)


@pytest.fixture(autouse=True)
def no_broker(monkeypatch):
    monkeypatch.setattr(
        "inference.jobs.life_cycle.current_app.send_task", lambda *args, **options: None
    )


def lose_connection():
    """End the connection as a killed process does: the open transaction rolls back."""
    connection.close()


def new_job():
    plan = PlanFactory(quota_unit="rows", daily_quota=100)
    key = ApiKeyFactory(customer=CustomerFactory(plan=plan))
    return make_job(INPUT, rows_total=None, api_key=key)


def run(job, effects):
    """Work on a job to its end, as workers and sweeps would around one kill."""
    clock, engine = JobClock(), CountedEngine(effects)
    worker = job_runner.Worker(
        name="w1", engines=engine, clock=clock, keep=NoClaimKeeping
    )
    kills = 0
    for _ in range(10):
        try:
            with connection.execute_wrapper(effects.wrap_statement):
                job_runner.take_turn(job.pk, worker)
        except Killed:
            kills += 1
            lose_connection()
        job.refresh_from_db()
        if job.status not in jobs.UNFINISHED:
            return kills, engine
        clock.advance(jobs.CLAIM_S + 1)
        job_sweep.sweep(now=clock.now())
    raise AssertionError(f"the job is still {job.status}")


def outcome(job):
    """Return all facts of a job that people and bills see."""
    usage = Usage.objects.filter(customer=job.customer)
    return {
        "csv": b"".join(job_results.as_csv(job)),
        "json": b"".join(job_results.as_json(job)).replace(job.pk.encode(), b""),
        "status": job.status,
        "rows": (job.rows_done, job.rows_failed, job.rows_total),
        "chunks": [(chunk.index, chunk.rows) for chunk in job.chunks.all()],
        "usage": [
            sum(usage.values_list(name, flat=True))
            for name in ("requests", "rows", "charged_rows")
        ],
        "spent": QuotaCounter.objects.get(customer=job.customer).granted,
    }


def test_a_kill_at_any_point_changes_nothing_that_anybody_sees():
    undisturbed = Effects()
    job = new_job()
    run(job, undisturbed)
    expected = outcome(job)
    assert expected["rows"] == (ROWS, ROWS - ANSWERED, ROWS)
    assert expected["spent"] == expected["usage"][2] == ANSWERED
    assert undisturbed.count > 20

    for point in range(1, undisturbed.count + 1):
        for after in (False, True):
            job = new_job()

            kills, engine = run(job, Effects(point, after=after))

            place = f"killed {'after' if after else 'before'} effect {point}"
            assert kills == 1, place
            assert outcome(job) == expected, place
            # Two calls for the chunks, and one more for a chunk that was repeated.
            assert len(engine.calls) <= 3, place


def test_the_proof_notices_a_chunk_that_is_charged_outside_its_transaction(
    monkeypatch,
):
    real = jobs.job_metering.charge
    monkeypatch.setattr(jobs.job_metering, "charge", lambda *args, **facts: None)

    def charge_first(claim, output, *, now):
        real(
            claim.job_id,
            sequence=output.index,
            rows=output.rows - output.rows_failed,
            compute_us=1,
            total_us=1,
            now=now,
        )
        commit(claim, output, now=now)

    commit = jobs.commit_chunk
    monkeypatch.setattr(jobs, "commit_chunk", charge_first)
    undisturbed = Effects()
    job = new_job()
    run(job, undisturbed)
    expected = outcome(job)

    def differs(point):
        job = new_job()
        run(job, Effects(point))
        return outcome(job) != expected

    assert any(differs(point) for point in range(1, undisturbed.count + 1))


def test_a_kill_while_a_job_is_submitted_leaves_a_whole_job_or_none():
    undisturbed = Effects()
    ApiKeyFactory.create()
    with connection.execute_wrapper(undisturbed.wrap_statement):
        submit()

    for point in range(1, undisturbed.count + 1):
        PredictionJob.objects.all().delete()
        with (
            pytest.raises(Killed),
            connection.execute_wrapper(Effects(point, after=True).wrap_statement),
        ):
            submit()
        lose_connection()

        for job in PredictionJob.objects.all():
            assert jobs.claim(job.pk, worker="w1", now=JobClock().now()) is not None
        assert JobChunk.objects.count() == 0
