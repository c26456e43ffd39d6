import contextlib
import itertools
import time
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from registry import artifacts, sync_run
from registry.models import RegistrySync
from registry.tasks import fetch_artifact, sync_registry
from tests.factories_registry import ModelVersionFactory, RegisteredModelFactory
from tests.fakes import FakeMlflow

pytestmark = pytest.mark.django_db


@pytest.fixture
def mlflow(monkeypatch):
    mlflow = FakeMlflow()
    mlflow.add("iris", 1, 2, aliases={"champion": 1})
    monkeypatch.setattr(artifacts, "connect", lambda: mlflow)
    return mlflow


def test_the_command_tells_what_it_found_and_changed(mlflow):
    out = StringIO()

    call_command("sync_registry", stdout=out)
    call_command("sync_registry", stdout=out)

    assert out.getvalue() == (
        "1 models with 2 versions in MLflow; changed: iris.\n"
        "1 models with 2 versions in MLflow; changed: nothing.\n"
    )


def test_the_command_waits_for_another_synchronisation(mlflow, monkeypatch):
    out = StringIO()
    held = contextlib.ExitStack()
    assert held.enter_context(sync_run.alone_here())
    monkeypatch.setattr(time, "sleep", lambda _: held.close())

    call_command("sync_registry", stdout=out)

    assert out.getvalue() == (
        "Another synchronisation is running; waiting for it.\n"
        "1 models with 2 versions in MLflow; changed: iris.\n"
    )


def test_the_command_does_not_wait_for_ever(mlflow, monkeypatch):
    seconds = itertools.count(step=100)
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(time, "sleep", lambda _: None)

    with (
        sync_run.alone_here(),
        pytest.raises(CommandError, match="Another synchronisation is running"),
    ):
        call_command("sync_registry", stdout=StringIO())


def test_the_command_fails_with_the_reason(mlflow):
    mlflow.unreachable = "MLflow is away."

    with pytest.raises(CommandError, match="MLflow is away"):
        call_command("sync_registry")


def test_the_command_fails_if_a_wanted_artifact_cannot_be_fetched(mlflow):
    mlflow.add("broken", 1, aliases={"champion": 1})
    # One name cannot be a file and a folder.
    mlflow.artifacts["broken", 1] = {"data": b"", "data/model.pt2": b""}

    with pytest.raises(CommandError, match="broken v1"):
        call_command("sync_registry", stdout=StringIO())


def test_the_tasks_do_the_same(mlflow):
    sync_registry()
    assert RegistrySync.objects.get().succeeded_at

    version = ModelVersionFactory(
        registered_model=RegisteredModelFactory(name="other"),
        version=1,
        artifact_state="remote",
    )
    mlflow.add("other", 1)
    fetch_artifact(version.pk)
    version.refresh_from_db()
    assert version.artifact_state == "ready"
