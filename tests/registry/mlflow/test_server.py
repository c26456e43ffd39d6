"""Against a real MLflow server: what is odd in it stops nothing else, and is said."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

import pytest
import yaml

from registry import sync
from registry.mlflow.client import MlflowRegistry
from registry.models import ModelVersion, RegisteredModel, RegistrySync, Route
from tests.registry.mlflow.test_client import MLMODEL

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # One server, which takes many seconds to start, is enough.
    pytest.mark.xdist_group("mlflow server"),
    pytest.mark.timeout(900),
]
# Seconds on a quiet machine, minutes on one that does much else.
STARTS_WITHIN_S = 600


class Server:
    """An MLflow server with its database and its artifacts in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.database = folder / "mlflow.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.database}"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, env=environment, cwd=folder
        )
        self._wait()

    def _wait(self):
        until = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.5)
        raise AssertionError((self.folder / "log").read_text())

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()

    @property
    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(self.url, self.url)

    def log_model(self, name):
        """Log an artifact, and return its run and its address."""
        client = self.client
        experiment = client.create_experiment(f"{name}-{uuid.uuid4().hex}")
        run = client.create_run(experiment, tags={"mlflow.user": "ada"})
        client.log_metric(run.info.run_id, "loss", 0.5)
        file = self.folder / "MLmodel"
        file.write_text(yaml.safe_dump(MLMODEL))
        client.log_artifact(run.info.run_id, str(file), "model")
        return run, f"{run.info.artifact_uri}/model"

    def register(self, name, count=1):
        """Register a model with `count` versions; the first is the champion."""
        client = self.client
        client.create_registered_model(name)
        for _ in range(count):
            run, source = self.log_model(name)
            client.create_model_version(name, source, run.info.run_id)
        client.set_registered_model_alias(name, "champion", "1")

    def execute(self, statement, *values):
        """Change MLflow's database behind its back."""
        with sqlite3.connect(self.database, timeout=30) as connection:
            assert connection.execute(statement, values).rowcount
        connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("mlflow-server"))
    yield server
    server.close()


@pytest.fixture
def name():
    return f"model-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def registry(server, home):
    return MlflowRegistry(server.url)


def version_of(name, number):
    return ModelVersion.objects.get(registered_model__name=name, version=number)


def assert_served(registry, name):
    """Synchronise, and check that this model arrives whole."""
    outcome = sync.synchronise(registry)

    assert outcome.error == ""
    assert RegistrySync.objects.get().error == ""
    found = version_of(name, 1)
    assert found.metrics == {"loss": 0.5}
    assert found.artifact_state == "ready"
    assert Route.objects.get(registered_model__name=name).default_version == found


def test_what_is_registered_arrives_with_its_run_and_artifact(server, registry, name):
    server.register(name)

    assert_served(registry, name)


def test_a_tag_of_ten_megabytes_is_cut(server, registry, name):
    server.register(f"{name}-large")
    client = server.client
    client.set_model_version_tag(f"{name}-large", "1", "notes", "short")
    client.set_registered_model_tag(f"{name}-large", "notes", "short")
    large = "x" * 10_000_000
    for table in ("model_version_tags", "registered_model_tags"):
        server.execute(
            f"UPDATE {table} SET value = ? WHERE name = ?",  # two names
            large,
            f"{name}-large",
        )
    server.register(name)

    assert_served(registry, name)

    large = version_of(f"{name}-large", 1)
    assert large.tags == {"notes": "x" * 5000 + "…"}
    assert large.registered_model.tags == {"notes": "x" * 5000 + "…"}


def test_an_artifact_that_is_gone_is_said_at_its_version(server, registry, name):
    server.register(f"{name}-gone")
    run = server.client.get_model_version(f"{name}-gone", "1").run_id
    [folder] = (server.folder / "artifacts").glob(f"*/{run}")
    shutil.rmtree(folder)
    server.register(name)

    assert_served(registry, name)

    [problem] = version_of(f"{name}-gone", 1).metadata_errors
    assert "has no MLmodel file" in problem


def test_a_run_that_is_gone_for_good_keeps_no_version_away(server, registry, name):
    server.register(f"{name}-gone")
    run = server.client.get_model_version(f"{name}-gone", "1").run_id
    server.execute("DELETE FROM metrics WHERE run_uuid = ?", run)
    server.execute("DELETE FROM latest_metrics WHERE run_uuid = ?", run)
    server.execute("DELETE FROM tags WHERE run_uuid = ?", run)
    server.execute("DELETE FROM runs WHERE run_uuid = ?", run)
    server.register(name)

    assert_served(registry, name)

    gone = version_of(f"{name}-gone", 1)
    assert gone.metrics == {}
    assert gone.artifact_state == "ready"


def test_a_version_that_is_deleted_while_it_is_the_default_stays_and_says_so(
    server, registry, name
):
    server.register(name, 2)
    assert_served(registry, name)
    digest = version_of(name, 1).artifact_digest

    server.client.delete_model_version(name, "1")
    assert sync.synchronise(registry).error == ""

    route = Route.objects.get(registered_model__name=name)
    assert route.default_version == version_of(name, 1)
    assert route.default_version.missing_since is not None
    # Its artifact is kept, so that it goes on answering.
    assert route.default_version.artifact_digest == digest
    assert RegisteredModel.objects.get(name=name).missing_since is None


def test_an_artifact_that_changes_under_its_version_does_not_change_what_is_served(
    server, registry, name
):
    server.register(name)
    assert_served(registry, name)
    digest = version_of(name, 1).artifact_digest
    run = server.client.get_model_version(name, "1").run_id
    [file] = (server.folder / "artifacts").glob(f"*/{run}/artifacts/model/MLmodel")

    file.write_text("flavors: {python_function: {}}")
    assert sync.synchronise(registry).error == ""

    found = version_of(name, 1)
    assert (found.artifact_digest, found.flavors) == (digest, ["pytorch"])


def test_versions_that_name_each_other_as_their_source_stop_nothing(
    server, registry, name
):
    circle = f"{name}-circle"
    server.register(circle, 2)
    server.client.set_registered_model_alias(circle, "next", "2")
    for number, other in ((1, "@next"), (2, "@champion")):
        server.execute(
            "UPDATE model_versions SET source = ?, storage_location = ? "
            "WHERE name = ? AND version = ?",
            f"models:/{circle}{other}",
            f"models:/{circle}{other}",
            circle,
            number,
        )
    server.register(name)

    assert_served(registry, name)

    for number in (1, 2):
        problems = version_of(circle, number).metadata_errors
        assert problems == ["Artifacts are not fetched over 'models'."]
