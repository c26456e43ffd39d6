import os

import pytest
from celery import current_app
from kombu.exceptions import OperationalError

from registry import artifacts
from registry.signals import registry_changed
from registry.tasks import fetch_artifact
from tests.factories_registry import (
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)
from tests.fakes import FakeMlflow

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def cache(settings, tmp_path):
    """Give each test its own artifact cache."""
    settings.HOME = type(settings.HOME)(tmp_path)
    settings.HOME.artifacts.mkdir()
    return settings.HOME.artifacts


@pytest.fixture
def mlflow():
    mlflow = FakeMlflow()
    mlflow.add("iris", 1, 2)
    return mlflow


def remote_version(number=1, name="iris"):
    return ModelVersionFactory(
        registered_model=RegisteredModelFactory(name=name),
        version=number,
        artifact_state="remote",
        artifact_digest="",
    )


def test_a_fetched_artifact_lies_whole_under_its_digest(mlflow, cache):
    version = remote_version()

    assert artifacts.fetch(version, registry=mlflow)

    version.refresh_from_db()
    folder = cache / version.artifact_digest
    assert version.artifact_state == "ready"
    assert (folder / "data" / "model.pt2").read_bytes() == b"m"
    assert [path.name for path in cache.iterdir()] == [version.artifact_digest]


def test_a_cached_artifact_is_not_downloaded_again(mlflow):
    version = remote_version()
    artifacts.fetch(version, registry=mlflow)

    artifacts.fetch(version, registry=mlflow)

    assert mlflow.downloads == [("iris", 1)]


def test_a_lost_folder_is_fetched_again(mlflow, cache):
    version = remote_version()
    artifacts.fetch(version, registry=mlflow)
    (cache / version.artifact_digest).rename(cache / "lost")

    assert artifacts.fetch(version, registry=mlflow)

    assert artifacts.is_cached(version)


def test_equal_artifacts_share_one_folder_and_others_do_not(mlflow, cache):
    mlflow.add("other", 1)
    mlflow.add("third", 1)
    mlflow.artifacts["third", 1] = {"MLmodel": b"flavors: {}", "data": b"/model.pt2m"}
    versions = [remote_version(name=name) for name in ("iris", "other", "third")]

    for version in versions:
        assert artifacts.fetch(version, registry=mlflow)

    first, second, third = (version.artifact_digest for version in versions)
    assert first == second != third
    assert {path.name for path in cache.iterdir()} == {first, third}


def test_a_refused_artifact_is_told_and_leaves_nothing_behind(mlflow, cache):
    version = remote_version()
    mlflow.unreadable["iris", 1] = "The artifact holds a link: x."

    assert not artifacts.fetch(version, registry=mlflow)

    version.refresh_from_db()
    assert version.artifact_state == "failed"
    assert version.artifact_error == "The artifact holds a link: x."
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_told_without_a_path(mlflow, cache, monkeypatch):
    version = remote_version()

    def fail(*_, **__):
        raise OSError(28, "No space left on device", str(cache))

    monkeypatch.setattr(mlflow, "download", fail)

    assert not artifacts.fetch(version, registry=mlflow)

    assert "No space left" in version.artifact_error
    assert str(cache) not in version.artifact_error


def test_gateways_learn_of_a_fetched_artifact(mlflow):
    version = remote_version()
    received = []

    def receive(**kwargs):
        received.append(kwargs["sender"])

    registry_changed.connect(receive)
    artifacts.fetch(version, registry=mlflow)
    registry_changed.disconnect(receive)

    assert received == [type(version)]


def test_versions_in_routes_and_published_ones_are_wanted():
    route = RouteFactory(with_canary=True)
    published = ModelVersionFactory(published=True)
    ModelVersionFactory()

    assert set(artifacts.wanted()) == {
        route.default_version,
        route.canary_version,
        published,
    }


def test_one_failure_does_not_keep_the_others_from_being_fetched(mlflow):
    model = RegisteredModelFactory(name="iris")
    for number in (1, 2):
        ModelVersionFactory(
            registered_model=model,
            version=number,
            published=True,
            artifact_state="remote",
        )
    mlflow.unreadable["iris", 1] = "broken"

    failed = artifacts.fetch_wanted(mlflow)

    assert [version.version for version in failed] == [1]
    assert mlflow.downloads == [("iris", 2)]


def test_a_download_left_by_a_killed_worker_is_removed_after_a_while(mlflow, cache):
    old, fresh = cache / ".partial-old", cache / ".partial-fresh"
    old.mkdir()
    fresh.mkdir()
    os.utime(old, (0, 0))

    artifacts.fetch_wanted(mlflow)

    assert [path.name for path in cache.iterdir()] == [".partial-fresh"]


def test_a_fetch_is_asked_for_once_the_change_is_committed(
    monkeypatch, django_capture_on_commit_callbacks
):
    asked = []
    monkeypatch.setattr(current_app, "send_task", lambda *call, **_: asked.append(call))
    version = remote_version()

    with django_capture_on_commit_callbacks(execute=True):
        artifacts.fetch_soon(version)
        assert asked == []

    assert asked == [(fetch_artifact.name, (version.pk,))]


def test_an_absent_broker_does_not_break_the_change(
    monkeypatch, django_capture_on_commit_callbacks
):
    def refuse(*_, **__):
        raise OperationalError("connection refused")

    monkeypatch.setattr(current_app, "send_task", refuse)

    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        artifacts.fetch_soon(remote_version())

    assert len(callbacks) == 1


def test_the_version_that_stands_in_for_a_route_is_fetched_too(mlflow):
    fallback = remote_version(2)
    RouteFactory(
        default_version=ModelVersionFactory(
            registered_model=fallback.registered_model, version=1
        ),
        fallback_version=fallback,
    )

    artifacts.fetch_wanted(mlflow)

    fallback.refresh_from_db()
    assert fallback.artifact_state == "ready"
