"""POST /api/v1/jobs."""

import contextlib
import errno
import io
import json
import os

import msgspec
import pytest
from celery import Celery
from django.conf import settings
from django.db import connection
from django.utils import timezone

from inference.api import negotiation
from inference.jobs import files as job_files
from inference.jobs.api import requests as job_requests
from inference.models import PredictionJob
from inference.snapshot.contents import Ending, Sticky
from inference.snapshot.targets import ModelEntry
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.factories_jobs import sum_model, write_snapshot

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]

URL = "/api/v1/jobs"
INSTANCES = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@pytest.fixture(autouse=True)
def published(home):
    write_snapshot()


@pytest.fixture
def key():
    return issue_key(CustomerFactory(plan=PlanFactory(burst_requests=1000)))


@contextlib.contextmanager
def full_disk(monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        yield


@contextlib.contextmanager
def read_only_database(monkeypatch):
    setting = {
        "sqlite": "PRAGMA query_only",
        "postgresql": "SET default_transaction_read_only",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(f"{setting} = ON")
        yield
        cursor.execute(f"{setting} = OFF")


def headers(key):
    return {"HTTP_AUTHORIZATION": f"Bearer {key.token}"}


def post(client, key, body, **extra):
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.post(
        URL, data, content_type="application/json", **headers(key), **extra
    )


def upload(client, key, content, *, name="rows.csv", kind="text/csv", **fields):
    file = io.BytesIO(content.encode() if isinstance(content, str) else content)
    file.name = name
    file.content_type = kind
    return client.post(URL, {"model": "sum", "file": file, **fields}, **headers(key))


def error_of(response):
    return json.loads(response.content)["error"]


def problems(response):
    return {(one.get("field"), one["issue"]) for one in error_of(response)["details"]}


def stored(response):
    job = PredictionJob.objects.get(pk=response.json()["id"])
    with job_files.open_input(job) as file:
        return job, file.read()


def no_job_is_left():
    return not PredictionJob.objects.exists() and not list(settings.HOME.jobs.iterdir())


def test_a_job_keeps_the_id_of_its_request_for_the_logs(client, key, caplog):
    with caplog.at_level("INFO"):
        response = post(
            client,
            key,
            {"model": "sum", "instances": INSTANCES},
            HTTP_X_REQUEST_ID="mine",
        )

    job, _ = stored(response)
    [line] = [one.msg for one in caplog.records if "job_submitted" in str(one.msg)]
    assert job.request_id == "mine"
    assert (line["job"], line["request_id"]) == (job.pk, "mine")


def test_instances_start_a_job(client, key):
    response = post(
        client, key, {"model": "sum", "instances": INSTANCES, "options": {"top_k": 1}}
    )

    assert response.status_code == 202
    answer = response.json()
    assert answer["status"] == "pending"
    assert answer["model"] == {"name": "sum", "version": "3", "variant": "default"}
    assert answer["progress"] == {
        "rows_done": 0,
        "rows_total": 2,
        "rows_failed": 0,
        "percent": 0,
    }
    assert answer["result_url"] is None
    assert response.headers["Location"] == f"{URL}/{answer['id']}"
    job, lines = stored(response)
    assert [json.loads(line) for line in lines.splitlines()] == INSTANCES
    assert (job.customer_id, job.api_key_id) == (key.key.customer_id, key.key.pk)
    assert job.options["top_k"] == 1


def test_numbers_stay_as_they_were_written(client, key):
    body = b'{"model": "sum", "inputs": [[1e999,\n 0.10], {"a": 12345678901234567890}]}'

    _, lines = stored(post(client, key, body))

    assert lines == b'[1e999,  0.10]\n{"a": 12345678901234567890}\n'


def test_a_single_input_is_one_row(client, key):
    _, lines = stored(post(client, key, {"model": "sum", "inputs": INSTANCES[0]}))

    assert json.loads(lines) == INSTANCES[0]


def test_a_csv_file_starts_a_job(client, key):
    text = "a,b\n1,2\n3,4\nbad,1\n"

    response = upload(client, key, text, options='{"batch_size": 10}')

    assert response.status_code == 202, response.content
    assert response.json()["progress"]["rows_total"] == 3
    job, content = stored(response)
    assert content == text.encode()
    assert (job.input_format, job.input_bytes) == ("csv", len(text))
    assert job.options["batch_size"] == 10


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rows.jsonl", "application/octet-stream"),
        ("rows.ndjson", "text/plain"),
        ("rows", "application/x-ndjson; charset=utf-8"),
    ],
)
def test_a_json_lines_file_starts_a_job(client, key, name, kind):
    response = upload(client, key, '{"a": 1, "b": 2}\n', name=name, kind=kind)

    assert response.status_code == 202
    assert stored(response)[0].input_format == "json"


def test_only_the_owner_of_the_process_can_read_inputs(client, key):
    job, _ = stored(upload(client, key, "a,b\n1,2\n"))

    path = settings.HOME.jobs / job.input_file
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_field_that_comes_twice_is_refused(client, key):
    response = upload(client, key, "a,b\n1,2\n", model=["sum", "other"])

    assert response.status_code == 400
    (detail,) = error_of(response)["details"]
    assert (detail["field"], detail["issue"]) == ("model", "must be sent once")


def test_an_upload_is_moved_and_not_copied(client, key, monkeypatch):
    inodes = []
    real = job_requests.read

    def note_inode(request):
        asked = real(request)
        inodes.append(os.stat(asked.upload.temporary_file_path()).st_ino)
        return asked

    monkeypatch.setattr(job_requests, "read", note_inode)

    job, _ = stored(upload(client, key, "a,b\n1,2\n"))

    assert inodes == [(settings.HOME.jobs / job.input_file).stat().st_ino]


def test_a_version_may_be_chosen_by_number_alias_or_header(client, key):
    body = {"model": "sum", "instances": INSTANCES}

    chosen = [
        post(client, key, body | {"version": "2"}),
        post(client, key, body | {"version": 2}),
        post(client, key, body | {"version": "champion"}),
        post(client, key, body, HTTP_X_MODEL_VERSION="4"),
    ]

    assert [one.json()["model"]["version"] for one in chosen] == ["2", "2", "3", "4"]


@pytest.mark.parametrize("version", [{}, {"version": "9"}])
def test_a_job_on_what_cannot_be_loaded_gets_no_time_to_wait_for(client, key, version):
    model = msgspec.structs.replace(
        sum_model(), variants=(), broken=("9",), stuck="broken"
    )
    write_snapshot(model)

    answer = post(client, key, {"model": "sum", "instances": INSTANCES} | version)

    assert answer.status_code == 503
    assert "waiting does not help" in answer.json()["error"]["message"]
    assert "Retry-After" not in answer.headers


def test_a_job_on_a_quarantined_version_is_refused_and_says_so(client, key):
    model = sum_model()
    versions = tuple(
        msgspec.structs.replace(one, quarantined=True) for one in model.versions
    )
    write_snapshot(msgspec.structs.replace(model, versions=versions))

    answer = post(client, key, {"model": "sum", "instances": INSTANCES})

    assert answer.status_code == 503
    assert "is quarantined" in answer.json()["error"]["message"]
    assert "Retry-After" not in answer.headers


def test_a_sticky_key_gets_one_variant_and_jobs_are_spread_by_weight(client, key):
    write_snapshot(sum_model(canary_percent=50))
    body = {"model": "sum", "instances": INSTANCES}

    sticky = {
        post(client, key, body, HTTP_X_STICKY_KEY="me").json()["model"]["version"]
        for _ in range(5)
    }
    spread = {post(client, key, body).json()["model"]["version"] for _ in range(40)}

    assert len(sticky) == 1
    assert spread == {"3", "4"}


def test_on_a_route_that_is_sticky_by_key_jobs_get_the_version_of_its_calls(
    client, key
):
    sticky = Sticky("key", "salt")
    model = msgspec.structs.replace(sum_model(canary_percent=50), sticky=sticky)
    write_snapshot(model)
    body = {"model": "sum", "instances": INSTANCES}
    keys = [key, *(issue_key(key.key.customer, scopes=["jobs"]) for _ in range(7))]

    for each in keys:
        of_calls = ModelEntry(model, None).pinned(each.key.key_id)
        # What a caller says of itself does not count.
        found = {
            post(client, each, body, HTTP_X_STICKY_KEY=text).json()["model"]["version"]
            for text in ("", "me", "you", "they")
        }
        assert found == {of_calls.version}


def test_the_job_is_dispatched_after_the_commit(
    client, key, monkeypatch, django_capture_on_commit_callbacks
):
    sent = []
    monkeypatch.setattr(
        "inference.jobs.life_cycle.current_app.send_task",
        lambda name, **options: sent.append(name),
    )

    with django_capture_on_commit_callbacks(execute=True):
        response = post(client, key, {"model": "sum", "instances": INSTANCES})
        assert sent == []

    assert response.status_code == 202
    assert sent == ["inference.tasks.run_jobs"]


def test_a_broker_folder_that_is_gone_does_not_fail_the_request(
    client, key, monkeypatch, django_capture_on_commit_callbacks, tmp_path
):
    missing = str(tmp_path / "missing" / "folder")
    app = Celery("broken", broker="filesystem://", set_as_current=False)
    app.conf.broker_transport = "config.processes.hint_files:Transport"
    app.conf.broker_transport_options = {"folder": missing}
    monkeypatch.setattr("inference.jobs.life_cycle.current_app", app)

    with django_capture_on_commit_callbacks(execute=True):
        response = post(client, key, {"model": "sum", "instances": INSTANCES})

    assert response.status_code == 202


def test_a_broker_that_refuses_connections_does_not_fail_the_request(
    client, key, monkeypatch, django_capture_on_commit_callbacks
):

    app = Celery("down", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.broker_transport_options = {"max_retries": 0}
    monkeypatch.setattr("inference.jobs.life_cycle.current_app", app)

    with django_capture_on_commit_callbacks(execute=True):
        response = post(client, key, {"model": "sum", "instances": INSTANCES})

    assert response.status_code == 202


@pytest.mark.parametrize(
    ("body", "status", "code", "problem"),
    [
        ("", 400, "INVALID_JSON", None),
        ("{", 400, "INVALID_JSON", None),
        ('{"model": "sum", "instances": [NaN]}', 400, "INVALID_JSON", None),
        ("[]", 400, "INVALID_INPUT", None),
        (
            {"instances": INSTANCES},
            400,
            "INVALID_INPUT",
            ("model", "must be the name of a model"),
        ),
        (
            {"model": "sum"},
            400,
            "INVALID_INPUT",
            ("instances", "is required, unless a file is sent"),
        ),
        (
            {"model": "sum", "instances": []},
            400,
            "INVALID_INPUT",
            ("instances", "must be a list with at least one instance"),
        ),
        (
            {"model": "sum", "instances": {"a": 1}},
            400,
            "INVALID_INPUT",
            ("instances", "must be a list with at least one instance"),
        ),
        (
            {"model": "sum", "instances": "x"},
            400,
            "INVALID_INPUT",
            ("instances", "must be a list with at least one instance"),
        ),
        (
            {"model": "sum", "instances": INSTANCES, "inputs": INSTANCES},
            400,
            "INVALID_INPUT",
            ("inputs", "is another name of instances; send one of them"),
        ),
        (
            {"model": "sum", "instances": INSTANCES, "colour": 1},
            400,
            "INVALID_INPUT",
            ("colour", "is not a member of a job"),
        ),
        (
            {"model": "sum", "instances": INSTANCES, "options": {"top_k": 0}},
            400,
            "INVALID_INPUT",
            ("options.top_k", "must be an integer from 1 to 1000"),
        ),
        (
            {"model": "sum", "instances": INSTANCES, "version": [1]},
            400,
            "INVALID_INPUT",
            ("version", "must be a number or an alias"),
        ),
        (
            {"model": "sum", "instances": INSTANCES, "version": "9"},
            404,
            "NOT_FOUND",
            None,
        ),
        ({"model": "other", "instances": INSTANCES}, 404, "NOT_FOUND", None),
    ],
)
def test_bad_json_is_refused_with_the_field_named(
    client, key, body, status, code, problem
):
    response = post(client, key, body)

    assert (response.status_code, error_of(response)["code"]) == (status, code)
    if problem:
        assert problem in problems(response)
    assert no_job_is_left()


def test_a_wrong_header_is_refused_with_the_column_named(client, key):
    response = upload(client, key, "a,c\n1,2\n")

    assert response.status_code == 400
    assert problems(response) == {
        ("c", "is not a column of the model"),
        ("b", "is missing"),
    }
    assert no_job_is_left()


@pytest.mark.parametrize("content", ["", "a,b\n", "\n\n"])
def test_a_file_without_rows_is_refused(client, key, content):
    response = upload(client, key, content)

    assert (response.status_code, error_of(response)["code"]) == (400, "INVALID_INPUT")
    assert no_job_is_left()


def test_other_files_are_refused(client, key):
    response = upload(client, key, b"PK", name="rows.xlsx", kind="application/zip")

    assert response.status_code == 415
    assert no_job_is_left()


def test_a_form_without_a_file_is_refused(client, key):
    response = client.post(URL, {"model": "sum", "file": "rows.csv"}, **headers(key))

    assert response.status_code == 400
    assert ("file", "is required, as a file") in problems(response)


def test_options_of_a_form_must_be_json(client, key):
    response = upload(client, key, "a,b\n1,2\n", options="top_k=2")

    assert problems(response) == {("options", "must be an object")}
    assert no_job_is_left()


def test_another_media_type_is_refused(client, key):
    response = client.post(URL, "a", content_type="text/plain", **headers(key))

    assert response.status_code == 415


def test_more_rows_than_the_plan_allows_are_refused(client):
    plan = PlanFactory(max_job_rows=2)
    key = issue_key(CustomerFactory(plan=plan))

    for response in (
        post(client, key, {"model": "sum", "instances": [[1, 2]] * 3}),
        upload(client, key, "a,b\n" + "1,2\n" * 3),
    ):
        assert (response.status_code, error_of(response)["code"]) == (413, "TOO_LARGE")
    assert no_job_is_left()


def test_inputs_of_one_customer_leave_the_disk_to_others(
    client, settings, django_capture_on_commit_callbacks
):
    """Predictions record their usage on the same disk."""
    settings.JOB_FILE_MAX_BYTES = 100
    plan = PlanFactory(max_upload_bytes=200, burst_requests=1000)
    key, other = (issue_key(CustomerFactory(plan=plan)) for _ in range(2))
    content = "a,b\n" + "1,2\n" * 22

    accepted = [upload(client, key, content) for _ in range(2)]
    refused = upload(client, key, content)

    assert [response.status_code for response in accepted] == [202, 202]
    assert refused.status_code == 429
    error = error_of(refused)
    assert (error["code"], error["limit"]) == ("QUOTA_EXCEEDED", "max_upload_bytes")
    assert (error["used"], error["maximum"]) == (184, 200)
    assert len(list(settings.HOME.jobs.iterdir())) == 2
    assert upload(client, other, content).status_code == 202

    # The input of a cancelled job is deleted, that of a failed one is kept.
    first, second = (response.json()["id"] for response in accepted)
    PredictionJob.objects.filter(pk=second).update(
        status="failed", completed_at=timezone.now()
    )
    with django_capture_on_commit_callbacks(execute=True):
        client.post(f"{URL}/{first}/cancel", **headers(key))

    assert not (settings.HOME.jobs / first).exists()
    assert upload(client, key, content).status_code == 202
    assert upload(client, key, content).status_code == 429


def test_a_plan_without_uploads_has_room_for_one_job(client, settings):
    settings.JOB_FILE_MAX_BYTES = 100
    key = issue_key(CustomerFactory(plan=PlanFactory(max_upload_bytes=0)))

    assert upload(client, key, "a,b\n" + "1,2\n" * 22).status_code == 202


def test_a_file_that_is_too_large_is_refused(client, key, settings):
    settings.JOB_FILE_MAX_BYTES = 100_000

    declared = upload(client, key, "a,b\n" + "1,2\n" * 100_000)
    found = upload(client, key, "a,b\n" + "1,2\n" * 26_000)

    for response in (declared, found):
        assert (response.status_code, error_of(response)["code"]) == (413, "TOO_LARGE")
    assert no_job_is_left()


def test_a_json_body_that_is_too_large_is_refused(client, key):
    response = post(client, key, b" " * (negotiation.MAX_BODY_BYTES + 1))

    assert response.status_code == 413


def test_a_form_with_an_endless_field_is_refused(client, key):
    response = client.post(
        URL, {"model": "x" * 3_000_000, "file": io.BytesIO(b"")}, **headers(key)
    )

    assert (response.status_code, error_of(response)["code"]) == (413, "TOO_LARGE")


def test_nothing_published_yet_is_our_fault_and_passes(client, key):
    settings.HOME.snapshot.unlink()

    response = post(client, key, {"model": "sum", "instances": INSTANCES})

    assert response.status_code == 503
    assert "Retry-After" in response.headers


def test_a_model_that_is_not_served_yet_is_unavailable(client, key):

    write_snapshot(msgspec.structs.replace(sum_model(), variants=()))

    response = post(client, key, {"model": "sum", "instances": INSTANCES})

    assert error_of(response)["code"] == "MODEL_UNAVAILABLE"


def test_compressed_bodies_are_refused(client, key):
    response = post(
        client,
        key,
        {"model": "sum", "instances": INSTANCES},
        headers={"Content-Encoding": "gzip"},
    )

    assert response.status_code == 415
    assert error_of(response)["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert no_job_is_left()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("trouble", [full_disk, read_only_database])
def test_trouble_with_the_disk_or_the_database_is_told_in_words(
    client, key, monkeypatch, trouble
):
    client.raise_request_exception = False
    with trouble(monkeypatch):
        refused = post(client, key, {"model": "sum", "instances": INSTANCES})
    accepted = post(client, key, {"model": "sum", "instances": INSTANCES})

    assert (refused.status_code, accepted.status_code) == (503, 202)
    assert refused.headers["Retry-After"] == "5"
    assert error_of(refused)["code"] == "OVERLOADED"
    assert PredictionJob.objects.count() == 1


@pytest.mark.parametrize("version", [None, "3", "2"])
def test_who_submits_is_told_the_end_of_what_predicts(client, key, version):
    ending = Ending(999_960.0, 9e9, "Use sum2.")
    model = sum_model()
    ends = [
        msgspec.structs.replace(each, ending=ending if each.version == 2 else None)
        for each in model.versions
    ]
    write_snapshot(msgspec.structs.replace(model, versions=tuple(ends)))
    asked = {} if version is None else {"version": version}

    response = post(client, key, {"model": "sum", "instances": INSTANCES} | asked)

    assert response.status_code == 202
    told = response.headers.get("Deprecation")
    assert told == ("@999960" if version == "2" else None)
    assert (
        ("Sunset" in response.headers)
        == ("Link" in response.headers)
        == (version == "2")
    )


def test_who_submits_is_told_the_end_of_a_model(client, key):
    ending = Ending(999_960.0, 9e9, "Use sum2.")
    write_snapshot(msgspec.structs.replace(sum_model(), ending=ending))

    response = post(client, key, {"model": "sum", "instances": INSTANCES})

    assert response.headers["Deprecation"] == "@999960"
