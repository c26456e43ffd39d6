"""A foreign Host gets one log line and one 400 in the API's shape."""

import logging

import pytest

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/", "/admin/", "/api/v1/me", "/docs/", "/portal/"])
@pytest.mark.parametrize("host", ["evil.example", "a_b..", "127.0.0.1@evil", ""])
def test_an_unknown_host_is_refused_quietly(path, host, client, caplog):
    with caplog.at_level(logging.INFO):
        response = client.get(path, headers={"host": host})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_HEADER"
    assert response.headers["X-Request-Id"] == response.json()["error"]["request_id"]
    assert [r.levelname for r in caplog.records if r.levelno > logging.INFO] == []
    assert not any(record.exc_info for record in caplog.records)


def test_a_problem_is_written_as_asked(client):
    headers = {"host": "evil.example", "accept": "application/problem+json"}

    response = client.get("/", headers=headers)

    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 400


def test_our_own_host_passes(client):
    assert client.get("/robots.txt", headers={"host": "localhost"}).status_code == 200
