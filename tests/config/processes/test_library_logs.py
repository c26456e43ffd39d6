"""Test that gunicorn and Celery log as all other code does."""

import json
import logging
import subprocess
import sys

import pytest
import structlog
from celery import Celery
from celery.beat import Scheduler

from config.processes.celery_log import BrokerFilter


def test_gunicorns_lines_are_json_even_if_its_workers_cannot_start(tmp_path):
    (tmp_path / "broken_site.py").write_text("raise RuntimeError('no settings')")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gunicorn", "broken_site:application"),
            *("--bind", f"unix:{tmp_path}/site.sock", "--no-control-socket"),
            *("--logger-class", "config.processes.gunicorn_log.GunicornLog"),
        ],
        capture_output=True,
        text=True,
        env={
            "MODELYARD_PROCESS": "site",
            "PYTHONPATH": ":".join([str(tmp_path), *sys.path]),
        },
        timeout=60,
    )

    written = (done.stdout + done.stderr).splitlines()
    # Gunicorn prints why, besides.
    written.remove("no settings")
    lines = [json.loads(line) for line in written]
    assert done.returncode != 0
    assert {line["process"] for line in lines} == {"site"}
    assert any("no settings" in str(line.get("exception")) for line in lines)


@pytest.mark.parametrize(
    ("text", "arguments", "reason"),
    [
        (
            "consumer: Cannot connect to %s: %s.\n%s",
            ("amqp://", ConnectionRefusedError("refused"), "Trying again"),
            "refused",
        ),
        (
            "beat: Connection error: %s. Trying again in %s seconds...",
            (OSError("unreachable"), 2.0),
            "unreachable",
        ),
    ],
)
def test_a_broker_that_is_away_is_an_outage_with_a_reason(text, arguments, reason):
    def passes(text, arguments):
        record = logging.LogRecord(
            "celery.beat", logging.ERROR, "", 0, text, arguments, None
        )
        return BrokerFilter().filter(record)

    with structlog.testing.capture_logs() as logged:
        assert not passes(text, arguments)
        assert not passes("Connected to %s", ("amqp://",))
        assert passes("Task %s raised unexpected", ("x",))

    away, back = logged
    assert (away["event"], away["outage"]) == ("broker_unavailable", "broker")
    assert reason in str(away["reason"])
    assert (back["event"], back["outage_over"]) == ("broker_available", "broker")


def test_tasks_that_beat_cannot_send_are_one_outage():
    beat = Scheduler(
        Celery(broker="amqp://127.0.0.1:1//", set_as_current=False), lazy=True
    )
    beat.app.conf.task_publish_retry = False
    entries = [beat.Entry(name=name, task="t", app=beat.app) for name in "ab"]
    log = logging.getLogger("celery.beat")
    passed = BrokerFilter()
    log.addFilter(passed)
    try:
        with structlog.testing.capture_logs() as logged:
            for entry in entries:
                beat.apply_entry(entry)
    finally:
        log.removeFilter(passed)

    assert [it["event"] for it in logged] == ["broker_unavailable"] * 2
    assert {it["outage"] for it in logged} == {"broker"}
    assert "refused" in str(logged[0]["reason"])
