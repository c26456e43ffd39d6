"""A worker's turn on a job, with an engine that misbehaves."""

import json
import math
from datetime import timedelta

import numpy as np
import pytest
from django.conf import settings

from accounts.models import Usage
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import object_array
from inference.jobs import life_cycle as jobs
from inference.jobs import results as job_results
from inference.jobs import sweep as job_sweep
from inference.jobs.work import turn as job_runner
from inference.jobs.work.row_predictor import MAX_MODEL_FAILURES
from inference.models import PredictionJob
from tests.factories import ApiKeyFactory, CustomerFactory, PlanFactory
from tests.factories_jobs import make_job, new_job_id
from tests.fakes import FakeJobEngine, JobClock, NoClaimKeeping

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]

Status = PredictionJob.Status


@pytest.fixture(autouse=True)
def hints(monkeypatch):
    """Collect what is sent to the workers."""
    sent = []
    monkeypatch.setattr(
        "inference.jobs.life_cycle.current_app.send_task",
        lambda name, **options: sent.append(name),
    )
    return sent


@pytest.fixture
def clock():
    return JobClock()


@pytest.fixture
def engine():
    return FakeJobEngine()


@pytest.fixture
def worker(clock, engine):
    return job_runner.Worker(
        name="w1", engines=engine, clock=clock, keep=NoClaimKeeping
    )


def fresh(job):
    return PredictionJob.objects.get(pk=job.pk)


def csv_of(job):
    return b"".join(job_results.as_csv(fresh(job))).decode().splitlines()


def take_turns(job, worker, clock, most=50):
    """Run the sweep and the worker until the job has ended."""
    for _ in range(most):
        if fresh(job).status not in jobs.UNFINISHED:
            return fresh(job)
        job_runner.take_turn(job.pk, worker)
        clock.advance(10)
        job_sweep.sweep(now=clock.now())
    raise AssertionError(f"still {fresh(job).status}")


def test_a_job_predicts_every_row_in_order(worker, django_capture_on_commit_callbacks):
    job = make_job(5)

    with django_capture_on_commit_callbacks(execute=True):
        job_runner.take_turn(job.pk, worker)

    job = fresh(job)
    assert job.status == Status.COMPLETED
    assert (job.rows_done, job.rows_total, job.rows_failed) == (5, 5, 0)
    assert csv_of(job) == [
        "index,prediction,error",
        *(f"{row},{row + 1}.0," for row in range(5)),
    ]
    assert job.chunks.count() == 3
    # Its input is not needed any more.
    assert not (settings.HOME.jobs / job.input_file).exists()


def test_bad_rows_are_reported_one_by_one(worker):
    job = make_job("a,b\n1,1\nx,1\n1\n1,5000\n2,2\n")

    job_runner.take_turn(job.pk, worker)

    job = fresh(job)
    assert (job.status, job.rows_done, job.rows_failed) == (Status.COMPLETED, 5, 3)
    assert csv_of(job) == [
        "index,prediction,error",
        "0,2.0,",
        "1,,a: must be a number",
        '2,,"has 1 cells, the header has 2"',
        "3,,b: must be at most 1000",
        "4,4.0,",
    ]
    errors = [error for chunk in job.chunks.all() for error in chunk.errors]
    assert [error["index"] for error in errors] == [1, 2, 3]
    assert errors[2]["code"] == "UNPROCESSABLE"


def test_a_job_without_any_prediction_has_failed(worker):
    job = make_job("a,b\nx,1\n1\n1,5000\n")

    job_runner.take_turn(job.pk, worker)

    job = fresh(job)
    assert (job.status, job.error_code) == (Status.FAILED, "INVALID_INPUT")
    assert job.error_message == (
        "No row could be predicted. The first one: a: must be a number. The errors "
        "name the others."
    )
    # The errors of all rows can be fetched.
    assert job.has_output
    assert (job.rows_done, job.rows_failed, job.rows_total) == (3, 3, 3)
    assert len(csv_of(job)) == 4


def test_the_error_of_the_only_row_speaks_of_no_others(worker):
    job = make_job("a,b\nx,1\n")

    job_runner.take_turn(job.pk, worker)

    assert fresh(job).error_message == (
        "No row could be predicted. The first one: a: must be a number."
    )


def test_answers_that_are_not_finite_are_null_with_a_warning(worker, engine):
    engine.answer = lambda data: np.where(data[:, 0] > 2, np.inf, data[:, 0])
    # The second row is bad itself.
    job = make_job("a,b\n1,1\nx,1\n2,1\n3,1\n4,1\n")

    job_runner.take_turn(job.pk, worker)

    answer = json.loads(b"".join(job_results.as_json(fresh(job))))
    assert answer["predictions"] == [1.0, None, 2.0, None, None]
    assert [error["index"] for error in answer["errors"]] == [1]
    assert answer["warnings"] == [
        {"index": 3, "code": "NON_FINITE_OUTPUT"},
        {"index": 4, "code": "NON_FINITE_OUTPUT"},
    ]
    assert [line.rsplit(",", 1)[1] for line in csv_of(job)] == [
        "warning",
        "",
        "",
        "",
        "NON_FINITE_OUTPUT",
        "NON_FINITE_OUTPUT",
    ]


def test_objects_that_hold_such_numbers_are_stored_with_a_warning(worker, engine):
    answers = [
        {"x": 1.0},
        {"x": [math.nan, math.inf]},
        {"x": "half \ud83d", "y": math.nan},
    ]
    engine.answer = lambda data: object_array(answers[: len(data)])
    job = make_job(3, chunk_rows=3)

    job_runner.take_turn(job.pk, worker)

    answer = json.loads(b"".join(job_results.as_json(fresh(job))))
    assert answer["predictions"] == [{"x": 1.0}, {"x": [None, None]}, None]
    assert answer["warnings"] == [{"index": 1, "code": "NON_FINITE_OUTPUT"}]


@pytest.mark.parametrize("bad", ["\0", "half \ud83d"])
def test_an_answer_that_no_database_stores_is_an_error_of_its_row(worker, engine, bad):
    answers = np.array(["fine", f"not {bad}", "\\u0000 in letters"], dtype=object)
    engine.answer = lambda data: answers[: len(data)]
    job = make_job(3, chunk_rows=3)

    job_runner.take_turn(job.pk, worker)

    job = fresh(job)
    assert (job.status, job.rows_failed) == (Status.COMPLETED, 1)
    assert [error["code"] for error in job.chunks.get().errors] == ["MODEL_ERROR"]
    assert job.chunks.get().predictions == ["fine", None, "\\u0000 in letters"]


def test_a_column_whose_name_no_database_stores_is_an_error_of_its_row(worker):
    rows = [{"a": 1, "b": 2}, {"a": 1, "b": 2, "c\0": 3}, {"\ud83d": 1}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    job = make_job(lines, input_format="json")

    job_runner.take_turn(job.pk, worker)

    job = fresh(job)
    assert (job.status, job.rows_done, job.rows_failed) == (Status.COMPLETED, 3, 2)
    errors = [error for chunk in job.chunks.all() for error in chunk.errors]
    assert {error["index"] for error in errors} == {1, 2}
    assert "\0" not in json.dumps(errors) + repr(errors)


def test_only_answered_rows_are_metered(worker):
    job = make_job("a,b\n1,1\nx,1\n2,2\n")

    job_runner.take_turn(job.pk, worker)

    assert sum(Usage.objects.values_list("charged_rows", flat=True)) == 2


def test_a_file_that_nobody_counted_is_counted_by_the_worker(worker):
    job = make_job(4, rows_total=None)

    job_runner.take_turn(job.pk, worker)

    assert fresh(job).rows_total == 4


def test_a_file_with_too_many_rows_fails_before_any_is_predicted(worker, engine):
    plan = PlanFactory(max_job_rows=3)
    key = ApiKeyFactory(customer=CustomerFactory(plan=plan))
    job = make_job(4, rows_total=None, api_key=key)

    job_runner.take_turn(job.pk, worker)

    assert (fresh(job).status, fresh(job).error_code) == (Status.FAILED, "TOO_LARGE")
    assert engine.calls == []


def test_an_exhausted_quota_fails_the_job_and_keeps_what_is_done(worker):
    plan = PlanFactory(quota_unit="rows", daily_quota=5)
    job = make_job(8, api_key=ApiKeyFactory(customer=CustomerFactory(plan=plan)))

    job_runner.take_turn(job.pk, worker)

    job = fresh(job)
    assert (job.status, job.error_code) == (Status.FAILED, "QUOTA_EXCEEDED")
    assert job.rows_done == 4
    assert len(csv_of(job)) == 1 + 4


def test_a_job_waits_for_an_engine_that_is_full(worker, engine, clock):
    engine.failures = [EngineErrorCode.OVERLOADED, EngineErrorCode.LOADING]
    job = make_job(2)

    job_runner.take_turn(job.pk, worker)

    assert fresh(job).status == Status.COMPLETED
    assert clock.slept == [0.1, 0.2]


def test_a_job_without_an_engine_leaves_its_worker_to_others(
    worker, engine, clock, hints
):
    engine.up = False
    job = make_job(2)

    job_runner.take_turn(job.pk, worker)

    waiting = fresh(job)
    assert waiting.status == Status.PROCESSING
    assert waiting.waiting_since is not None
    assert waiting.attempts == 0
    assert hints == []
    engine.up = True
    assert take_turns(job, worker, clock).status == Status.COMPLETED


def test_a_job_gives_up_when_no_engine_comes(worker, engine, clock):
    engine.up = False
    job = make_job(2)

    job = take_turns(job, worker, clock, most=200)

    assert (job.status, job.error_code) == (Status.FAILED, "MODEL_UNAVAILABLE")
    waited = job.completed_at - job.started_at
    assert waited >= timedelta(seconds=job_runner.GIVE_UP_S)


def test_an_engine_that_does_not_answer_is_away_and_its_rows_are_not_slow(
    worker, engine, monkeypatch
):
    def hang():
        raise EngineError(EngineErrorCode.DEADLINE_EXCEEDED, "no answer in 10 s")

    monkeypatch.setattr(engine, "status", hang)
    job = make_job(2)

    job_runner.take_turn(job.pk, worker)

    assert fresh(job).waiting_since is not None
    assert engine.calls == []


def test_an_engine_that_restarts_once_costs_nothing(worker, engine, clock):
    engine.failures = [None, EngineErrorCode.DIED]
    job = make_job(4)

    job = take_turns(job, worker, clock)

    assert job.status == Status.COMPLETED
    assert engine.calls == [[0.0, 1.0], [2.0, 3.0]]


def test_rows_that_kill_the_engine_are_quarantined(worker, engine, clock):
    engine.failures = [None] + [EngineErrorCode.DIED] * 10
    job = make_job(4)

    job = take_turns(job, worker, clock)

    assert (job.status, job.error_code) == (Status.FAILED, "INTERNAL_ERROR")
    # One of ten was left for each start after the third.
    assert len(engine.failures) == 7
    assert job.rows_done == 2


def test_a_row_that_the_model_fails_on_spoils_only_itself(worker, engine):
    engine.poison = {3.0: EngineErrorCode.MODEL_ERROR}
    job = make_job(8, chunk_rows=8)

    job_runner.take_turn(job.pk, worker)

    job = fresh(job)
    assert (job.status, job.rows_failed) == (Status.COMPLETED, 1)
    assert csv_of(job)[4] == "3,,the model failed on this row"
    assert csv_of(job)[5] == "4,5.0,"


def test_a_model_that_fails_on_everything_fails_the_job(worker, engine):
    engine.poison = {float(row): EngineErrorCode.MODEL_ERROR for row in range(100)}
    job = make_job(100, chunk_rows=100)

    job_runner.take_turn(job.pk, worker)

    assert (fresh(job).status, fresh(job).error_code) == (Status.FAILED, "MODEL_ERROR")
    assert len(engine.calls) < 4 * MAX_MODEL_FAILURES


def test_a_slow_model_gets_fewer_rows_at_once(worker, engine):
    engine.failures = [EngineErrorCode.DEADLINE_EXCEEDED]
    job = make_job(16, chunk_rows=8)

    job_runner.take_turn(job.pk, worker)

    assert fresh(job).status == Status.COMPLETED
    assert [len(call) for call in engine.calls] == [4, 4, 4, 4]


def test_a_chunk_that_takes_long_is_committed_with_what_is_done(worker, engine, clock):
    engine.meanwhile = lambda: clock.advance(job_runner.CHUNK_S)
    job = make_job(250, chunk_rows=500)

    take_turns(job, worker, clock)

    assert [chunk.rows for chunk in job.chunks.all()] == [100, 100, 50]


def test_a_turn_is_short_and_a_hint_follows_it(worker, engine, clock, hints):
    engine.meanwhile = lambda: clock.advance(job_runner.TURN_S)
    job = make_job(4)

    job_runner.take_next_turn(worker)

    assert fresh(job).rows_done == 2
    assert hints == ["inference.tasks.run_jobs"]
    # The next worker may claim it at once.
    job_runner.take_next_turn(worker)
    assert fresh(job).rows_done == 4


def test_nobody_waits_for_all_that_another_customer_has_sent(worker, engine, clock):
    """500 jobs of 100,000 rows, begun or not, beside a job of one row."""
    engine.meanwhile = lambda: clock.advance(job_runner.TURN_S)
    flood = ApiKeyFactory()
    large = make_job(100_000, api_key=flood, rows_done=0)
    others = [
        PredictionJob(
            **{
                name: getattr(large, name)
                for name in ("customer", "api_key", "model", "version", "signature")
            },
            **{"input_file": large.input_file, "input_format": "csv"},
            id=new_job_id(),
            rows_total=100_000,
        )
        for _ in range(499)
    ]
    PredictionJob.objects.bulk_create(others)
    for _ in range(3):
        job_runner.take_next_turn(worker)
    small, began = make_job(1), clock.now()

    while fresh(small).status != Status.COMPLETED:
        job_runner.take_next_turn(worker)

    assert clock.now() - began <= 2 * timedelta(seconds=job_runner.TURN_S)


def test_customers_who_send_much_share_the_turns(worker, engine, clock):
    engine.meanwhile = lambda: clock.advance(job_runner.TURN_S)
    keys = [ApiKeyFactory() for _ in range(3)]
    for key, jobs_of_it in zip(keys, (9, 3, 1), strict=True):
        for _ in range(jobs_of_it):
            make_job(50, api_key=key)

    for _ in range(12):
        job_runner.take_next_turn(worker)

    done = {
        key.customer_id: sum(job.rows_done for job in key.customer.jobs.all())
        for key in keys
    }
    # Each turn is one chunk of two rows.
    assert set(done.values()) == {8}


def test_a_customer_whose_job_is_worked_on_comes_after_one_without(worker, clock):
    """A slow model holds one worker, and gets the second only if nobody else waits."""
    slow, other = ApiKeyFactory(), ApiKeyFactory()
    first, second = make_job(api_key=slow), make_job(api_key=slow)
    theirs = make_job(api_key=other)
    jobs.claim(theirs.pk, worker="w2", now=clock.now())
    jobs.hand_back(jobs.Claim(theirs.pk, 1), again_at=clock.now())
    clock.advance(1)
    jobs.claim(first.pk, worker="w2", now=clock.now())
    clock.advance(1)
    jobs.claim(theirs.pk, worker="w1", now=clock.now())
    jobs.hand_back(jobs.Claim(theirs.pk, 2), again_at=clock.now())

    assert jobs.next_in_turn(now=clock.now()) == theirs.pk
    jobs.cancel(theirs.pk, now=clock.now())
    assert jobs.next_in_turn(now=clock.now()) == second.pk


def test_a_job_that_waits_for_its_engine_costs_its_customer_no_turn(worker, clock):
    waiting, ready = (make_job(api_key=key) for key in [ApiKeyFactory()] * 2)
    other = make_job()
    claim = jobs.claim(waiting.pk, worker="w1", now=clock.now())
    jobs.note_waiting(claim, now=clock.now())
    jobs.hand_back(claim, again_at=clock.now() + timedelta(seconds=3))
    jobs.claim(other.pk, worker="w2", now=clock.now() + timedelta(seconds=1))
    make_job(api_key=other.api_key)

    clock.advance(2)

    assert jobs.next_in_turn(now=clock.now()) == ready.pk


def test_a_process_works_on_some_jobs_at_once_and_drops_the_hints_beyond(
    worker, engine, clock, hints
):
    """The last thread is kept for other tasks, however many hints arrive."""
    all_jobs = [make_job(2) for _ in range(job_runner.JOBS_AT_ONCE + 2)]
    begun = []

    def take_the_next():
        if len(begun) < job_runner.JOBS_AT_ONCE:
            begun.append(1)
            job_runner.take_next_turn(worker)

    engine.meanwhile = take_the_next

    job_runner.take_next_turn(worker)

    done = [job for job in all_jobs if fresh(job).status == Status.COMPLETED]
    assert len(done) == job_runner.JOBS_AT_ONCE
    # One from each that worked, none from the one that had no room.
    assert len(hints) == job_runner.JOBS_AT_ONCE


def test_many_turns_are_no_failed_starts(worker, engine, clock):
    engine.meanwhile = lambda: clock.advance(job_runner.TURN_S)
    job = make_job(20)

    job = take_turns(job, worker, clock)

    assert job.status == Status.COMPLETED


def test_a_cancel_between_chunks_is_final(worker, engine, clock):
    job = make_job(6)
    calls = iter(range(10))

    def cancel_at_the_second():
        if next(calls) == 1:
            jobs.cancel(job.pk, now=clock.now())

    engine.meanwhile = cancel_at_the_second

    job_runner.take_turn(job.pk, worker)
    clock.advance(60)
    job_sweep.sweep(now=clock.now())
    job_runner.take_turn(job.pk, worker)

    assert (fresh(job).status, fresh(job).rows_done) == (Status.CANCELLED, 2)
    assert job.chunks.count() == 1


def test_a_worker_that_was_taken_for_dead_writes_nothing(worker, engine, clock):
    job = make_job(4)
    taken = []

    def sleep_through_the_lease():
        if not taken:
            taken.append(True)
            clock.advance(jobs.CLAIM_S + 1)
            job_runner.take_turn(job.pk, worker)

    engine.meanwhile = sleep_through_the_lease

    job_runner.take_turn(job.pk, worker)

    job = fresh(job)
    assert (job.status, job.rows_done) == (Status.COMPLETED, 4)
    assert job.chunks.count() == 2
    assert sum(Usage.objects.values_list("rows", flat=True)) == 4


def test_a_held_job_is_left_alone(worker, engine, clock):
    job = make_job()
    jobs.claim(job.pk, worker="w2", now=clock.now())

    job_runner.take_turn(job.pk, worker)

    assert engine.calls == []


def test_a_worker_that_stumbles_is_tried_again_and_then_given_up(worker, engine, clock):
    def stumble():
        raise RuntimeError("a mistake of ours")

    engine.meanwhile = stumble
    job = make_job(2)

    job = take_turns(job, worker, clock)

    assert (job.status, job.error_code) == (Status.FAILED, "INTERNAL_ERROR")
    assert "mistake" not in job.error_message
    assert job.attempts == jobs.MAX_ATTEMPTS


def test_options_reach_the_engine_and_the_answers(worker):
    labelled = Signature(
        layout=Layout.MATRIX,
        columns=(Column(name="a"), Column(name="b")),
        shape=(2,),
        task=Task.CLASSIFICATION,
        labels=("no", "yes"),
    )
    job = make_job("a,b\n0.25,0.5\n", signature=labelled, options={"top_k": 2})

    job_runner.take_turn(job.pk, worker)

    assert csv_of(job)[0] == "index,label,score,low_confidence,scores,error"
    assert csv_of(job)[1].startswith("0,yes,0.75,false,")


def test_jobs_give_way_to_interactive_requests(worker, engine):
    job_runner.take_turn(make_job(3).pk, worker)

    assert engine.priorities == {"job"}


def test_engines_are_told_whose_job_it_is(worker, engine):
    job = make_job(3)

    job_runner.take_turn(job.pk, worker)

    assert engine.customers == {job.customer_id}
    assert engine.request_ids == {job.pk}


def test_logs_of_worker_and_engine_name_the_job_its_request_and_its_customer(
    worker, engine, caplog
):
    job = make_job(2)
    PredictionJob.objects.filter(pk=job.pk).update(request_id="mine")

    with caplog.at_level("INFO"):
        job_runner.take_turn(job.pk, worker)

    [line] = [one.msg for one in caplog.records if "job_ended" in str(one.msg)]
    assert (line["job"], line["request_id"]) == (job.pk, "mine")
    assert (line["customer_id"], line["key_id"]) == (
        job.customer_id,
        job.api_key.key_id,
    )
    assert engine.request_ids == {f"{job.pk} mine"}


def test_calls_are_short_where_rows_are_slow(worker, engine):
    """Others wait for a call that has begun: 50 ms at most, after the first."""
    engine.row_us = 5000

    job_runner.take_turn(make_job(250, chunk_rows=500).pk, worker)

    assert [len(call) for call in engine.calls] == [100, *[10] * 15]
