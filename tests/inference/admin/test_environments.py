"""Environments in the admin: what it shows, and the action that builds one again."""

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse

from inference.models import ModelEnvironment
from tests.factories_registry import ModelVersionFactory

pytestmark = pytest.mark.django_db
LIST = reverse("admin:inference_modelenvironment_changelist")
DIGEST = "d" * 64


@pytest.fixture
def admin(client):
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def failed():
    return ModelEnvironment.objects.create(
        digest=DIGEST,
        python="3.11",
        requirements=["lightgbm==99", "msgspec", "numpy", "pandas"],
        state="failed",
        error="No matching distribution found for lightgbm==99",
        log="Collecting <lightgbm>",
        size_bytes=0,
    )


def page_of(row) -> str:
    return reverse("admin:inference_modelenvironment_change", args=[row.pk])


def build_again(client, row):
    url = reverse("admin:inference_modelenvironment_build_again", args=[row.pk])
    return client.post(url, {"_form_submitted": "on"}, follow=True)


def test_an_empty_list_says_where_its_rows_come_from(admin):
    assert "MODELYARD_ENVIRONMENTS" in admin.get(LIST).content.decode()


def test_the_list_shows_state_packages_and_use(
    admin, failed, django_assert_max_num_queries
):
    ModelVersionFactory.create_batch(3, environment=DIGEST)
    for number in range(10):
        ModelEnvironment.objects.create(digest=str(number) * 64, python="3.11")

    with django_assert_max_num_queries(25):
        page = admin.get(LIST).content.decode()

    assert "No matching distribution found for lightgbm==99" in page
    assert "lightgbm==99, msgspec, numpy +1" in page


def test_the_page_shows_requirements_log_and_versions(admin, failed):
    version = ModelVersionFactory(environment=DIGEST)
    waiting = ModelVersionFactory(environment_fit={"wanted": DIGEST})

    page = admin.get(page_of(failed)).content.decode()

    assert "Collecting &lt;lightgbm&gt;" in page
    assert str(version) in page
    assert str(waiting) in page
    assert "every 2s" not in page


def test_the_log_is_followed_while_it_grows(admin, failed):
    ModelEnvironment.objects.update(state="building")

    assert 'hx-trigger="every 2s"' in admin.get(page_of(failed)).content.decode()


def test_nobody_edits_an_environment(admin, failed):
    assert admin.post(page_of(failed), {}).status_code == 403
    add = reverse("admin:inference_modelenvironment_add")
    assert admin.get(add).status_code == 403


def test_a_failed_environment_is_built_again(admin, failed):
    page = build_again(admin, failed).content.decode()

    assert "is built soon" in page
    failed.refresh_from_db()
    assert (failed.state, failed.error) == ("waiting", "")
    assert "did not fail" in build_again(admin, failed).content.decode()


def test_only_operators_may_build_again(client, failed):
    reader = User.objects.create_user("reader", is_staff=True)
    reader.user_permissions.add(
        Permission.objects.get(codename="view_modelenvironment")
    )
    client.force_login(reader)

    assert client.get(page_of(failed)).status_code == 200
    assert build_again(client, failed).status_code == 403
    failed.refresh_from_db()
    assert failed.state == "failed"
