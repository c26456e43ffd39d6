import pytest

from accounts.metering.spool import SpoolWriter
from config.checks.kinds import usage
from tests.accounts.quotas.test_leases import event
from tests.factories import CustomerFactory

WELL = {"unread_bytes": 10, "age_s": 1.0, "most_bytes": 100, "roll_up_lag_s": 5.0}


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        ({}, [""]),
        ({"age_s": 90.0}, ["usage-waits"]),
        ({"age_s": 90.0, "unread_bytes": 60}, ["spool-nearly-full"]),
        ({"roll_up_lag_s": 90_000.0}, ["roll-ups-late"]),
    ],
)
def test_each_fact_has_its_finding(facts, codes):
    found = usage.judge(**WELL | facts)

    assert [finding.code for finding in found] == codes


@pytest.mark.django_db
def test_events_on_disk_that_are_not_counted_are_found(tmp_path):
    of_test = event(CustomerFactory.create(), 1)
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([of_test])
    [path] = tmp_path.glob("*.spool")
    size = path.stat().st_size

    assert usage.unread(tmp_path, {}, set()) == (size, of_test.at)
    assert usage.unread(tmp_path, {path.name: size}, set()) == (0, None)
    assert usage.unread(tmp_path, {}, {path.name}) == (0, None)
    writer.close()
