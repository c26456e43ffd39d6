import time

import pytest
from celery import shared_task

from config.monitoring import task_counts
from inference.metrics.counts import Counts


@pytest.fixture
def here(monkeypatch):
    found = Counts()
    monkeypatch.setattr(task_counts, "HERE", found)
    task_counts.connect()
    yield found
    task_counts.disconnect()


@shared_task(name="tests.good")
def good():
    pass


@shared_task(name="tests.bad")
def bad():
    raise RuntimeError("a mistake")


def test_tasks_are_counted_by_how_they_end(here):
    good.apply()
    good.apply()
    bad.apply()

    found = {(it.name, it.labels): it.value for it in here.numbers()}
    assert found["tasks", ("tests.good", "succeeded")] == 2
    assert found["tasks", ("tests.bad", "failed")] == 1
    at = found["task_succeeded_at_seconds", ("tests.good",)]
    assert abs(at - time.time()) < 60
    assert ("task_succeeded_at_seconds", ("tests.bad",)) not in found
    assert {it.labels: sum(it.buckets) for it in here.distributions()} == {
        ("tests.good",): 2,
        ("tests.bad",): 1,
    }


def test_nothing_is_counted_where_no_worker_runs(monkeypatch):
    monkeypatch.setattr(task_counts, "HERE", found := Counts())

    good.apply()

    assert found.numbers() == []
