from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from config.checks.kinds import database
from config.checks.kinds.database import DatabaseFacts
from inference.models import DatabaseHome

WELL = DatabaseFacts("PostgreSQL", "/home")


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({}, ""),
        ({"unreachable": "connection refused"}, "database-unreachable"),
        ({"unreachable": "I/O", "vendor": "SQLite"}, "database-file-unusable"),
        ({"file_is_missing": True}, "database-missing"),
        (
            {"not_writable": "readonly database"},
            "database-not-writable",
        ),
        ({"lacking": ("accounts.0033_uses_of_fields",)}, "migrations-missing"),
        ({"unknown": ("accounts.0099_later",)}, "database-newer"),
        ({"owner": "b:/home"}, "database-of-another-home"),
        ({"owner": "a:/old", "owned_by_id": True}, "home-moved"),
        ({"clock_apart_s": -7.0}, "clocks-apart"),
        ({"clock_apart_s": 1.5}, ""),
    ],
)
def test_each_fact_has_its_finding(facts, code):
    [found] = database.judge(replace(WELL, **facts))

    assert found.code == code


@pytest.mark.django_db
def test_a_database_as_tests_have_it_is_well():
    found = database.facts()

    assert (found.unreachable, found.not_writable) == ("", "")
    assert (found.lacking, found.unknown) == ((), ())
    assert found.clock_apart_s < 2
    assert not Session.objects.exists()


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's own setting")
def test_a_database_that_takes_no_more_rows_is_not_writable():
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER no_room BEFORE INSERT ON django_session "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )

    assert database.facts().not_writable == "database or disk is full"


@pytest.mark.django_db
def test_migrations_that_one_side_lacks_are_named():
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied("accounts", "0033_uses_of_fields")
    recorder.record_applied("accounts", "0999_of_later_code")
    recorder.record_applied("removed_app", "0001_initial")

    found = database.facts()

    assert found.lacking == ("accounts.0033_uses_of_fields",)
    assert found.unknown == ("accounts.0999_of_later_code",)


@pytest.mark.django_db
def test_the_home_that_owns_the_database_is_named():
    DatabaseHome.objects.create(
        pk=1, home_id="other", host="b", path="/lost", since=datetime.now(UTC)
    )

    found = database.facts()

    assert "/lost" in found.owner
    assert not found.owned_by_id
