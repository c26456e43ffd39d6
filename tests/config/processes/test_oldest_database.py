"""A database of the oldest supported version is brought up to this one."""

import gzip
import json
import sqlite3
from pathlib import Path

import psycopg
from django.db import connection

from tests.end_to_end import test_backup as databases

HERE = Path(__file__).parent / "oldest"
READ = """
import json
import django; django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from accounts.models import *
from config.processes import before_start
from inference.models import *
from registry.models import *
from accounts.usage import reading
before_start.check_database()
print(json.dumps({
    "customers": list(Customer.objects.order_by("pk").values_list("name", flat=True)),
    "plan": Plan.objects.get().history.count(),
    "keys": list(ApiKey.objects.order_by("pk").values_list("digest", flat=True)),
    "requests": sum(Usage.objects.values_list("requests", flat=True)),
    "charged": sum(Usage.objects.values_list("charged_compute_us", flat=True)),
    "hours": UsageHour.objects.count() + UnrolledHour.objects.count(),
    "leases": Lease.objects.count(),
    "segment": SpoolSegment.objects.get().ingested_bytes,
    "predictions": JobChunk.objects.first().predictions,
    "jobs": PredictionJob.objects.filter(status="completed").count(),
    "route": list(Route.objects.values_list(
        "registered_model__name", "default_version__version", "canary_weight_percent"
    ).get()),
    "champion": Alias.objects.get().version.version,
    "serving": ServingRoute.objects.get().default_version,
    "person": User.objects.get().check_password("unguessable 1"),
}))
"""


def load(url):
    text = gzip.decompress((HERE / f"{connection.vendor}.sql.gz").read_bytes()).decode()
    if connection.vendor == "sqlite":
        with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
            database.executescript(text)
        database.close()
    else:
        with psycopg.connect(url.replace("postgres:", "postgresql:", 1)) as database:
            database.execute(text.encode())


def test_a_database_of_the_oldest_version_keeps_its_rows(tmp_path, db):
    with databases.empty_database(tmp_path) as url:
        load(url)
        databases.run(["manage.py", "migrate"], tmp_path / "home", url)
        found = json.loads(databases.run(["-c", READ], tmp_path / "home", url))

    assert found == {
        "customers": ["Acme", "Ümlaut & Söhne"],
        "plan": 2,
        "keys": [f"{1:064x}", f"{2:064x}"],
        "requests": 30,
        "charged": found["charged"],
        "hours": found["hours"],
        "leases": 2,
        "segment": 4096,
        "predictions": [1, {"label": "a"}],
        "jobs": 2,
        "route": ["iris", 1, 10],
        "champion": 1,
        "serving": 1,
        "person": True,
    }
    # Sums that this version added are filled from the old ones.
    assert found["charged"] > 0
    assert found["hours"] > 0
