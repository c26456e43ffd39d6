"""A backup that is taken under load counts every call once after its restore."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from inference.models import Upload
from inference.uploads import files as uploaded_files
from tests import machine
from tests.end_to_end.test_kills import customer
from tests.factories import issue_key
from tests.factories_jobs import make_job
from tests.load import Load
from tests.torture import FACTOR

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240 * FACTOR),
]

# Counts what the spool still holds, twice, and tells what is there then.
RECOUNT = """
import json, sys
from pathlib import Path
import django; django.setup()
from django.conf import settings
from django.utils import timezone
from accounts.metering import spool
from accounts.models import Usage
from inference.controller import ledger, ownership
from inference.installation.home import Home
from inference.models import PredictionJob, Upload
from inference.uploads import files
for _ in range(2):
    ledger.ingest(settings.HOME.spool, now=timezone.now(), budget_s=60)
usage = {}
for segment, requests in Usage.objects.values_list("segment", "requests"):
    usage[segment] = usage.get(segment, 0) + requests
try:
    ownership.claim(Home(Path(sys.argv[1])), now=timezone.now())
    old_home = ""
except ownership.OtherHome as error:
    old_home = str(error)
job = PredictionJob.objects.get()
print(json.dumps({
    "usage": usage,
    "spool": {
        path.name: [event.request_id for event, _ in spool.read_events(path)]
        for path in settings.HOME.spool.iterdir()
    },
    "job": (settings.HOME.jobs / job.input_file).read_text(),
    "upload": files.read(Upload.objects.get(), max_bytes=100).decode(),
    "old_home": old_home,
}))
"""


def environment_of(home, database=None):
    return {
        **os.environ,
        "MODELYARD_HOME": str(home),
        "DATABASE_URL": database or machine.database_url(),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}",
    }


def run(arguments, home, database):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment_of(home, database),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def empty_database(folder):
    """Yield the URL of another empty database of the same kind."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{folder}/restored.sqlite3"
        return
    name = f"restored_{os.getpid()}"
    login, _, _ = machine.database_url().rpartition("/")
    with psycopg.connect(
        machine.database_url().replace("postgres:", "postgresql:", 1), autocommit=True
    ) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name}")
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{login}/{name}"
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def put_job_and_upload(home, key):
    make_job(api_key=key)
    upload = uploaded_files.announce(key.customer, content_type="text/csv")
    (home.uploads / upload.pk).write_text("rows")
    Upload.objects.update(file=upload.pk, stored_at=timezone.now(), bytes=4)


def test_a_restored_backup_counts_each_call_once(home, tmp_path):
    key = issue_key(customer(10**7))
    backup, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"

    with machine.running(gateways=2) as plant:
        machine.wait_until(lambda: plant.answers(key.token), what="a prediction")
        with Load(plant.gateways.port, [key.token], connections=8) as load:
            put_job_and_upload(home, key.key)
            time.sleep(1)
            before = set(load.answered())
            run(["manage.py", "backup", backup], home.root, machine.database_url())
            during = set(load.answered())
            machine.wait_until(
                lambda: len(load.answered()) > len(during) + 20, what="more calls"
            )
        machine.wait_until(plant.ingested, what="the rest in the ledger")
        everything = plant.spooled()
    with empty_database(tmp_path) as database:
        said = run(["manage.py", "restore", backup], elsewhere, database)
        found = json.loads(run(["-c", RECOUNT, home.root], elsewhere, database))

    assert f"It was the home {home.root} on" in said
    assert len(before) > 50
    counted = set()
    for segment, requests in found["usage"].items():
        ids = found["spool"].get(segment)
        if ids is None:
            # It was counted to its end when the backup was made.
            ids = everything[segment]
        assert requests == len(ids) == len(set(ids))
        assert set(ids) <= set(everything[segment])
        counted |= set(ids)
    assert before <= counted
    assert {(call.status, call.code) for call in load.calls} == {(200, "")}
    assert found["job"] == "a,b\n0,1\n1,1\n2,1\n"
    assert found["upload"] == "rows"
    assert f"belongs to the home {elsewhere}" in found["old_home"]
