"""Operators see in the metrics how far the roll-ups of usage are."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import UnrolledHour
from accounts.usage import recording
from inference.installation import ledger_report
from inference.installation.ledger_report import Gauge, LedgerReport
from inference.jobs import charging
from inference.models import PredictionJob
from tests.accounts.quotas.test_leases import event
from tests.factories import CustomerFactory
from tests.factories_jobs import make_job
from tests.inference.controller.test_controller import Plant

NOW = timezone.now()


def test_a_report_is_given_as_gauges_with_its_age(tmp_path):
    path = tmp_path / "ledger.json"
    report = LedgerReport(at=100.0, roll_up_lag_s=40.5)
    ledger_report.write(path, report)

    assert ledger_report.read(path) == report
    assert ledger_report.gauges(report, now=107.0) == [
        Gauge("usage_roll_up_lag_seconds", 40.5),
        Gauge("ledger_report_age_seconds", 7.0),
    ]
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.json"]


@pytest.mark.parametrize("content", [None, b"", b'{"at": "soon"}'])
def test_what_cannot_be_read_is_no_report(tmp_path, content):
    path = tmp_path / "ledger.json"
    if content is not None:
        path.write_bytes(content)

    assert ledger_report.read(path) is None


@pytest.mark.django_db
def test_the_controller_reports_how_long_roll_ups_have_waited(home):
    old = timezone.now() - timedelta(days=2)
    recording.record("boot.spool", [event(CustomerFactory.create(), 1, at=old)], 1)
    UnrolledHour.objects.update(since=timezone.now() - timedelta(minutes=7))

    Plant(home).run(1)

    now = timezone.now().timestamp()
    found = ledger_report.gauges(ledger_report.read(home.ledger_report), now=now)
    gauges = {gauge.name: gauge.value for gauge in found}
    assert 420 <= gauges["usage_roll_up_lag_seconds"] < 500
    assert gauges["ledger_report_age_seconds"] < 60


@pytest.mark.django_db
def test_the_controller_reports_what_jobs_predicted_by_version(home):
    for rows, job in ((3, make_job(9)), (0, make_job(9)), (4, make_job(9, version=2))):
        charging.charge(
            job.pk, sequence=0, rows=rows, compute_us=20, total_us=30, now=NOW
        )
    PredictionJob.objects.all().update(removed_at=NOW)

    Plant(home).run(1)

    found = ledger_report.read(home.ledger_report).jobs
    counts = {it.version: (it.requests, it.rows, it.compute_us) for it in found}
    first = str(PredictionJob.objects.exclude(version=2)[0].version)
    assert counts == {first: (2, 3, 40), "2": (1, 4, 20)}
