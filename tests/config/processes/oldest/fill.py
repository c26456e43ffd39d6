"""Fill the database of the oldest supported version with rows of every kind.

Run it in a checkout of commit f4aef5c, whose migrations are the first of each app, with
DATABASE_URL naming an empty database; then dump that (README.md).
"""

import datetime
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402

from accounts import models as accounts  # noqa: E402
from inference import models as inference  # noqa: E402
from registry import models as registry  # noqa: E402

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)

call_command("migrate", verbosity=0)
person = User.objects.create_superuser("ada", "ada@example.com", "unguessable 1")
registry.RegistrySync.objects.create(
    tracking_uri="http://mlflow", attempted_at=NOW, succeeded_at=NOW
)
plan = accounts.Plan.objects.create(
    name="Standard", daily_quota=1000, monthly_quota=20_000, quota_unit="rows"
)
plan.description = "changed once"
plan.save()
for name in ("Acme", "Ümlaut & Söhne"):
    customer = accounts.Customer.objects.create(
        name=name, plan=plan, contact_email="x@example.com", notes="é"
    )
    key = accounts.ApiKey.objects.create(
        customer=customer,
        name="main",
        key_id=f"key{customer.pk:09}",
        digest=f"{customer.pk:064x}",
        scopes=["predict"],
        allowed_models=["iris"],
        last_used_at=NOW,
        created_by=person,
    )
    counter = accounts.QuotaCounter.objects.create(
        customer=customer, name="day", unit="rows", window_start=NOW.date(), granted=30
    )
    accounts.Lease.objects.create(counter=counter, holder="boot", granted=10)
    for hour in range(3):
        accounts.Usage.objects.create(
            segment="boot-1.spool",
            customer=customer,
            key_id=key.key_id,
            operation="predict",
            model="iris",
            version="1",
            variant="default",
            minute=NOW - hour * HOUR,
            status=200,
            requests=5,
            rows=7,
            charged_requests=4,
            charged_rows=6,
            compute_us=100,
            total_us=200,
            latency_buckets={"3": 5},
        )
    job = inference.PredictionJob.objects.create(
        id=f"job_{customer.pk:026}",
        customer=customer,
        api_key=key,
        model="iris",
        version=1,
        variant="default",
        status="completed",
        completed_at=NOW,
        input_format="csv",
        input_file="x/input.csv",
        rows_total=2,
        rows_done=2,
    )
    inference.JobChunk.objects.create(
        job=job, index=0, rows=2, predictions=[1, {"label": "a"}]
    )
accounts.SpoolSegment.objects.create(name="boot-1.spool", ingested_bytes=4096)
model = registry.RegisteredModel.objects.create(
    name="iris", description="flowers", tags={"team": "x"}, trusted=True, public=True
)
versions = [
    registry.ModelVersion.objects.create(
        registered_model=model,
        version=number,
        source=f"s3://bucket/{number}",
        registered_at=NOW,
        signature={"layout": "table"},
        flavors=["sklearn"],
        published=True,
        artifact_state="ready",
        artifact_digest=f"{number:064x}",
    )
    for number in (1, 2)
]
registry.Alias.objects.create(
    registered_model=model, name="champion", version=versions[0]
)
registry.Route.objects.create(
    registered_model=model,
    default_version=versions[0],
    default_weight_percent=90,
    canary_version=versions[1],
    canary_weight_percent=10,
    updated_by=person,
)
inference.SnapshotState.objects.get_or_create(pk=1)
inference.ControllerLease.objects.get_or_create(
    pk=1, defaults={"holder": "boot", "expires_at": NOW}
)
engine = inference.Engine.objects.create(name="cpu", address="/run/engine-cpu.sock")
inference.LoadedVersion.objects.create(engine=engine, model="iris", version=1)
inference.ServingRoute.objects.create(
    model="iris", default_version=1, default_weight_percent=100
)
