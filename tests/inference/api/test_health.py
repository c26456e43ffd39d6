"""A deployment without a gateway answers health checks, and correctly."""

import pytest
from django.db import OperationalError, connection

from inference.models import Engine, LoadedVersion, ServingRoute, SnapshotState


@pytest.fixture
def served(db):
    SnapshotState.objects.update_or_create(pk=1, defaults={"published": 1})
    ServingRoute.objects.create(model="m", default_version=1)
    engine = Engine.objects.create(name="cpu", address="/x", state="running")
    return LoadedVersion.objects.create(
        engine=engine, model="m", version=1, state="ready"
    )


@pytest.mark.parametrize("path", ["/healthz", "/health"])
def test_alive_needs_no_database(client, path):
    answer = client.get(path)

    assert (answer.status_code, answer.content) == (200, b"ok")
    assert "no-store" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/readyz", "/ready"])
def test_ready_when_every_default_can_answer(client, served, path):
    answer = client.get(path)

    assert (answer.status_code, answer.content) == (200, b"ready")


@pytest.mark.parametrize("state", ["loading", "failed"])
def test_not_ready_while_a_default_is_not(client, served, state):
    LoadedVersion.objects.update(state=state)

    answer = client.get("/readyz")

    assert (answer.status_code, answer.content) == (503, b"not ready")


def test_not_ready_while_the_engine_is_away(client, served):
    Engine.objects.update(state="unreachable")

    assert client.get("/readyz").status_code == 503


def test_not_ready_before_the_first_snapshot(client, db):
    assert client.get("/readyz").status_code == 503


def test_a_route_that_waits_for_its_first_version_keeps_nobody_from_being_ready(
    client, served
):
    ServingRoute.objects.create(model="new", default_version=None)

    assert client.get("/readyz").status_code == 200


def test_not_ready_without_the_database(client, served):
    def outage(execute, sql, params, many, context):
        raise OperationalError("gone")

    with connection.execute_wrapper(outage):
        answer = client.get("/readyz")

    assert (answer.status_code, answer.content) == (503, b"not ready")
