"""Requests that the site logs, and their ids."""

import logging

import pytest
from django.db import OperationalError, connection

from accounts.admission import key_format
from config.middleware import outage_ends
from inference.installation.log_lines import logs
from tests.factories import issue_key

pytestmark = pytest.mark.django_db


def lines(caplog):
    return [record for record in caplog.records if "'request'" in str(record.msg)]


@pytest.mark.parametrize("asked", [False, True])
def test_a_request_that_was_answered_gets_a_line_only_when_asked(
    client, settings, caplog, asked
):
    settings.LOG_REQUESTS = asked

    with caplog.at_level(logging.INFO):
        client.get("/robots.txt")

    assert len(lines(caplog)) == asked


def test_a_failure_always_gets_a_line(client, caplog):
    def fail(*_):
        raise RuntimeError("a mistake")

    client.raise_request_exception = False
    headers = {"Authorization": f"Bearer {key_format.generate('live').token}"}

    with caplog.at_level(logging.INFO), connection.execute_wrapper(fail):
        # The key's checksum is right, so it is looked up.
        status = client.get("/api/v1/me", headers=headers).status_code

    assert status == 500
    assert len(lines(caplog)) == 1


def test_a_line_says_whose_request_it_was(client, settings, caplog):
    settings.LOG_REQUESTS = True
    issued = issue_key()
    headers = {"Authorization": f"Bearer {issued.token}"}

    with caplog.at_level(logging.INFO):
        client.get("/api/v1/me", headers=headers)

    [line] = lines(caplog)
    assert line.msg["customer_id"] == issued.key.customer_id
    assert line.msg["key_id"] == issued.key.key_id
    assert issued.token not in str(line.msg)


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    client, caplog, monkeypatch
):
    def fail(*_):
        raise OperationalError("connection refused, password=s3cret")

    monkeypatch.setattr(outage_ends, "_look_at", 0.0)
    client.raise_request_exception = False
    headers = {"Authorization": f"Bearer {issue_key().token}"}

    with caplog.at_level(logging.INFO):
        with connection.execute_wrapper(fail):
            for _ in range(3):
                client.get("/api/v1/me", headers=headers)
        for _ in range(3):
            client.get("/api/v1/me", headers=headers)

    told = [one.msg for one in caplog.records if "outage" in str(one.msg)]
    assert [one["event"] for one in told] == [
        "database_unavailable",
        "database_available",
    ]
    assert told[0]["reason"] == "OperationalError: connection refused, password=…"
    assert told[1]["failures"] == 3
    # Each request that failed has its line besides.
    assert len(lines(caplog)) == 3


def test_a_database_that_can_only_be_read_is_not_back(caplog, monkeypatch):
    def refuse_writes(execute, sql, *rest):
        if sql.startswith("UPDATE"):
            raise OperationalError("attempt to write a readonly database")
        return execute(sql, *rest)

    logs.outages.complete({"event": "database_unavailable", "outage": "database"})
    monkeypatch.setattr(outage_ends, "_look_at", 0.0)
    with caplog.at_level(logging.INFO):
        with connection.execute_wrapper(refuse_writes):
            outage_ends.note_success()
        assert caplog.records == []
        monkeypatch.setattr(outage_ends, "_look_at", 0.0)
        outage_ends.note_success()

    [told] = caplog.records
    assert told.msg["event"] == "database_available"
