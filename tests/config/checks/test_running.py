"""All checks run at once, end in time, and say what each found."""

import threading
import time
from types import SimpleNamespace

import django.db
import pytest

from config.checks import running
from config.checks.finding import Level, fault, unknown, warning, well

LOST = fault("lost", "{what} is lost.", cost="It is gone.", mend="find {what}")
LATE = warning("late", "It is late.", cost="People wait.", mend="hurry")


def kind(look, title="Thing"):
    return SimpleNamespace(TITLE=title, PROBLEMS=(), look=look)


def test_the_worst_comes_first():
    report = running.run(
        [
            kind(lambda: [well("It works.")], "Good"),
            kind(lambda: [unknown("Not looked at.")], "Dark"),
            kind(lambda: [LATE.found()], "Late"),
            kind(lambda: [LATE.found(), LOST.found(what="key")], "Bad"),
        ]
    )

    assert [section.title for section in report.sections] == [
        *("Bad", "Late", "Dark", "Good"),
    ]
    assert report.sections[0].findings[0].sentence == "key is lost."
    assert report.sections[0].findings[0].mend == "find key"
    assert report.summary == "1 fault, 2 warnings."


@pytest.mark.parametrize(
    ("finding", "code"),
    [
        (well("It works."), 0),
        (unknown("Not looked at."), 0),
        (LATE.found(), 1),
        (LOST.found(what="key"), 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst(finding, code):
    report = running.run([kind(lambda: [finding])])

    assert report.exit_code == code
    assert report.as_json()["exit_code"] == code


def test_what_hangs_is_left_behind():
    goes_on = threading.Event()
    started = time.monotonic()

    report = running.run(
        [kind(lambda: [goes_on.wait()], "Hangs"), kind(lambda: [well("Yes.")])],
        timeout_s=0.2,
    )

    goes_on.set()
    assert time.monotonic() - started < 5
    assert [it.code for it in report.of_level(Level.WARNING)] == ["check-unfinished"]
    assert len(report.of_level(Level.WELL)) == 1


def test_a_broken_check_spoils_no_other():
    def breaks():
        raise ValueError("no such thing\nand more")

    report = running.run([kind(breaks), kind(lambda: [well("Yes.")])])

    [broken] = report.of_level(Level.FAULT)
    assert broken.sentence == "This check failed: ValueError: no such thing."
    assert len(report.of_level(Level.WELL)) == 1


def test_what_needs_the_database_says_that_it_was_not_looked_at():
    def asks():
        raise django.db.OperationalError("gone")

    report = running.run([kind(asks)])

    assert report.exit_code == 0
    assert "the database does not answer" in report.of_level(Level.UNKNOWN)[0].sentence


def test_threads_of_checks_do_not_keep_the_process():
    found = []

    running.run([kind(lambda: found.append(threading.current_thread()) or [well("")])])

    assert found[0].daemon
    assert found[0] is not threading.main_thread()
