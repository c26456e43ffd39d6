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


def test_without_a_warning_there_is_no_word_of_warnings():
    job = job_with(([{"warning": "no"}], []))

    assert "warnings" not in as_json(job)
    assert as_rows(job)[0] == ["index", "warning", "error"]


def test_members_of_a_prediction_are_columns_of_the_csv():
    job = job_with(([None, LABELLED], [{"index": 0, "issue": "bad", "field": "a"}]))

    assert as_rows(job) == [
        ["index", "label", "score", "low_confidence", "error"],
        ["0", "", "", "", "a: bad"],
        ["1", """'=yes, "no\"""", "0.98", "false", ""],
    ]


def test_every_member_of_any_prediction_is_a_column():
    job = job_with(
        ([{"decision": "no"}, 7], [{"index": 1, "issue": "bad"}]),
        ([{"decision": "yes", "rule": 3, "reason": "age"}, {"label": "a"}], []),
    )

    assert as_rows(job) == [
        ["index", "prediction", "label", "decision", "reason", "rule", "error"],
        ["0", "", "", "no", "", "", ""],
        ["1", "7", "", "", "", "", "bad"],
        ["2", "", "", "yes", "age", "3", ""],
        ["3", "", "a", "", "", "", ""],
    ]


def test_a_member_that_is_named_as_another_column_says_whose_it_is():
    job = job_with(([{"index": 1, "error": 2}], []))

    assert as_rows(job)[0] == [
        "index",
        "prediction.error",
        "prediction.index",
        "error",
    ]


def test_predictions_of_too_many_members_stand_as_json():
    wide = [{f"member-{row}-{at}": 1 for at in range(600)} for row in range(2)]

    header, first, _ = as_rows(job_with((wide, [])))

    assert header == ["index", "prediction", "error"]
    assert json.loads(first[1]) == wide[0]


def test_a_spreadsheet_finds_no_formula_in_the_csv():
    """Members, texts and names of columns may come from strangers."""
    error = {"index": 1, "issue": "is unknown", "field": "=1+1"}
    job = job_with(([{"@sum": "\uff1d1"}, None, {"@sum": "-12.5e3"}], [error]))

    assert as_rows(job) == [
        ["index", "'@sum", "error"],
        ["0", "'\uff1d1", ""],
        ["1", "", "'=1+1: is unknown"],
        # A number is not a formula, and stays a number.
        ["2", "-12.5e3", ""],
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

    with django_assert_max_num_queries(3):
        parts = list(job_results.as_csv(job))

    assert len(parts) >= 5
