"""Make prediction jobs for tests, with their input on the disk."""

import itertools
from datetime import UTC, datetime

import msgspec
from django.conf import settings
from django.utils import timezone

from accounts.models import ApiKey
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.jobs import ids as job_ids
from inference.models import PredictionJob
from inference.snapshot import snapshot_file
from inference.snapshot.contents import CallableModel, CallableVersion, Snapshot
from registry.routing import Variant
from tests.factories import ApiKeyFactory

# The model adds its two columns.
SUM_SIGNATURE = Signature(
    layout=Layout.MATRIX,
    columns=(Column(name="a"), Column(name="b", maximum=1000)),
    dtype="float32",
    shape=(2,),
    task=Task.REGRESSION,
)

_serial = itertools.count()


def new_job_id() -> str:
    return job_ids.new_id(
        now=datetime.now(UTC), randomness=next(_serial).to_bytes(10, "big")
    )


def make_job(
    rows: int | str = 3,
    *,
    api_key: ApiKey | None = None,
    signature: Signature = SUM_SIGNATURE,
    **fields: object,
) -> PredictionJob:
    """Make a job with this CSV, or with `rows` good rows: (0, 1), (1, 1), …"""
    job_id = new_job_id()
    text = rows
    if isinstance(rows, int):
        text = "a,b\n" + "".join(f"{number},1\n" for number in range(rows))
    folder = settings.HOME.jobs / job_id
    folder.mkdir(parents=True)
    (folder / "input.csv").write_text(str(text))
    api_key = api_key or ApiKeyFactory.create()
    ended = fields.get("status") in ("completed", "failed", "cancelled")
    return PredictionJob.objects.create(
        **{
            "id": job_id,
            "customer": api_key.customer,
            "api_key": api_key,
            "model": "sum",
            "version": 3,
            "variant": "default",
            "signature": msgspec.to_builtins(signature),
            "input_format": "csv",
            "input_file": f"{job_id}/input.csv",
            "input_bytes": len(str(text)),
            "chunk_rows": 2,
            "rows_total": rows if isinstance(rows, int) else None,
            "completed_at": timezone.now() if ended else None,
            **fields,
        }
    )


def write_snapshot(*models: CallableModel) -> None:
    """Publish models as the controller does; by default `sum`, with a canary."""
    published = Snapshot(sequence=1, published_at=0.0, models=models or (sum_model(),))
    snapshot_file.write(settings.HOME.snapshot, published)


def sum_model(name: str = "sum", *, canary_percent: int = 0) -> CallableModel:
    return CallableModel(
        name=name,
        versions=tuple(
            CallableVersion(
                version=number,
                signature=SUM_SIGNATURE,
                aliases=("champion",) if number == 3 else (),
            )
            for number in (4, 3, 2)
        ),
        variants=(
            Variant(version=3, role="default", weight_percent=100 - canary_percent),
            Variant(version=4, role="canary", weight_percent=canary_percent),
        ),
    )
