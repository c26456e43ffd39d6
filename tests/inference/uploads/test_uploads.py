"""Uploads: who may send them, how large, for how long, and where they are stored."""

import hashlib
import io
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages
from django.utils import timezone

from inference.errors.api_error import ApiError
from inference.models import Upload
from inference.uploads import files
from tests.factories import CustomerFactory, issue_key

pytestmark = pytest.mark.django_db

ROWS = b"width,height\n1,2\n20,1\n"


@pytest.fixture(autouse=True)
def local_disk(home, settings):
    local = settings.STORAGES["uploads"]
    local = local | {"OPTIONS": {"location": str(home.uploads)}}
    settings.STORAGES = settings.STORAGES | {"uploads": local}


@pytest.fixture
def key():
    return issue_key(CustomerFactory())


def bearer(key):
    return {"authorization": f"Bearer {key.token}"}


def announce(client, key, **body):
    response = client.post(
        "/api/v1/uploads",
        {"content_type": "text/csv", **body},
        content_type="application/json",
        headers=bearer(key),
    )
    assert response.status_code == 201, response.content
    return response.json()


def send(client, announced, content=ROWS, *, content_type="text/csv", **changes):
    address = urlsplit(announced["upload_url"])
    return client.put(
        changes.get("url", f"{address.path}?{address.query}"),
        content,
        content_type=content_type,
    )


def code(response):
    return response.status_code, response.json()["error"]["code"]


def upload_of(announced):
    return Upload.objects.get(pk=announced["input_uri"].removeprefix("upload://"))


def test_a_file_is_announced_sent_and_kept(client, key):
    announced = announce(client, key)

    response = send(client, announced)

    assert response.status_code == 200
    assert response.json()["input_uri"] == announced["input_uri"]
    assert response.json()["sha256"] == hashlib.sha256(ROWS).hexdigest()
    assert response.json()["bytes"] == len(ROWS)
    assert files.read(upload_of(announced), max_bytes=100) == ROWS


@pytest.mark.parametrize(
    ("scopes", "status"),
    [(["predict"], 201), (["jobs"], 201), (["models:read", "usage"], 403)],
)
def test_uploading_needs_a_key_that_predicts_or_starts_jobs(client, scopes, status):
    key = issue_key(CustomerFactory(), scopes=scopes)

    response = client.post(
        "/api/v1/uploads", content_type="application/json", headers=bearer(key)
    )

    assert response.status_code == status
    assert client.post("/api/v1/uploads").status_code == 401


def test_a_plan_bounds_the_uploads_that_are_kept(client):
    customer = CustomerFactory(plan__max_uploads=2)
    key = issue_key(customer)
    first = announce(client, key)
    announce(client, key)

    refused = client.post(
        "/api/v1/uploads",
        {"content_type": "text/csv"},
        content_type="application/json",
        headers=bearer(key),
    )

    assert code(refused) == (429, "QUOTA_EXCEEDED")
    error = refused.json()["error"]
    assert (error["limit"], error["maximum"], error["used"]) == ("max_uploads", 2, 2)
    assert 0 < int(refused["Retry-After"]) <= 3600
    assert announce(client, issue_key(CustomerFactory(plan=customer.plan)))
    upload = upload_of(first)
    upload.expires_at = timezone.now() - timedelta(seconds=1)
    upload.save()
    assert announce(client, key)


def test_a_plan_bounds_the_bytes_of_all_uploads(client):
    key = issue_key(CustomerFactory(plan__max_upload_bytes=len(ROWS) + 10))
    first, second = announce(client, key), announce(client, key)
    assert send(client, first).status_code == 200

    refused = send(client, second)

    assert code(refused) == (429, "QUOTA_EXCEEDED")
    error = refused.json()["error"]
    assert (error["limit"], error["used"]) == ("max_upload_bytes", len(ROWS))
    assert error["needed"] == len(ROWS)
    assert second["max_bytes"] == len(ROWS) + 10
    assert send(client, second, ROWS[:10]).status_code == 200


def test_bytes_on_their_way_count_until_they_have_failed(client, home):
    key = issue_key(CustomerFactory(plan__max_upload_bytes=len(ROWS)))
    first, second = announce(client, key), announce(client, key)
    answers = []

    class Breaking(io.BytesIO):
        def read(self, size=-1):
            answers.append(code(send(client, second)))
            return b""

    with pytest.raises(ApiError, match="did not arrive as a whole"):
        files.receive(upload_of(first), Breaking(), length=len(ROWS))

    assert answers == [(429, "QUOTA_EXCEEDED")]
    assert send(client, second).status_code == 200


def test_the_signature_is_the_permission(client, key):
    announced = announce(client, key)
    url = announced["upload_url"].replace("http://127.0.0.1:8000", "")
    other = announce(client, key)

    for wrong in (
        url.partition("?")[0],
        url[:-1],
        url.partition("=")[0] + "=" + other["upload_url"].partition("=")[2],
        url.replace("upl_", "upl_0"),
    ):
        assert code(send(client, announced, url=wrong)) == (404, "NOT_FOUND")
    assert upload_of(announced).stored_at is None


def test_another_type_than_announced_is_refused(client, key):
    announced = announce(client, key)

    refused = send(client, announced, content_type="application/json")

    assert code(refused) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert send(client, announced, content_type="text/csv; a=b").status_code == 200


def test_files_of_unknown_types_are_not_announced(client, key):
    response = client.post(
        "/api/v1/uploads",
        {"content_type": "application/x-sh"},
        content_type="application/json",
        headers=bearer(key),
    )

    assert code(response) == (400, "INVALID_INPUT")


def test_a_file_beyond_its_bound_is_refused(client, key, settings):
    settings.UPLOAD_MAX_BYTES = 10
    announced = announce(client, key, max_bytes=5000)

    assert announced["max_bytes"] == 10
    assert code(send(client, announced)) == (413, "TOO_LARGE")


def test_what_breaks_off_is_not_kept_and_may_be_sent_again(client, key, home):
    announced = announce(client, key)
    upload = upload_of(announced)

    with pytest.raises(ApiError, match="did not arrive"):
        files.receive(upload, io.BytesIO(ROWS[:5]), length=len(ROWS))

    assert list(home.uploads.iterdir()) == []
    assert send(client, announced).status_code == 200


def test_a_stored_file_is_never_replaced(client, key):
    announced = announce(client, key)
    send(client, announced)

    assert code(send(client, announced, b"width,height\n9,9\n")) == (409, "CONFLICT")
    assert files.read(upload_of(announced), max_bytes=100) == ROWS


def test_gateways_learn_whose_a_signed_address_is(client, key):
    announced = announce(client, key)
    upload = upload_of(announced)
    url = f"/internal/uploads/{upload.pk}/owner"
    query = urlsplit(announced["upload_url"]).query

    own = client.get(f"{url}?{query}", REMOTE_ADDR="")
    wrong = client.get(f"{url}?signature=x", REMOTE_ADDR="")
    relayed = client.get(f"{url}?{query}", REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="x")

    assert own.json() == {"customer_id": upload.customer_id}
    assert (wrong.status_code, relayed.status_code) == (404, 404)


def test_the_address_expires(client, key):
    announced = announce(client, key)
    expire(announced)

    address = upload_of(announced)
    url = f"/api/v1/uploads/{address.pk}/content?signature={files.sign(address)}"
    assert code(send(client, announced, url=url)) == (410, "GONE")


def expire(announced):
    past = timezone.now() - timedelta(seconds=1)
    pk = announced["input_uri"].removeprefix("upload://")
    Upload.objects.filter(pk=pk).update(expires_at=past)


def test_other_customers_files_are_not_found(client, key):
    announced = announce(client, key)
    send(client, announced)
    upload = upload_of(announced)

    assert files.find(upload.pk, customer_id=upload.customer_id) == upload
    with pytest.raises(ApiError) as refused:
        files.find(upload.pk, customer_id=upload.customer_id + 1)
    assert refused.value.code == "NOT_FOUND"


def test_a_file_that_was_not_sent_yet_is_a_conflict(client, key):
    upload = upload_of(announce(client, key))

    with pytest.raises(ApiError) as refused:
        files.find(upload.pk, customer_id=upload.customer_id)

    assert refused.value.code == "CONFLICT"


def test_the_sweep_deletes_what_has_expired_and_nothing_else(client, key, home):
    old, new = announce(client, key), announce(client, key)
    for announced in (old, new):
        send(client, announced)
    expire(old)

    assert files.remove_expired(now=timezone.now()) == 1

    assert [path.name for path in home.uploads.iterdir()] == [upload_of(new).pk]
    with pytest.raises(ApiError) as refused:
        files.find(upload_of(old).pk, customer_id=upload_of(old).customer_id)
    assert refused.value.code == "GONE"


def test_what_is_known_of_an_upload_is_forgotten_in_the_end(client, key):
    announce(client, key)

    files.remove_expired(now=timezone.now() + timedelta(days=9))

    assert not Upload.objects.exists()


def test_gateways_read_a_customers_file_over_the_sites_socket(client, key, settings):
    announced = announce(client, key)
    send(client, announced)
    upload = upload_of(announced)
    url = f"/internal/uploads/{upload.pk}"
    own = {"customer": upload.customer_id, "max_bytes": 100}
    # A gateway sends no public host and uses plain HTTP.
    settings.ALLOWED_HOSTS = ["models.example.com"]
    settings.SECURE_SSL_REDIRECT = True

    response = client.get(url, own, REMOTE_ADDR="")

    assert response.getvalue() == ROWS
    assert response.headers["Content-Type"] == "text/csv"
    other = own | {"customer": upload.customer_id + 1}
    assert client.get(url, other, REMOTE_ADDR="").status_code == 404
    small = own | {"max_bytes": 3}
    assert client.get(url, small, REMOTE_ADDR="").status_code == 413
    # As a gateway relays calls from outside.
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.SECURE_SSL_REDIRECT = False
    assert client.get(url, own, HTTP_X_FORWARDED_FOR="1.2.3.4").status_code == 404


class ObjectStore(Storage):
    """Keep objects in memory under a prefix, without paths, like S3."""

    objects: dict[str, bytes] = {}

    def __init__(self, bucket="b"):
        self.bucket = bucket

    def _save(self, name, content):
        self.objects[f"{self.bucket}/{name}"] = b"".join(content.chunks())
        return name

    def _open(self, name, mode="rb"):
        try:
            return ContentFile(self.objects[f"{self.bucket}/{name}"])
        except KeyError:
            raise FileNotFoundError(name) from None

    def delete(self, name):
        self.objects.pop(f"{self.bucket}/{name}", None)

    def exists(self, name):
        return f"{self.bucket}/{name}" in self.objects

    def url(self, name):
        return f"https://store.example/{self.bucket}/{name}?signed"


def test_files_may_lie_in_an_object_store(client, key, settings, home):
    settings.STORAGES = settings.STORAGES | {
        "uploads": {
            "BACKEND": f"{__name__}.ObjectStore",
            "OPTIONS": {"bucket": "modelyard"},
        }
    }
    announced = announce(client, key)

    assert send(client, announced).status_code == 200

    upload = upload_of(announced)
    assert isinstance(storages["uploads"], ObjectStore)
    assert ObjectStore.objects == {f"modelyard/{upload.pk}": ROWS}
    assert b"".join(files.pieces(upload)) == ROWS
    assert list(home.uploads.iterdir()) == []
    expire(announced)
    files.remove_expired(now=timezone.now())
    assert ObjectStore.objects == {}


def announce_raw(client, key, body):
    return client.post(
        "/api/v1/uploads",
        body,
        content_type="application/json",
        headers=bearer(key),
    )


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"content_type":' + b"[" * 100_000, (400, "INVALID_JSON")),
        (b'{"content_type": "' + b"x" * 3_000_000 + b'"}', (413, "TOO_LARGE")),
        (b'{"content_type": NaN}', (400, "INVALID_JSON")),
        (b"[]", (400, "INVALID_INPUT")),
        (b'{"content_type": "text/csv\\u0000"}', (400, "INVALID_INPUT")),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_words(client, key, body, answer):
    assert code(announce_raw(client, key, body)) == answer


def test_what_was_sent_is_quoted_only_in_part(client, key):
    refused = announce_raw(client, key, b'{"content_type": "' + b"x" * 10_000 + b'"}')

    assert code(refused) == (400, "INVALID_INPUT")
    assert len(refused.content) < 1000


def test_what_is_no_id_of_an_upload_is_not_looked_for(client):
    """PostgreSQL would refuse to look it up."""
    refused = client.put("/api/v1/uploads/upl_%00/content?signature=x", b"")

    assert code(refused) == (404, "NOT_FOUND")
