"""Against a real MLflow store in SQLite; only the model itself is a made-up file."""

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from registry import sync
from registry.mlflow.client import MlflowRegistry, shown_uri
from registry.mlflow.types import ArtifactRefused, RegistryUnreachable, Training
from registry.models import ModelVersion

# One process makes the store, which takes seconds, for all of them.
pytestmark = pytest.mark.xdist_group("mlflow store")

TENSOR = '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]'
MLMODEL = {
    "flavors": {"pytorch": {}},
    "metadata": {"modelyard": {"task": "regression"}},
    "signature": {"inputs": TENSOR, "outputs": TENSOR, "params": None},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Register `iris` with two versions; the second has a champion's alias."""
    folder = tmp_path_factory.mktemp("mlflow")
    artifact = folder / "artifact"
    artifact.mkdir()
    (artifact / "MLmodel").write_text(yaml.safe_dump(MLMODEL))
    (artifact / "serving_input_example.json").write_text('{"inputs": [[1, 2]]}')
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with warnings.catch_warnings():
        # MLflow itself warns while it creates its tables.
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        client = MlflowClient(uri, uri)
        experiment = client.create_experiment("e", folder.as_uri())
        run = client.create_run(experiment, tags={"mlflow.user": "ada"})
        client.log_param(run.info.run_id, "depth", 3)
        client.log_param(run.info.run_id, "long", "x" * 600)
        for number in range(100):
            client.log_param(run.info.run_id, f"more-{number}", number)
        client.log_metric(run.info.run_id, "accuracy", 0.9)
        client.log_metric(run.info.run_id, "loss", float("nan"))
        client.log_metric(run.info.run_id, "system/cpu", 1.0)
        client.create_registered_model("iris", tags={"team": "botany"})
        for number in (1, 2):
            client.create_model_version(
                "iris",
                artifact.as_uri(),
                run.info.run_id,
                tags={"n": str(number)},
                description=f"number {number}",
            )
        client.set_registered_model_alias("iris", "champion", "2")
    return uri


@pytest.fixture
def registry(store):
    return MlflowRegistry(store)


def test_models_come_with_versions_aliases_and_tags(registry):
    (model,) = registry.models()

    assert (model.name, model.tags) == ("iris", {"team": "botany"})
    assert model.aliases["champion"] == 2
    versions = {version.version: version for version in model.versions}
    assert set(versions) == {1, 2}
    assert versions[1].description == "number 1"
    assert versions[1].tags == {"n": "1"}
    assert versions[1].status == "READY"


def test_an_alias_is_moved(registry):
    registry.set_alias("iris", "challenger", 1)
    registry.set_alias("iris", "challenger", 2)

    [model] = registry.models()
    assert model.aliases == {"champion": 2, "challenger": 2}
    with pytest.raises(RegistryUnreachable, match="move the alias champion of iris"):
        registry.set_alias("iris", "champion", 9)
    assert registry.models()[0].aliases["champion"] == 2


def test_requirements_are_read_beside_the_model(registry, store):
    folder = Path(store.removeprefix("sqlite:///")).parent / "artifact"
    mlmodel = MLMODEL | {"flavors": {"python_function": {"python_version": "3.11.7"}}}
    (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    (folder / "requirements.txt").write_text("scikit-learn==1.5.2\n")
    (folder / "conda.yaml").write_text("dependencies: [python=3.9]\n")

    file = registry.model_file("iris", 1)

    assert file.requirements == ("scikit-learn==1.5.2",)
    assert file.python == "3.11.7"
    (folder / "MLmodel").write_text(yaml.safe_dump(MLMODEL))
    (folder / "requirements.txt").unlink()
    (folder / "conda.yaml").unlink()


def test_metrics_are_those_of_the_run_without_the_systems(registry):
    (model,) = registry.models()

    training = registry.training("iris", model.versions[0])

    assert training.metrics == {"accuracy": 0.9, "loss": None}


def test_parameters_and_person_are_those_of_the_run_within_bounds(registry):
    (model,) = registry.models()

    training = registry.training("iris", model.versions[0])

    assert training.user == "ada"
    assert training.params["depth"] == "3"
    assert training.params["long"] == "x" * 500
    assert len(training.params) == 100


def test_a_version_without_a_run_has_no_training(registry):
    (model,) = registry.models()

    training = registry.training("iris", replace(model.versions[0], run_id=""))

    assert training == Training(metrics={}, params={}, user="")


def test_a_description_is_read_without_loading_the_model(registry):
    read = registry.model_file("iris", 1)

    assert read.flavors == ("pytorch",)
    assert read.metadata == {"task": "regression"}
    assert read.input_example == [[1, 2]]


def test_an_artifact_is_copied(registry, tmp_path):
    registry.download("iris", 2, into=tmp_path, max_bytes=10_000)

    assert {path.name for path in tmp_path.iterdir()} == {
        "MLmodel",
        "serving_input_example.json",
    }


def test_an_artifact_over_the_limit_is_refused(registry, tmp_path):
    with pytest.raises(ArtifactRefused, match="larger"):
        registry.download("iris", 2, into=tmp_path, max_bytes=10)


def test_an_unknown_version_is_told(registry):
    with pytest.raises(RegistryUnreachable, match="RESOURCE_DOES_NOT_EXIST"):
        registry.model_file("iris", 9)


def test_an_absent_store_is_told_and_not_created(tmp_path):
    database = tmp_path / "mlflow.db"

    with pytest.raises(RegistryUnreachable, match="no MLflow store at"):
        MlflowRegistry(f"sqlite:///{database}").models()

    assert not database.exists()


def test_an_unreachable_server_is_told_without_its_credentials(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = MlflowRegistry("http://grace:secret@127.0.0.1:9/mlflow?token=hidden")

    with pytest.raises(RegistryUnreachable) as caught:
        registry.models()

    text = str(caught.value)
    assert "http://127.0.0.1:9/mlflow" in text
    assert not any(word in text for word in ("grace", "secret", "hidden"))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://u:p@db:5432/mlflow?sslkey=x", "postgresql://db:5432/mlflow"),
        ("sqlite:////srv/mlflow.db", "the local file mlflow.db"),
        ("https://mlflow.example.org", "https://mlflow.example.org"),
        ("./mlruns", "./mlruns"),
    ],
)
def test_a_shown_uri_has_no_secrets_and_no_folders(uri, shown):
    assert shown_uri(uri) == shown


def test_web_processes_do_not_import_mlflow():
    code = (
        "import django, sys; django.setup();"
        "import registry.admin, registry.tasks, registry.sync;"
        "from django.urls import reverse; reverse('admin:index');"
        "print([name for name in ('mlflow', 'torch') if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_nothing_comes_that_a_database_cannot_store(store, tmp_path):
    """PostgreSQL refuses NUL in text and in JSON; SQLite and MLflow take it."""
    from mlflow import MlflowClient

    path = shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    uri = f"sqlite:///{path}"
    client = MlflowClient(uri, uri)
    client.delete_registered_model("iris")
    client.create_registered_model("bad\0name")
    client.create_registered_model("a", tags={"k": "\0v"}, description="d\0")
    client.create_model_version(
        "a", f"{tmp_path.as_uri()}/m\0", "", tags={"t": "\0"}, description="\0e"
    )

    (model,) = MlflowRegistry(uri).models()

    (version,) = model.versions
    assert (model.name, model.description, model.tags) == ("a", "d", {"k": "v"})
    assert (version.description, version.tags) == ("e", {"t": ""})
    assert version.source == f"{tmp_path.as_uri()}/m"


@pytest.mark.django_db
def test_a_model_registered_anew_from_the_same_place_is_another(
    store, registry, settings, tmp_path
):
    from mlflow import MlflowClient

    settings.HOME = type(settings.HOME)(tmp_path)
    settings.HOME.artifacts.mkdir()
    settings.HOME.run.mkdir()
    folder = tmp_path / "model"
    folder.mkdir()
    client = MlflowClient(store, store)

    def register(name):
        column = f'[{{"type": "double", "name": "{name}"}}]'
        mlmodel = MLMODEL | {"signature": {"inputs": column}}
        (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel))
        client.create_registered_model("again")
        client.create_model_version("again", folder.as_uri())
        client.set_registered_model_alias("again", "champion", "1")
        sync.synchronise(registry)
        return ModelVersion.objects.get(registered_model__name="again")

    first = register("old")
    client.delete_registered_model("again")
    second = register("new")
    client.delete_registered_model("again")

    assert (first.pk, first.version) == (second.pk, second.version)
    assert first.source == second.source
    assert second.signature["inputs"][0]["name"] == "new"
    assert second.artifact_state == "ready"
    assert second.artifact_digest != first.artifact_digest
