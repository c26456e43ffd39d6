"""Show jobs, cancel them and fetch their output."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from inference.models import JobChunk, PredictionJob
from tests.factories import CustomerFactory, issue_key
from tests.factories_jobs import make_job, write_snapshot

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]

URL = "/api/v1/jobs"
Status = PredictionJob.Status
OPERATIONS = [
    ("get", ""),
    ("get", "/result"),
    ("get", "/result?format=csv"),
    ("get", "/errors"),
    ("post", "/result/link"),
    ("post", "/cancel"),
]


@pytest.fixture
def key():
    return issue_key()


def call(client, key, method, path, **extra):
    return getattr(client, method)(
        URL + path, HTTP_AUTHORIZATION=f"Bearer {key.token}", **extra
    )


def code_of(response):
    return json.loads(response.content)["error"]["code"]


def own_job(key, **fields):
    return make_job(api_key=key.key, **fields)


def completed_job(key, **fields):
    job = own_job(
        key,
        **{
            "status": Status.COMPLETED,
            "rows_done": 2,
            "rows_failed": 1,
            "rows_total": 2,
            **fields,
        },
    )
    error = {"index": 1, "code": "INVALID_INPUT", "field": "a", "issue": "bad"}
    JobChunk.objects.create(
        job=job, index=0, rows=2, predictions=[2.5, None], errors=[error]
    )
    return job


def body(response):
    return b"".join(response.streaming_content)


def test_a_job_shows_its_progress(client, key):
    started_at = timezone.now() - timedelta(seconds=30)
    job = own_job(
        key,
        status=Status.PROCESSING,
        rows_total=1000,
        rows_done=450,
        rows_failed=2,
        started_at=started_at,
    )

    answer = call(client, key, "get", f"/{job.pk}").json()

    assert answer["status"] == "processing"
    assert answer["progress"] == {
        "rows_done": 450,
        "rows_total": 1000,
        "rows_failed": 2,
        "percent": 45,
    }
    assert answer["eta_s"] == pytest.approx(37, abs=2)
    assert answer["created_at"].endswith("Z")
    assert answer["error"] is None


def test_progress_is_measured_in_bytes_until_the_rows_are_counted(client, key):
    job = own_job(
        key,
        status=Status.PROCESSING,
        rows_total=None,
        input_bytes=200,
        input_offset=50,
    )

    progress = call(client, key, "get", f"/{job.pk}").json()["progress"]

    assert (progress["rows_total"], progress["percent"]) == (None, 25)


def test_a_failed_job_shows_its_error_and_offers_what_is_done(client, key):
    job = completed_job(
        key,
        status=Status.FAILED,
        error_code="QUOTA_EXCEEDED",
        error_message="The quota is spent.",
    )

    answer = call(client, key, "get", f"/{job.pk}").json()

    assert answer["error"] == {
        "code": "QUOTA_EXCEEDED",
        "message": "The quota is spent.",
    }
    assert answer["result_url"] == f"{URL}/{job.pk}/result"
    assert body(call(client, key, "get", f"/{job.pk}/result"))


def test_the_result_is_json_by_default(client, key):
    job = completed_job(key)

    response = call(client, key, "get", f"/{job.pk}/result")

    assert response.headers["Content-Type"] == "application/json"
    answer = json.loads(body(response))
    assert answer["predictions"] == [2.5, None]
    assert answer["errors"][0]["field"] == "a"


@pytest.mark.parametrize(
    ("path", "extra"), [("?format=csv", {}), ("", {"HTTP_ACCEPT": "text/csv"})]
)
def test_the_result_is_csv_when_asked_for(client, key, path, extra):
    job = completed_job(key)

    response = call(client, key, "get", f"/{job.pk}/result{path}", **extra)

    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert f'filename="{job.pk}.csv"' in response.headers["Content-Disposition"]
    assert body(response) == b"index,prediction,error\n0,2.5,\n1,,a: bad\n"


def test_two_downloads_are_byte_identical(client, key):
    job = completed_job(key)
    path = f"/{job.pk}/result"

    assert body(call(client, key, "get", path)) == body(call(client, key, "get", path))


def test_a_result_in_csv_can_be_asked_about_its_methods(client, key):
    job = completed_job(key)

    response = call(client, key, "options", f"/{job.pk}/result?format=csv")

    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize("asked", ["xml", ""])
def test_another_format_is_not_acceptable(client, key, asked):
    job = completed_job(key)

    for path in ("", f"/{job.pk}", f"/{job.pk}/result"):
        response = call(client, key, "get", f"{path}?format={asked}")

        assert (response.status_code, code_of(response)) == (406, "NOT_ACCEPTABLE")


def test_errors_are_a_list_of_rows(client, key):
    job = completed_job(key)

    (error,) = json.loads(body(call(client, key, "get", f"/{job.pk}/errors")))["data"]

    assert error == {"index": 1, "code": "INVALID_INPUT", "field": "a", "issue": "bad"}


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
@pytest.mark.parametrize("path", ["/result", "/errors"])
def test_output_of_an_unfinished_job_is_a_conflict_with_advice(
    client, key, status, path
):
    job = own_job(key, status=status)

    response = call(client, key, "get", f"/{job.pk}{path}")

    assert (response.status_code, code_of(response)) == (409, "CONFLICT")
    assert job.pk in json.loads(response.content)["error"]["message"]
    assert response.headers["Retry-After"]


def test_output_that_was_deleted_is_gone(client, key):
    job = own_job(key, status=Status.COMPLETED, removed_at=timezone.now())

    response = call(client, key, "get", f"/{job.pk}/result")

    assert (response.status_code, code_of(response)) == (410, "GONE")
    assert call(client, key, "get", f"/{job.pk}").json()["result_url"] is None


def test_a_job_can_be_cancelled_once(client, key):
    job = own_job(key)

    first = call(client, key, "post", f"/{job.pk}/cancel")
    second = call(client, key, "post", f"/{job.pk}/cancel")

    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert (second.status_code, code_of(second)) == (409, "CONFLICT")


def test_jobs_are_listed_newest_first_page_by_page(client, key):
    made = [own_job(key).pk for _ in range(5)]

    found, path, pages = [], "?limit=2", 0
    while path is not None:
        answer = call(client, key, "get", path).json()
        found += [job["id"] for job in answer["data"]]
        cursor = answer["next_cursor"]
        path = f"?limit=2&cursor={cursor}" if cursor else None
        pages += 1

    assert found == sorted(made, reverse=True)
    assert pages == 3


def test_an_empty_list_is_a_list(client, key):
    assert call(client, key, "get", "").json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        f"cursor={31 * 'x'}",
        "cursor=x",
        "cursor=job_1",
    ],
)
def test_a_bad_page_is_refused(client, key, query):
    assert call(client, key, "get", f"?{query}").status_code == 400


def test_a_list_costs_few_queries(client, key, django_assert_max_num_queries):
    for _ in range(10):
        own_job(key)
    call(client, key, "get", "")

    with django_assert_max_num_queries(3):
        call(client, key, "get", "?limit=10")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("status", [Status.PENDING, Status.COMPLETED])
def test_other_customers_jobs_do_not_exist(client, key, method, path, status):
    job = completed_job(issue_key(CustomerFactory()), status=status)

    foreign = call(client, key, method, f"/{job.pk}{path}")
    unknown = call(client, key, method, f"/job_{'0' * 26}{path}")

    assert foreign.status_code == unknown.status_code == 404
    without_ids = [
        {
            name: value
            for name, value in json.loads(response.content)["error"].items()
            if name not in ("request_id", "timestamp")
        }
        for response in (foreign, unknown)
    ]
    assert without_ids[0] == without_ids[1]
    job.refresh_from_db()
    assert job.status == status


def test_other_customers_jobs_are_not_listed(client, key):
    own_job(issue_key(CustomerFactory()))

    assert call(client, key, "get", "").json()["data"] == []


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_jobs_of_models_that_the_key_may_not_see_do_not_exist(
    client, key, method, path
):
    job = completed_job(key)
    narrow = issue_key(key.key.customer, allowed_models=["other"])

    assert call(client, narrow, method, f"/{job.pk}{path}").status_code == 404


def test_another_key_of_the_customer_sees_its_jobs(client, key):
    job = own_job(key)
    other = issue_key(key.key.customer)

    assert call(client, other, "get", f"/{job.pk}").status_code == 200


def test_a_model_that_the_key_may_not_see_cannot_be_run(client, key):
    write_snapshot()
    narrow = issue_key(key.key.customer, allowed_models=["other"])

    response = call(
        client,
        narrow,
        "post",
        "",
        data={"model": "sum", "instances": [[1, 2]]},
        content_type="application/json",
    )

    assert (response.status_code, code_of(response)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"), [*OPERATIONS, ("get", None), ("post", None)]
)
def test_a_key_needs_the_scope(client, key, method, path):
    path = "" if path is None else f"/{completed_job(key).pk}{path}"
    narrow = issue_key(key.key.customer, scopes=["predict"])

    response = call(client, narrow, method, path)

    assert (response.status_code, code_of(response)) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("method", "path"), [*OPERATIONS, ("get", None), ("post", None)]
)
def test_without_a_key_nothing_is_told(client, key, method, path):
    path = "" if path is None else f"/{completed_job(key).pk}{path}"

    response = getattr(client, method)(URL + path)

    assert (response.status_code, code_of(response)) == (401, "UNAUTHENTICATED")


def test_times_are_utc(client, key):
    job = own_job(key, started_at=datetime(2026, 11, 20, 10, 30, tzinfo=UTC))

    answer = call(client, key, "get", f"/{job.pk}").json()

    assert answer["started_at"] == "2026-11-20T10:30:00Z"


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("job_id", ["%00", "job_%00", "job_" + "0" * 25 + "%00"])
def test_what_is_no_id_is_not_looked_for(client, key, method, path, job_id):
    """PostgreSQL would refuse to look it up."""
    with CaptureQueriesContext(connection) as queries:
        response = call(client, key, method, f"/{job_id}{path}")

    assert (response.status_code, code_of(response)) == (404, "NOT_FOUND")
    assert not [sql for sql in queries if "\0" in sql["sql"]]


@pytest.mark.parametrize(
    "query", ["cursor=", "limit=", "limit=1&limit=2", "cursor=%00", "limit=0"]
)
def test_a_query_that_makes_no_sense_is_refused(client, key, query):
    response = call(client, key, "get", f"?{query}")

    assert (response.status_code, code_of(response)) == (400, "INVALID_INPUT")
    (detail,) = response.json()["error"]["details"]
    assert detail["field"] == query.partition("=")[0]
