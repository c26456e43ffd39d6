"""A job's output as CSV and JSON."""

import csv
import io
import json

import pytest

from inference.jobs import results as job_results
from inference.models import JobChunk
from tests.factories_jobs import make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]

LABELLED = {"label": '=yes, "no"', "score": 0.98, "low_confidence": False}


def job_with(*chunks):
    job = make_job(status="completed")
    for index, (predictions, errors) in enumerate(chunks):
        JobChunk.objects.create(
            job=job,
            index=index,
            rows=len(predictions),
            predictions=predictions,
            errors=errors,
        )
    return job


def as_rows(job):
    text = b"".join(job_results.as_csv(job)).decode()
    return list(csv.reader(io.StringIO(text)))


def as_json(job):
    return json.loads(b"".join(job_results.as_json(job)))


def test_json_has_predictions_and_errors_of_all_chunks():
    error = {"index": 1, "issue": "is bad", "field": "a"}
    job = job_with(([1.5, None], [error]), ([2.5], []))

    answer = as_json(job)

    assert answer["predictions"] == [1.5, None, 2.5]
    assert answer["errors"] == [error]
    assert answer["model"] == {"name": "sum", "version": "3", "variant": "default"}
    assert answer["job_id"] == job.pk


def test_members_of_a_prediction_are_columns_of_the_csv():
    job = job_with(([None, LABELLED], [{"index": 0, "issue": "bad", "field": "a"}]))

    assert as_rows(job) == [
        ["index", "label", "score", "low_confidence", "error"],
        ["0", "", "", "", "a: bad"],
        ["1", '=yes, "no"', "0.98", "false", ""],
    ]


def test_several_problems_of_a_row_share_its_cell():
    errors = [{"index": 0, "issue": "x", "field": "a"}, {"index": 0, "issue": "y"}]

    assert as_rows(job_with(([None], errors)))[1] == ["0", "", "a: x; y"]


def test_nested_predictions_are_json_in_the_csv():
    assert as_rows(job_with(([[1.0, 2.0]], [])))[1] == ["0", "[1.0,2.0]", ""]


def test_rows_are_numbered_over_all_chunks():
    job = job_with(([1.0, 2.0], []), ([3.0], []))

    assert [row[0] for row in as_rows(job)[1:]] == ["0", "1", "2"]


def test_a_job_without_output_gives_an_empty_result():
    job = job_with()

    assert as_json(job)["predictions"] == []
    assert as_rows(job) == [["index", "prediction", "error"]]


def test_the_same_output_is_the_same_bytes():
    job = job_with(([LABELLED, None], [{"index": 1, "issue": "x"}]), ([LABELLED], []))

    assert list(job_results.as_csv(job)) == list(job_results.as_csv(job))
    assert list(job_results.as_json(job)) == list(job_results.as_json(job))


def test_errors_alone_are_a_list():
    job = job_with(([None], [{"index": 0, "issue": "x"}]), ([1.0], []))

    answer = json.loads(b"".join(job_results.errors_as_json(job)))

    assert answer == {"data": [{"index": 0, "issue": "x"}]}


def test_one_chunk_at_a_time_is_read(django_assert_max_num_queries):
    job = job_with(*(([1.0], []) for _ in range(5)))

    with django_assert_max_num_queries(2):
        parts = list(job_results.as_csv(job))

    assert len(parts) >= 5
