"""Jobs whose rows were uploaded before."""

import io
import json
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from inference.codecs.files import uploaded as uris
from inference.jobs import files as job_files
from inference.models import PredictionJob, Upload
from inference.uploads import files
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.factories_jobs import write_snapshot

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]

ROWS = b"a,b\n1,2\n3,4\n"


@pytest.fixture(autouse=True)
def installation(home, settings):
    write_snapshot()
    local = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(home.uploads)},
    }
    settings.STORAGES = settings.STORAGES | {"uploads": local}


@pytest.fixture
def key():
    return issue_key(CustomerFactory(plan=PlanFactory(burst_requests=1000)))


def uploaded(key, content=ROWS, kind="text/csv"):
    upload = files.announce(key.key.customer, content_type=kind)
    return files.receive(upload, io.BytesIO(content), length=len(content))


def submit(client, key, upload, **body):
    uri = upload if isinstance(upload, str) else uris.write(upload.pk)
    return client.post(
        "/api/v1/jobs",
        json.dumps({"model": "sum", "input_uri": uri, **body}),
        content_type="application/json",
        headers={"authorization": f"Bearer {key.token}"},
    )


def code(response):
    return response.status_code, response.json()["error"]["code"]


def input_of(response):
    job = PredictionJob.objects.get(pk=response.json()["id"])
    with job_files.open_input(job) as file:
        return job, file.read()


@pytest.mark.parametrize(
    ("content", "kind", "input_format"),
    [
        (ROWS, "text/csv", "csv"),
        (b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n', "application/jsonl", "json"),
    ],
)
def test_an_uploaded_file_starts_a_job(client, key, content, kind, input_format):
    response = submit(client, key, uploaded(key, content, kind))

    assert response.status_code == 202, response.content
    assert response.json()["progress"]["rows_total"] == 2
    job, found = input_of(response)
    assert (found, job.input_format) == (content, input_format)


def test_the_job_outlives_the_upload(client, key):
    response = submit(client, key, uploaded(key))
    Upload.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert files.remove_expired(now=timezone.now()) == 1

    assert input_of(response)[1] == ROWS


def test_one_upload_starts_several_jobs(client, key):
    upload = uploaded(key)

    first, second = submit(client, key, upload), submit(client, key, upload)

    job_files.remove(first.json()["id"])
    assert input_of(second)[1] == ROWS
    assert files.read(upload, max_bytes=100) == ROWS


def test_files_of_object_stores_are_copied(client, key, settings):
    upload = uploaded(key)
    local = settings.STORAGES["uploads"]
    settings.STORAGES = settings.STORAGES | {
        "uploads": local | {"BACKEND": f"{__name__}.CopyOnly"}
    }

    assert input_of(submit(client, key, upload))[1] == ROWS


class CopyOnly(FileSystemStorage):
    """Open files, but have no paths."""

    def path(self, name):
        raise NotImplementedError

    def _open(self, name, mode="rb"):
        return (django_settings.HOME.uploads / name).open(mode)


def test_other_customers_uploads_are_not_found(client, key):
    other = issue_key(CustomerFactory(plan=PlanFactory(burst_requests=1000)))

    assert code(submit(client, other, uploaded(key))) == (404, "NOT_FOUND")


def test_expired_and_unsent_files_are_refused(client, key):
    unsent = files.announce(key.key.customer, content_type="text/csv")
    expired = uploaded(key)
    Upload.objects.filter(pk=expired.pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )

    assert code(submit(client, key, unsent)) == (409, "CONFLICT")
    assert code(submit(client, key, expired)) == (410, "GONE")
    assert not PredictionJob.objects.exists()


@pytest.mark.parametrize(
    ("uri", "more"),
    [("file:///etc/passwd", {}), (5, {}), (None, {}), ("", {}), (..., {"inputs": [1]})],
)
def test_wrong_uris_are_refused(client, key, uri, more):
    if uri is ...:
        uri = uris.write(uploaded(key).pk)

    response = submit(client, key, "", **{"input_uri": uri}, **more)

    assert code(response) == (400, "INVALID_INPUT")


def test_jobs_do_not_read_pictures(client, key):
    response = submit(client, key, uploaded(key, b"\x89PNG", "image/png"))

    assert code(response) == (415, "UNSUPPORTED_MEDIA_TYPE")
