"""The life of a job: every transition, and every write that must be refused."""

from datetime import timedelta

import msgspec
import pytest
from kombu.exceptions import OperationalError

from accounts.admission.limits import ReachedLimit
from accounts.models import QuotaCounter, Usage
from inference.engine.signatures.signature import Signature
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.jobs import files
from inference.jobs import life_cycle as jobs
from inference.models import JobChunk, PredictionJob
from tests.factories import ApiKeyFactory, CustomerFactory, PlanFactory
from tests.factories_jobs import SUM_SIGNATURE, make_job, new_job_id
from tests.fakes import JobClock

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]

Status = PredictionJob.Status
NOW = JobClock().now()
LATER = NOW + timedelta(seconds=jobs.CLAIM_S + 1)


def take(job, now=NOW):
    return jobs.claim(job.pk, worker="w1", now=now)


def output(index=0, rows=2, errors=(), input_end=10):
    return jobs.ChunkOutput(
        index=index,
        predictions=[1.0] * rows,
        errors=errors,
        input_end=input_end,
        compute_us=5,
        total_us=10,
    )


def fresh(job):
    return PredictionJob.objects.get(pk=job.pk)


def submit(key=None):
    key = key or ApiKeyFactory.create()
    target = jobs.JobTarget(
        model="sum", version=3, variant="canary", signature=SUM_SIGNATURE
    )
    stored = files.StoredInput(format="csv", file="x/input.csv", bytes=9, rows=1)
    return jobs.submit(
        new_job_id(), api_key=key, target=target, stored=stored, options={"top_k": 2}
    )


def test_a_submitted_job_waits_and_keeps_what_it_was_asked(
    django_capture_on_commit_callbacks,
):
    with django_capture_on_commit_callbacks() as callbacks:
        job = fresh(submit())

    assert job.status == Status.PENDING
    assert (job.version, job.variant, job.rows_total) == (3, "canary", 1)
    assert job.options == {"top_k": 2}
    assert job.customer_id == job.api_key.customer_id
    assert len(callbacks) == 1


def test_a_broker_that_is_down_does_not_fail_the_submit(
    django_capture_on_commit_callbacks, monkeypatch
):
    def refuse(*args, **kwargs):
        raise OperationalError("no broker")

    monkeypatch.setattr("inference.jobs.life_cycle.current_app.send_task", refuse)

    with django_capture_on_commit_callbacks(execute=True):
        job = submit()

    assert fresh(job).status == Status.PENDING
    assert not jobs.dispatch()


def test_a_claim_starts_a_job_once():
    job = make_job()

    claim = take(job)

    assert claim is not None
    assert take(job) is None
    job = fresh(job)
    assert (job.status, job.attempts, job.worker) == (Status.PROCESSING, 1, "w1")
    assert job.started_at == NOW


def test_an_unknown_job_cannot_be_claimed():
    assert jobs.claim(new_job_id(), worker="w1", now=NOW) is None


def test_an_expired_lease_goes_to_another_with_a_higher_token():
    job = make_job()
    first = take(job)

    second = take(job, now=LATER)

    assert second.token > first.token
    assert fresh(job).started_at == NOW


def test_a_renewed_lease_is_not_for_others():
    job = make_job()
    claim = take(job)

    assert jobs.renew(claim, now=NOW + timedelta(seconds=10))

    assert take(job, now=LATER) is None


def test_a_zombie_changes_nothing():
    job = make_job()
    zombie = take(job)
    take(job, now=LATER)
    before = PredictionJob.objects.filter(pk=job.pk).values().get()

    assert not jobs.renew(zombie, now=LATER)
    for write in (
        lambda: jobs.commit_chunk(zombie, output(), now=LATER),
        lambda: jobs.finish(zombie, now=LATER),
        lambda: jobs.fail(zombie, ApiError(ErrorCode.MODEL_ERROR, "no"), now=LATER),
        lambda: jobs.hand_back(zombie, again_at=LATER),
        lambda: jobs.note_waiting(zombie, now=LATER),
        lambda: jobs.count_rows(zombie, rows=5),
    ):
        with pytest.raises(jobs.ClaimLost):
            write()

    assert PredictionJob.objects.filter(pk=job.pk).values().get() == before
    assert not JobChunk.objects.exists()
    assert not Usage.objects.exists()


def test_a_chunk_is_committed_with_its_progress_and_usage():
    job = make_job()
    claim = take(job)
    bad = Problem("is bad", index=1, code=ErrorCode.INVALID_INPUT)

    jobs.commit_chunk(claim, output(rows=2, errors=[bad], input_end=7), now=NOW)

    job = fresh(job)
    assert (job.rows_done, job.rows_failed, job.input_offset) == (2, 1, 7)
    chunk = job.chunks.get()
    assert chunk.predictions == [1.0, 1.0]
    assert chunk.errors == [{"issue": "is bad", "index": 1, "code": "INVALID_INPUT"}]
    usage = Usage.objects.get()
    assert (usage.requests, usage.rows, usage.charged_rows) == (1, 1, 1)
    assert (usage.operation, usage.model, usage.version) == ("job", "sum", "3")


def test_two_problems_of_a_row_are_one_failed_row():
    job = make_job()
    problems = [Problem("x", index=0, field="a"), Problem("x", index=0, field="b")]

    jobs.commit_chunk(take(job), output(errors=problems), now=NOW)

    assert fresh(job).rows_failed == 1


def limited_job(unit, daily=None, monthly=None):
    plan = PlanFactory(quota_unit=unit, daily_quota=daily, monthly_quota=monthly)
    key = ApiKeyFactory(customer=CustomerFactory(plan=plan))
    return make_job(api_key=key)


def test_rows_are_charged_to_every_quota():
    job = limited_job("rows", daily=10, monthly=100)

    jobs.commit_chunk(take(job), output(rows=4), now=NOW)

    assert set(QuotaCounter.objects.values_list("name", "granted")) == {
        ("day", 4),
        ("month", 4),
    }


def test_a_chunk_counts_as_one_request():
    job = limited_job("requests", daily=10)

    jobs.commit_chunk(take(job), output(rows=4), now=NOW)

    assert QuotaCounter.objects.get().granted == 1


def test_rows_without_an_answer_cost_nothing():
    job = limited_job("rows", daily=10)
    problems = [Problem("x", index=0), Problem("x", index=1)]

    jobs.commit_chunk(take(job), output(rows=2, errors=problems), now=NOW)

    assert not QuotaCounter.objects.exists()
    assert Usage.objects.get().charged_requests == 0


def test_a_chunk_that_a_quota_does_not_cover_leaves_no_trace():
    job = limited_job("rows", daily=3, monthly=100)
    claim = take(job)
    jobs.commit_chunk(claim, output(rows=2), now=NOW)

    with pytest.raises(ApiError) as caught:
        jobs.commit_chunk(claim, output(index=1, rows=2), now=NOW)

    assert caught.value.code is ErrorCode.QUOTA_EXCEEDED
    assert caught.value.message == (
        "The daily quota of 3 rows of your plan does not cover the next 2. You can "
        "fetch the rows that are done."
    )
    assert caught.value.limit is not None
    assert caught.value.limit.facts() == {
        "limit": "day",
        "scope": "customer",
        "source": "plan",
        "unit": "rows",
        "maximum": 3,
        "used": 2,
        "needed": 2,
        "window_s": 86_400,
        "resets_at": f"{NOW + timedelta(days=1):%Y-%m-%d}T00:00:00Z",
    }
    assert fresh(job).rows_done == 2
    assert job.chunks.count() == 1
    assert set(QuotaCounter.objects.values_list("name", "granted")) == {
        ("day", 2),
        ("month", 2),
    }
    assert Usage.objects.get().rows == 2


def test_rows_are_charged_to_the_key_too():
    plan = PlanFactory(quota_unit="rows", daily_quota=100)
    key = ApiKeyFactory(customer=CustomerFactory(plan=plan), daily_quota=3)
    claim = take(make_job(api_key=key))
    jobs.commit_chunk(claim, output(rows=2), now=NOW)

    with pytest.raises(ApiError, match="of this API key") as caught:
        jobs.commit_chunk(claim, output(index=1, rows=2), now=NOW)

    reached = caught.value.limit
    assert reached is not None
    assert (reached.name, reached.scope, reached.source) == ("key-day", "key", "key")
    assert set(QuotaCounter.objects.values_list("key_id", "granted")) == {
        ("", 2),
        (key.key_id, 2),
    }


def test_other_keys_of_the_customer_keep_what_one_key_may_not():
    plan = PlanFactory(quota_unit="rows", daily_quota=100)
    key = ApiKeyFactory(customer=CustomerFactory(plan=plan), daily_quota=1)
    other = ApiKeyFactory(customer=key.customer)
    jobs.commit_chunk(take(make_job(api_key=key)), output(rows=1), now=NOW)

    jobs.commit_chunk(take(make_job(api_key=other)), output(rows=4), now=NOW)

    assert QuotaCounter.objects.get(key_id="").granted == 5
    assert QuotaCounter.objects.exclude(key_id="").get().granted == 1


def test_a_finished_job_is_complete():
    job = make_job(rows_total=None)
    claim = take(job)
    jobs.commit_chunk(claim, output(), now=NOW)

    jobs.finish(claim, now=NOW)

    job = fresh(job)
    assert (job.status, job.completed_at) == (Status.COMPLETED, NOW)
    assert job.rows_total == job.rows_done == 2
    assert take(job, now=LATER) is None


def test_a_failed_job_says_why_and_keeps_what_is_done():
    job = make_job()
    claim = take(job)
    jobs.commit_chunk(claim, output(), now=NOW)

    jobs.fail(claim, ApiError(ErrorCode.QUOTA_EXCEEDED, "Too much."), now=NOW)

    job = fresh(job)
    assert (job.status, job.rows_done) == (Status.FAILED, 2)
    assert (job.error_code, job.error_message) == ("QUOTA_EXCEEDED", "Too much.")
    assert take(job, now=LATER) is None


@pytest.mark.parametrize("claimed", [False, True])
def test_cancel_is_final(claimed):
    job = make_job()
    claim = take(job) if claimed else None

    jobs.cancel(job.pk, now=NOW)

    assert fresh(job).status == Status.CANCELLED
    assert take(job, now=LATER) is None
    assert not jobs.retry(job.pk)
    if claim is not None:
        with pytest.raises(jobs.ClaimLost):
            jobs.commit_chunk(claim, output(), now=NOW)
    assert fresh(job).status == Status.CANCELLED
    assert not JobChunk.objects.exists()


def test_only_an_end_that_is_final_deletes_the_input(
    settings, django_capture_on_commit_callbacks
):
    cancelled, completed, failed = make_job(), make_job(), make_job()
    error = ApiError(ErrorCode.MODEL_UNAVAILABLE, "The model was not available.")

    with django_capture_on_commit_callbacks(execute=True):
        jobs.cancel(cancelled.pk, now=NOW)
        jobs.finish(take(completed), now=NOW)
        jobs.fail(take(failed), error, now=NOW)

    assert [path.name for path in settings.HOME.jobs.iterdir()] == [failed.pk]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_finished_job_cannot_be_cancelled(status):
    job = make_job(status=status)

    with pytest.raises(ApiError) as caught:
        jobs.cancel(job.pk, now=NOW)

    assert caught.value.code is ErrorCode.CONFLICT
    assert fresh(job).status == status


def test_poison_is_quarantined_after_three_starts():
    job = make_job()
    now = NOW
    for _ in range(jobs.MAX_ATTEMPTS):
        assert take(job, now=now) is not None
        now += timedelta(seconds=jobs.CLAIM_S + 1)

    assert take(job, now=now) is None

    job = fresh(job)
    assert job.status == Status.FAILED
    assert "3 starts" in job.error_message


def test_a_live_third_start_is_not_disturbed():
    job = make_job(attempts=jobs.MAX_ATTEMPTS - 1)
    claim = take(job)

    assert take(job) is None

    assert jobs.renew(claim, now=NOW)


def test_a_committed_chunk_forgives_earlier_deaths():
    job = make_job(attempts=jobs.MAX_ATTEMPTS - 1)
    claim = take(job)

    jobs.commit_chunk(claim, output(), now=NOW)

    assert fresh(job).attempts == 1


@pytest.mark.parametrize(("blameless", "attempts"), [(True, 0), (False, 1)])
def test_a_job_handed_back_is_taken_up_when_told(blameless, attempts):
    job = make_job()
    claim = take(job)
    again_at = NOW + timedelta(seconds=5)

    jobs.hand_back(claim, again_at=again_at, blameless=blameless)

    assert fresh(job).attempts == attempts
    assert take(job, now=NOW) is None
    assert take(job, now=again_at) is not None


def test_waiting_is_remembered_from_its_beginning_until_a_chunk():
    job = make_job()
    claim = take(job)

    assert jobs.note_waiting(claim, now=NOW) == NOW
    assert jobs.note_waiting(claim, now=NOW + timedelta(seconds=3)) == NOW

    jobs.commit_chunk(claim, output(), now=NOW)
    assert fresh(job).waiting_since is None


def test_a_failed_job_goes_on_from_its_last_chunk_when_retried():
    job = make_job(attempts=3)
    PredictionJob.objects.filter(pk=job.pk).update(input_offset=7, rows_done=1)
    assert take(job) is None

    assert jobs.retry(job.pk)

    job = fresh(job)
    assert (job.status, job.attempts, job.error_code) == (Status.PENDING, 0, "")
    assert (job.input_offset, job.rows_done) == (7, 1)
    assert take(job) is not None


def test_only_failed_jobs_are_retried():
    assert not jobs.retry(make_job().pk)
    assert not jobs.retry(make_job(status=Status.COMPLETED).pk)
    assert not jobs.retry(make_job(status=Status.FAILED, removed_at=NOW).pk)


def test_a_signature_survives_storage():
    job = fresh(make_job())

    assert msgspec.convert(job.signature, Signature) == SUM_SIGNATURE


def test_as_many_jobs_are_taken_as_the_plan_allows_at_once():
    key = ApiKeyFactory(customer__plan__max_jobs_in_flight=2)
    other = ApiKeyFactory(customer__plan=key.customer.plan)
    first = submit(key)
    submit(key)

    with pytest.raises(ApiError) as refused:
        submit(key)

    assert refused.value.code is ErrorCode.CONCURRENCY_EXCEEDED
    assert refused.value.limit == ReachedLimit(
        name="max_jobs_in_flight",
        scope="customer",
        source="plan",
        unit="jobs",
        maximum=2,
        used=2,
    )
    submit(other)
    jobs.cancel(first.pk, now=NOW)
    submit(key)


def test_a_plan_may_allow_no_jobs():
    key = ApiKeyFactory(customer__plan__max_jobs_in_flight=0)

    with pytest.raises(ApiError):
        submit(key)


@pytest.mark.parametrize(
    ("mode", "unit", "granted"),
    [
        ("live", "rows", 2),
        ("live", "requests", 1),
        ("live", "compute_ms", 1),
        ("test", "rows", None),
    ],
)
def test_a_chunk_costs_what_its_unit_counts_and_test_keys_nothing(mode, unit, granted):
    key = ApiKeyFactory(
        mode=mode, customer__plan__quota_unit=unit, customer__plan__daily_quota=10
    )
    job = make_job(2, api_key=key)
    claim = take(job)

    jobs.commit_chunk(claim, output(), now=NOW)

    counter = QuotaCounter.objects.filter(customer=key.customer).first()
    assert (counter and counter.granted) == granted
    assert Usage.objects.get().charged_requests == (mode == "live")
