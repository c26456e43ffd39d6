"""A data scientist tries a version out in the admin."""

import html
import json
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from accounts.models import ApiKey
from registry.models import ModelVersion
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import LoadedVersionFactory, ServingRouteFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def scientist(client):
    person = UserFactory(username="grace", is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return person


@pytest.fixture
def loaded(publish):
    """Return a function that makes a published version, loaded by an engine."""

    def make(**facts):
        version = ModelVersionFactory(published=True, **facts)
        LoadedVersionFactory(of=version)
        publish()
        return version

    return make


def url(version, page="try"):
    return reverse(f"admin:registry_modelversion_{page}", args=[version.pk])


def text_of(client, version):
    return html.unescape(client.get(url(version)).content.decode())


def data_of(text):
    found = re.search(r'<script id="try-data"[^>]*>(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def upload(client, version, content, name="rows.csv"):
    file = SimpleUploadedFile(name, content.encode())
    answer = client.post(url(version, "try_rows"), {"file": file})
    return answer.status_code, answer.json()


def test_the_page_of_a_version_leads_there(client, scientist, loaded):
    version = loaded()

    page = client.get(
        reverse("admin:registry_modelversion_change", args=[version.pk])
    ).content.decode()
    address = reverse("admin:registry_modelversion_try_it", args=[version.pk])

    assert address in page
    assert client.get(address).url == url(version)


def test_the_form_is_filled_with_the_logged_example(client, scientist, loaded):
    version = loaded(
        input_example=[{"width": 1.5, "height": 2.0}, {"width": 3.0, "height": 4.0}]
    )

    text = text_of(client, version)

    assert 'data-name="width"' in text
    assert 'value="1.5"' in text
    assert "the logged example (2 rows)" in text
    data = data_of(text)
    assert data["version"] == str(version.version)
    assert data["example"] == version.input_example
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("example", [None, [], [{"other": 1}], "text", [[1, 2, 3]]])
def test_without_a_good_example_values_are_made_up(client, scientist, loaded, example):
    text = text_of(client, loaded(input_example=example))

    assert "the values are made up" in text
    assert "the logged example" not in text
    assert data_of(text)["example"] == [{"width": 1, "height": 1}]


def test_of_five_hundred_columns_most_are_one_click_away(client, scientist, loaded):
    names = [f"column {number}" for number in range(499)] + ["n" * 200]
    version = loaded(
        signature={
            "inputs": [{"type": "double", "name": n, "required": True} for n in names],
            "outputs": [{"type": "double"}],
        },
        metadata={"task": "regression"},
        input_example=[dict.fromkeys(names, 1.0)],
    )

    text = text_of(client, version)

    assert "488 more columns" in text
    assert text.count("data-name=") == 500
    assert f'data-name="{names[-1]}"' in text
    assert len(set(re.findall(r'id="(field-[^"]+)"', text))) == 500


def test_the_default_is_beside_it_and_other_versions_can_be_chosen(
    client, scientist, publish
):
    route = RouteFactory(with_canary=True)
    for version in (route.default_version, route.canary_version):
        LoadedVersionFactory(of=version)
    ServingRouteFactory(of=route)
    publish()
    default, canary = route.default_version.version, route.canary_version.version

    of_canary, of_default = (
        text_of(client, version)
        for version in (route.canary_version, route.default_version)
    )

    assert f'<option value="{default}" selected>v{default}, default</option>' in (
        of_canary
    )
    assert f'<option value="{canary}">v{canary}, canary</option>' in of_default


def test_a_version_that_is_not_called_for_can_be_published(client, scientist):
    version = ModelVersionFactory()

    before = text_of(client, version)
    after = client.post(url(version), follow=True).content.decode()

    assert "It cannot be called now" in before
    assert "not called for" in before
    assert ">Publish" in re.sub(r"\s+", "", before)
    assert "is published. This page changes by itself" in after
    assert ModelVersion.objects.get(pk=version.pk).published
    said = LogEntry.objects.get(object_id=str(version.pk))
    assert said.user == scientist
    assert "can be called by its number" in said.change_message


def test_a_page_that_waits_is_loaded_again_once_it_answers(client, scientist, loaded):
    waiting, version = ModelVersionFactory(), loaded()
    asked = {"HX-Request": "true"}

    assert "HX-Refresh" not in client.get(url(waiting), headers=asked)
    assert client.get(url(version), headers=asked)["HX-Refresh"] == "true"
    assert "HX-Refresh" not in client.get(url(version))


def test_who_may_not_change_routes_cannot_publish(client):
    person = UserFactory(is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_modelversion"))
    client.force_login(person)
    version = ModelVersionFactory()

    assert "Somebody who may change routes" in text_of(client, version)
    assert client.post(url(version)).status_code == 403
    assert not ModelVersion.objects.get(pk=version.pk).published


def test_who_may_not_see_versions_cannot_try_them(client, loaded):
    version = loaded()
    client.force_login(UserFactory(is_staff=True))

    assert client.get(url(version)).status_code in (403, 404)
    assert client.post(url(version, "try_rows")).status_code in (403, 404)


def test_a_version_that_is_gone_is_not_found(client, scientist):
    for address in ("999", "abc"):
        path = reverse("admin:registry_modelversion_try", args=[address])
        assert client.get(path).status_code == 404


def test_rows_of_a_file_become_instances(client, scientist, loaded):
    status, answer = upload(client, loaded(), "height,width\n2,1\n4,3.5\n")

    assert status == 200
    assert answer["instances"] == [
        {"height": 2.0, "width": 1.0},
        {"height": 4.0, "width": 3.5},
    ]


@pytest.mark.parametrize(
    ("content", "problem", "details"),
    [
        ("", "The file is empty.", ["`file` is empty"]),
        ("width,height\n", "The file has a header, and no rows.", []),
        ("width\n1\n", "The header does not fit the model.", ["`height` is missing"]),
        ("width,height\n1\n", "Row 1 has 1 cells, the header has 2.", []),
        (
            "width,height\n" + "1,2\n" * 1001,
            "The file has more than 1,000 rows.",
            [],
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    client, scientist, loaded, content, problem, details
):
    status, answer = upload(client, loaded(), content)

    assert status == 422
    assert answer == {"problem": problem, "details": details}


def test_a_thousand_rows_are_taken(client, scientist, loaded):
    status, answer = upload(client, loaded(), "width,height\n" + "1,2\n" * 1000)

    assert (status, len(answer["instances"])) == (200, 1000)


def test_too_large_and_missing_files_are_refused(client, scientist, loaded):
    version = loaded()

    large = upload(client, version, "width,height\n" + "1,2\n" * 1_400_000)
    missing = client.post(url(version, "try_rows"))
    gone = upload(client, ModelVersionFactory(), "width,height\n1,2\n")

    assert (large[0], large[1]["problem"]) == (422, "The file is larger than 5 MiB.")
    assert missing.json()["problem"] == "Choose a file."
    assert gone[1]["problem"] == "This version cannot be called any more."
