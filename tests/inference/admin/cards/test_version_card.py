"""A version's page says first what it is."""

import html
import re

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse

from inference.admin.cards import version_card
from registry.models import ModelVersion, RegistrySync
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import LoadedVersionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def words_of(client):
    """Return a function that opens a version's page and returns its words."""
    person = UserFactory(is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)

    def read(version):
        url = reverse("admin:registry_modelversion_change", args=[version.pk])
        page = html.unescape(client.get(url).content.decode())
        return " ".join(re.sub(r"<[^>]+>", " ", page).split())

    return read


def test_metrics_stand_beside_those_of_the_default(words_of):
    route = RouteFactory(default_version__metrics={"auc": 0.9, "loss": 0.5, "old": 1})
    version = ModelVersionFactory(
        registered_model=route.registered_model,
        metrics={"auc": 0.95, "loss": 0.25, "new": None},
    )

    text = words_of(version)

    default = route.default_version.version
    assert f"Metric v{version.version} Default v{default} Difference" in text
    assert "auc 0.95 0.9 +0.05 loss 0.25 0.5 −0.25 new – – – old – 1 –" in text


def test_equal_metrics_differ_by_nothing():
    (row,) = version_card.compare({"auc": 0.5}, {"auc": 0.5})

    assert row.difference == "0"


def test_the_default_is_compared_with_nothing(words_of):
    version = RouteFactory(default_version__metrics={"auc": 0.9}).default_version

    card = version_card.of(version)

    assert card.default is None
    assert card.serves == ["default of its route, 100 %"]
    assert "Difference " not in words_of(version)


def test_it_says_who_trained_it_and_how(words_of):
    RegistrySync.objects.update_or_create(
        pk=1, defaults={"tracking_uri": "https://mlflow.example.org/"}
    )
    version = ModelVersionFactory(
        registered_model__name="a b/ü",
        run_id="abc123",
        tags={"team": "risk", "mlflow.source": "x"},
        trained_by="ada",
        params={"depth": "3"},
        description="Trained on May.",
    )

    card, text = version_card.of(version), words_of(version)

    assert card.mlflow_url == (
        f"https://mlflow.example.org/#/models/a%20b%2F%C3%BC/versions/{version.version}"
    )
    assert card.tags == [("team", "risk")]
    for words in (
        "Trained on May.",
        "abc123, by ada Open in MLflow",
        "team: risk",
        "Parameters of its training run (1) depth 3",
    ):
        assert words in text


@pytest.mark.parametrize("uri", ["", "the local file mlflow.db", "databricks"])
def test_a_registry_without_pages_is_not_linked(uri):
    RegistrySync.objects.update_or_create(pk=1, defaults={"tracking_uri": uri})

    assert version_card.of(ModelVersionFactory()).mlflow_url == ""


def test_it_says_how_large_it_is_and_how_long_it_took_to_load(words_of, home):
    version = ModelVersionFactory()
    folder = home.artifacts / version.artifact_digest
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(b"x" * 1000)
    (folder / "data" / "model.pt2").write_bytes(b"x" * 1048)
    LoadedVersionFactory(of=version, load_ms=1234, memory_bytes=3 * 2**20)

    text = words_of(version)

    assert "Artifact 2.0 KB" in text.replace("\xa0", " ")
    assert "in 1,234 ms, 3.0 MB of memory" in text.replace("\xa0", " ")


def test_an_artifact_of_too_many_files_is_not_measured(home, monkeypatch):
    monkeypatch.setattr(version_card, "_MOST_FILES", 1)
    version = ModelVersionFactory()
    folder = home.artifacts / version.artifact_digest
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / name).write_bytes(b"x")

    assert version_card.of(version).artifact_bytes is None


def test_a_version_that_is_nowhere_says_so_and_why(words_of):
    version = ModelVersionFactory(
        artifact_state=ModelVersion.ArtifactState.FAILED,
        artifact_error="The store is down.",
        input_example=None,
        flavors=[],
    )

    text = words_of(version)

    assert "Serves nowhere" in text
    assert (
        "Artifact could not be fetched Loaded by no engine The store is down." in text
    )
    assert version_card.of(version).example == ""


def test_long_names_and_examples_are_cut(words_of):
    version = ModelVersionFactory(
        tags={"n" * 200: "v" * 5000}, input_example=[["x" * 3000]]
    )

    card = version_card.of(version)

    assert (len(card.example), card.example_is_cut) == (2000, True)
    assert "v" * 201 not in words_of(version).partition("As it was logged")[0]


def test_a_parameter_may_have_the_name_of_a_method(words_of):
    version = ModelVersionFactory(params={"items": "3", "keys": "all"})

    assert "items 3" in words_of(version)
