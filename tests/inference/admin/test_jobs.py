"""Jobs in the admin: what it shows, and its two actions."""

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse
from django.utils import timezone

from inference.models import PredictionJob
from tests.factories_jobs import make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]

Status = PredictionJob.Status
LIST = "admin:inference_predictionjob_changelist"


@pytest.fixture
def admin(client):
    client.force_login(User.objects.create_superuser("root"))
    return client


def act(client, action, *jobs):
    return client.post(
        reverse(LIST),
        {"action": action, "_selected_action": [job.pk for job in jobs]},
        follow=True,
    )


def status_of(job):
    return PredictionJob.objects.get(pk=job.pk).status


def test_jobs_are_listed_with_progress_and_status(admin):
    make_job(status=Status.PROCESSING, rows_total=1000, rows_done=450)
    make_job(status=Status.FAILED, attempts=3, error_code="INTERNAL_ERROR")
    make_job(waiting_since=timezone.now())

    page = admin.get(reverse(LIST)).content.decode()

    assert 'aria-valuenow="45"' in page
    assert "450 of 1,000" in page
    assert "quarantined" in page
    assert "Has waited for an engine" in page


def test_a_job_can_be_looked_at_and_not_edited(admin):
    job = make_job(options={"top_k": 2})
    url = reverse("admin:inference_predictionjob_change", args=[job.pk])

    page = admin.get(url)

    assert page.status_code == 200
    assert 'name="rows_done"' not in page.content.decode()
    assert admin.get(reverse("admin:inference_predictionjob_add")).status_code == 403


def test_cancel_stops_the_unfinished_and_tells_of_the_others(admin):
    running, done = make_job(status=Status.PROCESSING), make_job(status="completed")

    page = act(admin, "cancel_jobs", running, done).content.decode()

    assert status_of(running) == Status.CANCELLED
    assert status_of(done) == Status.COMPLETED
    assert "1 job cancelled" in page
    assert "1 job was left alone" in page


def test_retry_revives_only_the_failed(admin):
    failed, cancelled = (
        make_job(status="failed", attempts=3),
        make_job(status="cancelled"),
    )

    act(admin, "retry_jobs", failed, cancelled)

    assert status_of(failed) == Status.PENDING
    assert status_of(cancelled) == Status.CANCELLED


def test_who_may_only_view_cannot_act(client):
    person = User.objects.create_user("viewer", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_predictionjob"))
    client.force_login(person)
    job = make_job()

    assert client.get(reverse(LIST)).status_code == 200
    act(client, "cancel_jobs", job)

    assert status_of(job) == Status.PENDING


def test_the_list_costs_as_many_queries_for_many_jobs(
    admin, django_assert_max_num_queries
):
    for _ in range(10):
        make_job()

    with django_assert_max_num_queries(15):
        admin.get(reverse(LIST))
