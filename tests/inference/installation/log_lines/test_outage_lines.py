"""Test what the log says of an outage: its begin, its end, and why."""

import datetime

import django.db
import pytest

from inference.installation.log_lines.outage_lines import (
    OutageLines,
    reason_of,
    without_passwords,
)


@pytest.fixture
def time():
    return [100.0]


@pytest.fixture
def lines(time):
    began = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return OutageLines(clock=lambda: time[0], now=lambda: began)


def test_an_outage_is_said_when_it_begins_and_when_it_ends(lines, time):
    away = {"event": "database_unavailable", "outage": "database", "reason": "x"}

    assert lines.complete(dict(away)) == away
    assert lines.lasts("database")
    for _ in range(50):
        time[0] += 0.2
        assert lines.complete(dict(away)) is None
    over = lines.complete({"event": "database_available", "outage_over": "database"})

    assert over == {
        "event": "database_available",
        "outage": "database",
        "since": "2026-01-01T00:00:00+00:00",
        "lasted_s": 10.0,
        "failures": 51,
    }
    assert not lines.lasts("database")
    assert lines.complete(dict(away)) == away


def test_success_without_an_outage_says_nothing(lines):
    lines.complete({"event": "broker_unavailable", "outage": "broker"})

    assert lines.complete({"event": "back", "outage_over": "database"}) is None
    assert lines.complete({"event": "anything"}) == {"event": "anything"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            django.db.OperationalError("connection to server\n  refused\n"),
            "OperationalError: connection to server refused",
        ),
        # PostgreSQL quotes the row in it.
        (django.db.IntegrityError("Key (email)=(a@b.c) exists"), "IntegrityError"),
        (TimeoutError(), "TimeoutError"),
        (
            ConnectionError("amqp://us:er@host:5672//: refused"),
            "ConnectionError: amqp://us:…@host:5672//: refused",
        ),
    ],
)
def test_a_reason_is_one_line_without_rows_and_passwords(error, reason):
    assert reason_of(error) == reason


def test_passwords_are_hidden_and_the_rest_stays():
    text = "redis://:hunter2@cache:6379/0, password=hunter2 user=me, http://h:80/a@b"

    assert without_passwords(text) == (
        "redis://:…@cache:6379/0, password=… user=me, http://h:80/a@b"
    )
