"""Outputs fetched by a signed address instead of a key."""

from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.utils import timezone

from inference.jobs.api import links
from inference.models import PredictionJob
from tests.factories import CustomerFactory, issue_key
from tests.inference.jobs.api.test_views import call, code_of, completed_job, own_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]


@pytest.fixture
def key():
    return issue_key()


def link_to(client, key, job):
    response = call(client, key, "post", f"/{job.pk}/result/link")
    assert response.status_code == 201, response.content
    address = urlsplit(response.json()["url"])
    return f"{address.path}?{address.query}"


def test_whoever_has_the_link_fetches_the_output(client, key):
    job = completed_job(key)

    link = link_to(client, key, job)

    plain = client.get(link)
    assert plain.status_code == 200
    assert b"2.5" in plain.getvalue()
    assert b"index,prediction" in client.get(f"{link}&format=csv").getvalue()


def test_a_link_opens_nothing_else(client, key):
    job, other = completed_job(key), completed_job(key)
    link = link_to(client, key, job)
    query = link.partition("?")[2]

    assert client.get(link.replace(job.pk, other.pk)).status_code == 404
    assert client.get(f"/api/v1/jobs/{job.pk}?{query}").status_code == 401
    assert client.get(f"/api/v1/jobs/{job.pk}/errors?{query}").status_code == 401
    cancel = client.post(f"/api/v1/jobs/{job.pk}/cancel?{query}")
    assert cancel.status_code == 401
    again = client.post(f"/api/v1/jobs/{job.pk}/result/link?{query}")
    assert again.status_code == 401


@pytest.mark.parametrize(
    "query",
    [
        "signature=",
        "signature=x&expires=9999999999",
        "signature=é&expires=x",
        "expires=1&signature=%00",
    ],
)
def test_a_wrong_signature_finds_nothing(client, key, query):
    job = completed_job(key)

    response = client.get(f"/api/v1/jobs/{job.pk}/result?{query}")

    assert (response.status_code, code_of(response)) == (404, "NOT_FOUND")


def test_the_expiry_cannot_be_moved(client, key):
    link = link_to(client, key, completed_job(key))
    expires = link.partition("expires=")[2].partition("&")[0]

    later = link.replace(expires, str(int(expires) + 1))

    assert client.get(later).status_code == 404


def test_a_link_expires(client, key):
    job = completed_job(key)
    past = timezone.now() - timedelta(seconds=1)

    response = client.get(
        f"/api/v1/jobs/{job.pk}/result?{links.query(job.pk, expires_at=past)}"
    )

    assert (response.status_code, code_of(response)) == (410, "GONE")


def test_links_are_for_finished_jobs_of_ones_own(client, key):
    stranger = issue_key(CustomerFactory())
    pending = own_job(key, status=PredictionJob.Status.PENDING)
    done = completed_job(key)

    assert call(client, key, "post", f"/{pending.pk}/result/link").status_code == 409
    path = f"/{done.pk}/result/link"
    assert call(client, stranger, "post", path).status_code == 404
