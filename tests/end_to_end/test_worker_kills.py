"""Test that jobs end and calls succeed while worker and beat are killed."""

import random
import time

import httpx
import pytest
from django.db.models import Count, Sum
from django.utils import timezone

from accounts.models import QuotaCounter, Usage
from inference.jobs.charging import segment
from inference.models import JobChunk, PredictionJob
from tests import machine
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.inference.engine.fakes import FakeRunner
from tests.load import Load
from tests.torture import FACTOR

pytestmark = [
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(300 * FACTOR),
]

# Of a worker that has a job; each costs the time of a lease.
KILLS = FACTOR
JOBS, ROWS = 2 * FACTOR, 2000
ROW_S = 0.002
# A dead worker's job continues within this time, beside the start of a new worker.
RESTART_S = 30.0
Status = PredictionJob.Status


class SteadyRunner(FakeRunner):
    """A model that takes time for each row, so kills hit work in progress."""

    def run(self, tensors):
        time.sleep(ROW_S * len(tensors[0].data))
        return super().run(tensors)


def customer():
    return CustomerFactory(
        plan=PlanFactory(
            burst_requests=100_000,
            sustained_requests=1_000_000,
            daily_quota=10**7,
            quota_unit="rows",
        )
    )


def first_value(number):
    """Return a job's first value; no two rows of all jobs are equal."""
    return 10_000 * (number + 1)


def submit(plant, token, number):
    lines = [f"{first_value(number) + row},0" for row in range(ROWS)]
    file = "\n".join(["width,height", *lines])
    answer = httpx.post(
        f"{plant.url}/api/v1/jobs",
        data={"model": machine.MODEL},
        files={"file": ("rows.csv", file, "text/csv")},
        headers={"authorization": f"Bearer {token}"},
        timeout=60,
        verify=False,
    )
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def result(plant, token, job_id):
    answer = httpx.get(
        f"{plant.url}/api/v1/jobs/{job_id}/result",
        headers={"authorization": f"Bearer {token}"},
        timeout=60,
        verify=False,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def progress():
    return PredictionJob.objects.aggregate(rows=Sum("rows_done"))["rows"] or 0


def leave_torn_hints(home):
    """Write the torn files that a killed writer leaves behind."""
    for number, content in enumerate((b"", b'{"body": "W1si')):
        (home.broker / f"{time.time_ns():020}-torn-{number}.celery.msg").write_bytes(
            content
        )


def charged(key):
    """Return how many requests the ledger charges its customer."""
    usage = Usage.objects.filter(customer=key.customer)
    return usage.aggregate(n=Sum("charged_requests"))["n"]


def seconds_until_more_rows():
    began, known = time.monotonic(), progress()
    machine.wait_until(lambda: progress() > known, what="more rows")
    return time.monotonic() - began


def kill_again_and_again(plant, chance):
    """Kill each at a random moment while a job is under way.

    Returns the longest time until jobs went on.
    """
    taken, took_s = 0, [seconds_until_more_rows()]
    while taken < KILLS:
        for name in chance.sample(["worker", "beat"], 2):
            time.sleep(chance.uniform(0, 0.5))
            plant.kill(name)
            leave_torn_hints(plant.home)
            if name == "worker":
                held = PredictionJob.objects.filter(
                    status=Status.PROCESSING, lease_expires_at__gt=timezone.now()
                )
                taken += held.exists()
            plant.start(name)
        took_s.append(seconds_until_more_rows())
    return max(took_s)


def test_no_row_is_lost_or_done_twice_whatever_is_killed(home):
    jobs_key, calls_key = issue_key(customer()), issue_key(customer())
    with machine.running(gateways=2, runner=SteadyRunner()) as plant:
        machine.wait_until(lambda: plant.answers(calls_key.token), what="a prediction")
        machine.wait_until(plant.ingested, what="the first event in the ledger")
        before = set().union(*plant.spooled().values())
        charged_before = charged(calls_key.key)
        job_ids = [submit(plant, jobs_key.token, number) for number in range(JOBS)]
        plant.start("worker")
        plant.start("beat")
        with Load(plant.gateways.port, [calls_key.token], connections=4) as load:
            longest_s = kill_again_and_again(plant, random.Random(20261122))
            machine.wait_until(
                lambda: (
                    not PredictionJob.objects.exclude(status=Status.COMPLETED).exists()
                ),
                what="the end of the jobs",
                timeout_s=240 * FACTOR,
            )
        machine.wait_until(plant.ingested, what="the calls in the ledger")
        results = [result(plant, jobs_key.token, job_id) for job_id in job_ids]
        events = set().union(*plant.spooled().values())

    assert longest_s < RESTART_S + 30
    for number, found in enumerate(results):
        first = first_value(number)
        scores = [one["score"] for one in found["predictions"]]
        assert scores == [2 * (first + row) for row in range(ROWS)]
        assert found["errors"] == []
    # Each chunk is one row of usage and one charge, even if it was begun twice.
    for job_id in job_ids:
        done = JobChunk.objects.filter(job_id=job_id).aggregate(n=Count("pk"))["n"]
        used = Usage.objects.filter(segment=segment(job_id)).aggregate(
            requests=Sum("requests"), rows=Sum("charged_rows")
        )
        assert used == {"requests": done, "rows": ROWS}
    granted = QuotaCounter.objects.get(customer=jobs_key.key.customer).granted
    assert granted == JOBS * ROWS
    # No other caller was affected.
    assert {call.status for call in load.calls} == {200}
    assert sorted(load.answered()) == sorted(events - before)
    # Calls before the load checked that the gateways serve.
    assert charged(calls_key.key) - charged_before == len(load.calls)
