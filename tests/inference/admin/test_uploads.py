"""Uploads in the admin: what operators see; deleting a row deletes its file."""

import io
from datetime import timedelta

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Group
from django.core.files.storage import storages
from django.urls import reverse
from django.utils import timezone

from inference.models import Upload
from inference.uploads import files
from tests.factories import CustomerFactory, UserFactory

pytestmark = pytest.mark.django_db

LIST = "admin:inference_upload_changelist"
ROWS = b"width,height\n1,2\n"


@pytest.fixture(autouse=True)
def local_disk(home, settings):
    local = settings.STORAGES["uploads"]
    local = local | {"OPTIONS": {"location": str(home.uploads)}}
    settings.STORAGES = settings.STORAGES | {"uploads": local}


@pytest.fixture
def operator(client):
    sign_in(client, "operators")
    return client


def sign_in(client, group):
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name=group))
    client.force_login(person)


def stored(customer="Clinic"):
    owner = CustomerFactory.create(name=customer)
    announced = files.announce(owner, content_type="text/csv")
    return files.receive(announced, io.BytesIO(ROWS), length=len(ROWS))


def listed(client, **query):
    page = client.get(reverse(LIST), query)
    return {upload.pk for upload in page.context["cl"].result_list}


def test_owner_size_and_expiry_are_listed(operator):
    stored()

    page = operator.get(reverse(LIST)).content.decode()

    assert "Clinic" in page
    assert "17\N{NO-BREAK SPACE}bytes" in page
    assert "stored" in page


def test_the_list_is_filtered_by_state(operator):
    complete, old = stored(), stored("Old")
    Upload.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(1))
    awaited = files.announce(complete.customer, content_type="image/png")

    found = {
        state: listed(operator, state=state)
        for state in ("awaited", "stored", "expired")
    }

    assert found == {
        "awaited": {awaited.pk},
        "stored": {complete.pk},
        "expired": {old.pk},
    }


def test_deleting_one_takes_its_file_along(operator):
    upload = stored()

    operator.post(
        reverse("admin:inference_upload_delete", args=[quote(upload.pk)]),
        {"post": "yes"},
    )

    assert not Upload.objects.exists()
    assert not storages["uploads"].exists(upload.file)


def test_deleting_many_takes_their_files_along(operator):
    uploads = [stored("A"), stored("B")]

    operator.post(
        reverse(LIST),
        {
            "action": "delete_selected",
            "_selected_action": [upload.pk for upload in uploads],
            "post": "yes",
        },
    )

    assert not Upload.objects.exists()
    assert not any(storages["uploads"].exists(upload.file) for upload in uploads)


def test_nothing_of_an_upload_is_edited_or_added(operator):
    upload = stored()
    url = reverse("admin:inference_upload_change", args=[quote(upload.pk)])

    page = operator.get(url)
    operator.post(url, {"content_type": "image/png"})

    assert page.status_code == 200
    assert 'name="content_type"' not in page.content.decode()
    assert Upload.objects.get().content_type == "text/csv"
    assert operator.get(reverse("admin:inference_upload_add")).status_code == 403


@pytest.mark.parametrize(
    ("group", "status"), [("data scientists", 200), ("account managers", 403)]
)
def test_only_operators_delete(client, group, status):
    upload = stored()
    sign_in(client, group)

    deleted = client.post(
        reverse("admin:inference_upload_delete", args=[quote(upload.pk)]),
        {"post": "yes"},
    )

    assert client.get(reverse(LIST)).status_code == status
    assert deleted.status_code == 403
    assert storages["uploads"].exists(upload.file)
