"""The admin shows engines and serving routes, and lets nobody edit them."""

import pytest
from django.urls import reverse

from inference.models import Engine, LoadedVersion, ServingRoute, SnapshotState
from registry.models import ModelVersion
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory

pytestmark = pytest.mark.django_db

MODELS = ["engine", "loadedversion", "servingroute", "snapshotstate"]


@pytest.fixture
def operator(client):
    client.force_login(UserFactory(is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def rows(db):
    engine = Engine.objects.create(
        name="cpu", address="/x", state="unreachable", error="the engine is not there"
    )
    return {
        "engine": engine,
        "loadedversion": LoadedVersion.objects.create(
            engine=engine, model="m", version=4, state="failed", error="skewed outputs"
        ),
        "servingroute": ServingRoute.objects.create(
            model="m", waiting_for="version 4 failed on engine cpu: skewed outputs"
        ),
        "snapshotstate": SnapshotState.objects.get_or_create(pk=1)[0],
    }


@pytest.mark.parametrize("model", MODELS)
def test_an_empty_list_says_where_its_rows_come_from(operator, model):
    answer = operator.get(reverse(f"admin:inference_{model}_changelist"))

    assert answer.status_code == 200
    assert b'<p class="mb-4' in answer.content


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("engine", "the engine is not there"),
        ("loadedversion", "skewed outputs"),
        ("servingroute", "version 4 failed on engine cpu"),
        ("snapshotstate", "0 of"),
    ],
)
def test_lists_show_what_is_wrong(operator, rows, model, says):
    answer = operator.get(reverse(f"admin:inference_{model}_changelist"))

    assert says in answer.content.decode()


def test_an_engine_shows_its_versions_and_their_errors(operator, rows):
    url = reverse("admin:inference_engine_change", args=[rows["engine"].pk])

    assert "skewed outputs" in operator.get(url).content.decode()


@pytest.mark.parametrize("model", MODELS)
def test_nothing_can_be_changed(operator, rows, model):
    change = reverse(f"admin:inference_{model}_change", args=[rows[model].pk])
    add = reverse(f"admin:inference_{model}_add")

    assert operator.get(change).status_code == 200
    assert operator.post(change, {}).status_code == 403
    assert operator.get(add).status_code == 403


def test_the_snapshot_names_the_versions_that_it_leaves_out_and_why(operator, rows):
    version = ModelVersionFactory(
        published=True, artifact_state=ModelVersion.ArtifactState.REMOTE
    )
    url = reverse("admin:inference_snapshotstate_change", args=[1])

    page = operator.get(url).content.decode()

    assert str(version) in page
    assert "its artifact is not in the local cache yet" in page


def test_an_engine_shows_its_device_and_how_its_versions_run(operator, rows):
    engine = rows["engine"]
    engine.device_title = "NVIDIA H200"
    engine.device_total_bytes, engine.device_used_bytes = 8 * 2**30, 2 * 2**30
    engine.save()
    rows["loadedversion"].notes = "precision bfloat16"
    rows["loadedversion"].save()

    url = reverse("admin:inference_engine_change", args=[engine.pk])
    page = operator.get(url).content.decode()

    assert "NVIDIA H200" in page
    assert "2.0\xa0GB of 8.0\xa0GB in use" in page
    assert "precision bfloat16" in page
