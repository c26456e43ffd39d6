"""Requests that the site logs, and their ids."""

import logging

import pytest
from django.db import connection

from accounts.admission import key_format

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
