"""Test which engines a job's rows go to."""

import pytest

from inference.engine.wire.messages import VersionKey
from inference.jobs.work.engines import LoadedEngines
from inference.models import Engine, LoadedVersion

pytestmark = pytest.mark.django_db
KEY = VersionKey("m", 3)


def load(name, state="ready", *, engine_state="running", version=3):
    engine, _ = Engine.objects.get_or_create(
        name=name, defaults={"address": f"/{name}", "state": engine_state}
    )
    LoadedVersion.objects.create(engine=engine, model="m", version=version, state=state)


def found(times=4):
    with LoadedEngines() as engines:
        clients = [engines.find(KEY) for _ in range(times)]
    return {client and client._path for client in clients}


def test_engines_that_have_the_version_ready_take_turns():
    load("a")
    load("b")
    load("c", "evicted")
    load("d", "loading")
    load("e", version=4)
    load("f", engine_state="unreachable")

    assert found() == {"/a", "/b"}


def test_an_engine_that_loads_the_version_when_called_is_the_last_resort():
    load("a", "evicted")
    load("b", "failed")

    assert found() == {"/a"}


def test_without_an_engine_the_job_waits():
    assert found() == {None}
