"""Answers to people and programs while the database or the cache is away."""

import contextlib

import pytest
import redis
from django.core.cache import cache
from django.db import DataError, InterfaceError, OperationalError, connection
from django.test import Client
from django_redis.exceptions import ConnectionInterrupted

from inference.api.exception_handler import as_api_error
from tests.factories import UserFactory, issue_key

pytestmark = pytest.mark.django_db

PATHS = ["/api/v1/models", "/api/v1/usage", "/api/v1/me", "/admin/", "/portal/", "/"]


@pytest.fixture
def asking():
    """A signed-in browser that also sends a key."""
    issued = issue_key()
    client = Client(
        raise_request_exception=False,
        headers={"authorization": f"Bearer {issued.token}"},
    )
    client.force_login(UserFactory(is_staff=True))
    return client


@contextlib.contextmanager
def without_database(error):
    def fail(execute, sql, params, many, context):
        raise error

    with connection.execute_wrapper(fail):
        yield


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
@pytest.mark.parametrize("path", PATHS)
def test_a_database_that_is_away_is_503_with_a_time_to_come_back(asking, path, error):
    with without_database(error("the server closed the connection; password=s3cret")):
        answer = asking.get(path)

    if path == "/" and answer.status_code in (200, 302):
        # It needs no database.
        return
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
    assert "s3cret" not in answer.content.decode()
    assert asking.get(path).status_code in (200, 302)


@pytest.mark.parametrize(
    "error", [ConnectionInterrupted(None), redis.ConnectionError()]
)
def test_a_cache_that_is_away_is_503_too(asking, monkeypatch, error):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as away:
        away.setattr(type(cache._connections["default"]), "add", fail)
        refused = asking.get("/api/v1/models")
        login = asking.post("/admin/login/", {"username": "a", "password": "b"})

    assert (refused.status_code, login.status_code) == (503, 503)
    assert refused.json()["error"]["code"] == "OVERLOADED"
    assert asking.get("/api/v1/models").status_code == 200


def test_a_mistake_of_ours_is_still_500(asking):
    with without_database(RuntimeError("a mistake")):
        answer = asking.get("/api/v1/models")

    assert answer.status_code == 500


def test_what_the_database_refuses_is_no_mistake_of_ours(asking):
    """PostgreSQL refuses to look up NUL, in any part of a request."""
    refusal = DataError("PostgreSQL text fields cannot contain NUL")
    with without_database(refusal):
        answers = [asking.get("/admin/"), asking.post("/portal/1/keys/")]

    assert [answer.status_code for answer in answers] == [404, 400]
    assert as_api_error(refusal).status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/admin/inference/predictionjob/_00/change/",
        "/admin/inference/predictionjob/%00/change/",
        "/admin/inference/predictionjob/?id=%00",
        "/admin/inference/upload/_00/change/",
        "/admin/registry/registeredmodel/?q=%00",
        "/admin/registry/registeredmodel/?name=%00",
        "/api/v1/models/%00",
        "/docs/%00",
    ],
)
def test_no_address_with_nul_is_an_error_of_ours(asking, path):
    asking.force_login(UserFactory(is_staff=True, is_superuser=True))

    assert asking.get(path).status_code < 500


def test_no_cookie_with_nul_is_an_error_of_ours(asking):
    asking.cookies["sessionid"] = '"12345678\\000"'

    assert asking.get("/portal/").status_code < 500
