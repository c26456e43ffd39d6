"""Kill the process that ingests usage at every step: all is counted once."""

import os
import subprocess
import sys

import pytest
from django.db.models import Sum

from accounts.models import Usage, UsageDay, UsageHour
from tests.factories import CustomerFactory
from tests.machine import ROOT, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(400)]

# As tests/inference/controller/killed_ingestion.py writes them.
EVENTS = 3


def requests(table):
    return table.objects.aggregate(total=Sum("requests"))["total"]


def test_a_death_at_any_step_loses_nothing_and_doubles_nothing(home):
    customer = CustomerFactory()

    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.inference.controller.killed_ingestion"),
            *(str(home.spool), str(customer.pk)),
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "MODELYARD_HOME": str(home.root),
            "DATABASE_URL": database_url(),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}",
            "LOG_LEVEL": "CRITICAL",
        },
        capture_output=True,
        text=True,
        timeout=360,
    )
    assert done.returncode == 0, done.stderr

    deaths = int(done.stdout)
    counted = dict(Usage.objects.values_list("segment").annotate(Sum("requests")))
    assert deaths > 25
    assert counted == {f"boot{step}-1.spool": EVENTS for step in range(deaths + 1)}
    assert requests(UsageHour) == requests(UsageDay) == EVENTS * (deaths + 1)
    assert list(home.spool.iterdir()) == []
