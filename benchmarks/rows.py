"""Insert as many database rows as a large installation has; Django must be set up."""

import datetime
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import Model
from django.utils import timezone

from accounts.admission import key_format
from accounts.admission.limits import SCOPES
from accounts.models import (
    ApiKey,
    Customer,
    LimitEvent,
    Plan,
    Price,
    QuotaCounter,
    Refusal,
    Usage,
    UsageDay,
    UsageHour,
)
from accounts.models.usage import UsageSums
from accounts.usage.grains import DAY, day_of, hour_of
from inference.jobs import ids
from inference.models import Engine, LoadedVersion, PredictionJob, ServingRoute
from registry.models import Alias, ModelVersion, RegisteredModel, Route

_AT_ONCE = 2000
_SIGNATURE = {
    "inputs": [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}
    ],
    "outputs": [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}
    ],
}
_METADATA = {
    "task": "classification",
    "columns": ["width", "height", "depth", "weight"],
    "labels": ["small", "large"],
}


@dataclass(frozen=True, slots=True)
class Scale:
    """The number of rows of each kind."""

    models: int
    versions: int
    customers: int
    keys: int
    # Keys of the customer with the most keys.
    keys_of_one: int
    # Minutes with usage of each key.
    minutes: int
    jobs: int
    refusals: int


LARGE = Scale(
    models=1000,
    versions=20,
    customers=5000,
    keys=20_000,
    keys_of_one=2000,
    minutes=85,
    jobs=20_000,
    refusals=20_000,
)
SMALL = Scale(
    models=20,
    versions=3,
    customers=60,
    keys=120,
    keys_of_one=30,
    minutes=4,
    jobs=60,
    refusals=60,
)


def fill(scale: Scale) -> None:
    """Insert everything into an empty database."""
    add_models(scale.models, scale.versions)
    add_keys(scale.keys, customers=scale.customers, of_one=scale.keys_of_one)
    _add_usage(scale.minutes)
    _add_refusals(scale.refusals)
    _add_jobs(scale.jobs)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def add_models(count: int, versions: int) -> None:
    """Add models whose newest version is routed, served and ready on one engine."""
    now = timezone.now()
    models = RegisteredModel.objects.bulk_create(
        RegisteredModel(name=f"model-{number:04}", description="One of many.")
        for number in range(count)
    )
    _insert(
        ModelVersion,
        (
            ModelVersion(
                registered_model=model,
                version=number,
                source=f"models:/m-{model.name}-{number}",
                mlflow_status="READY",
                registered_at=now - datetime.timedelta(days=versions - number),
                flavors=["python_function"],
                signature=_SIGNATURE,
                metadata=_METADATA,
                metrics={"accuracy": 0.9},
                input_example=[{"width": 1, "height": 2, "depth": 3, "weight": 4}],
                artifact_state=ModelVersion.ArtifactState.READY,
                artifact_digest=hashlib.sha256(b"%d" % number).hexdigest(),
            )
            for model in models
            for number in range(1, versions + 1)
        ),
    )
    newest = ModelVersion.objects.filter(version=versions).select_related(
        "registered_model"
    )
    engine = Engine.objects.create(
        name="cpu", address="/run/cpu", state=Engine.State.RUNNING, seen_at=now
    )
    rows: list[type[Model]] = [Route, Alias, ServingRoute, LoadedVersion]
    made: dict[type[Model], list[Any]] = {row: [] for row in rows}
    for version in newest:
        model = version.registered_model
        made[Route].append(Route(registered_model=model, default_version=version))
        made[Alias].append(
            Alias(registered_model=model, name="champion", version=version)
        )
        made[ServingRoute].append(
            ServingRoute(model=model.name, default_version=versions)
        )
        made[LoadedVersion].append(
            LoadedVersion(
                engine=engine,
                model=model.name,
                version=versions,
                state=LoadedVersion.State.READY,
            )
        )
    for kind, some in made.items():
        _insert(kind, iter(some))


def add_keys(count: int, *, customers: int, of_one: int = 0) -> None:
    """Add customers on three plans, with keys; the first has most of them."""
    plans = Plan.objects.bulk_create(
        Plan(name=name, daily_quota=100_000, monthly_quota=None)
        for name in ("Small", "Middle", "Large")
    )
    _insert(
        Price,
        (
            Price(
                plan=plan,
                unit=unit,
                model=model,
                amount=Decimal("0.001"),
                valid_from=datetime.date(2026, 1, 1),
            )
            for plan in plans
            for unit, model in (("rows", ""), ("requests", "model-0001"))
        ),
    )
    made = []
    for number in range(customers):
        customer = Customer(name=f"Customer {number:05}", plan=plans[number % 3])
        customer.clean_fields()
        made.append(customer)
    _insert(Customer, iter(made))
    owners = list(Customer.objects.order_by("pk").values_list("pk", flat=True))
    _insert(
        ApiKey,
        (
            _key(number, owners[0] if number < of_one else owners[number % customers])
            for number in range(count)
        ),
    )
    today = timezone.now().date()
    _insert(
        QuotaCounter,
        (
            QuotaCounter(
                customer_id=owner,
                key_id="",
                name="day",
                unit="rows",
                window_start=today - datetime.timedelta(days=age),
                granted=1000,
            )
            for owner in owners
            for age in range(4)
        ),
    )
    now = timezone.now()
    _insert(
        LimitEvent,
        (
            LimitEvent(
                customer_id=owner,
                name="day",
                unit="rows",
                window_start=today,
                threshold_percent=percent,
                used=percent * 1000,
                limit=100_000,
                at=now,
                notified_at=now,
            )
            for owner in owners
            for percent in (80, 100)
        ),
    )


def _key(number: int, owner: int) -> ApiKey:
    new = key_format.generate("live")
    return ApiKey(
        customer_id=owner,
        name=f"key {number}",
        key_id=new.key_id,
        digest=new.digest.hex(),
        scopes=list(SCOPES),
        last_used_at=timezone.now(),
    )


def _add_usage(minutes: int) -> None:
    """Add usage of each key, by minute, hour and day, over the last 60 days."""
    end = hour_of(timezone.now()) - datetime.timedelta(hours=1)
    step = datetime.timedelta(hours=24 * 60 // max(minutes, 1))
    for number in range(minutes):
        at = end - number * step
        for model, column in ((Usage, "minute"), (UsageHour, "start")):
            _copy_of_keys(model, column, at)
    for ago in range(61):
        day = day_of(end) - ago * DAY
        if day < day_of(timezone.now()):
            _add_up(day)


def _copy_of_keys(model: type[Model], column: str, at: datetime.datetime) -> None:
    facts: dict[str, Any] = dict.fromkeys(UsageSums.SUMS, 10)
    facts |= {
        "operation": "predict",
        "version": "20",
        "variant": "default",
        "status": 200,
        "code": "",
        "latency_buckets": '{"4": 10}',
        "slowest_us": 1500,
        column: at,
    }
    if model is Usage:
        facts["segment"] = "filled.spool"
    table, keys = model._meta.db_table, ApiKey._meta.db_table
    models = RegisteredModel.objects.count() or 1
    name = "'model-' || " + (
        f"to_char(id % {models}, 'FM0000')"
        if connection.vendor == "postgresql"
        else f"printf('%%04d', id % {models})"
    )
    name = name.replace(f"% {models}", f"%% {models}")
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (customer_id, key_id, model, {', '.join(facts)})"
            f" SELECT customer_id, key_id, {name}, {_cast(facts)} FROM {keys}",
            [_bound(value) for value in facts.values()],
        )


def _add_up(day: datetime.datetime) -> None:
    kind = list(UsageSums.KIND)
    sums = [f"SUM({name})" for name in UsageSums.SUMS]
    buckets = "MIN(CAST(latency_buckets AS text))"
    if connection.vendor == "postgresql":
        buckets = f"CAST({buckets} AS jsonb)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {UsageDay._meta.db_table}"
            f" (start, {', '.join(kind)}, {', '.join(UsageSums.SUMS)}, latency_buckets,"
            f" slowest_us)"
            f" SELECT {_cast({'start': day})}, {', '.join(kind)}, {', '.join(sums)},"
            f" {buckets}, MAX(slowest_us) FROM {UsageHour._meta.db_table}"
            f" WHERE start >= %s AND start < %s GROUP BY {', '.join(kind)}",
            [_bound(day), _bound(day), _bound(day + DAY)],
        )


def _cast(facts: dict[str, Any]) -> str:
    """Name each value's type, which PostgreSQL does not guess in a SELECT."""
    if connection.vendor != "postgresql":
        return ", ".join("%s" for _ in facts)
    kinds = {int: "bigint", str: "text", datetime.datetime: "timestamptz"}
    return ", ".join(
        "CAST(%s AS jsonb)"
        if name == "latency_buckets"
        else f"CAST(%s AS {kinds[type(value)]})"
        for name, value in facts.items()
    )


def _bound(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


def _add_refusals(count: int) -> None:
    keys = list(ApiKey.objects.values_list("customer_id", "key_id")[:count])
    now = timezone.now()
    _insert(
        Refusal,
        (
            Refusal(
                customer_id=customer_id,
                key_id=key_id,
                request_id=f"req-{number:08}",
                at=now - datetime.timedelta(seconds=number),
                operation="predict",
                model="model-0001",
                version="20",
                status=429,
                code="RATE_LIMITED",
            )
            for number, (customer_id, key_id) in zip(
                range(count), itertools.cycle(keys), strict=False
            )
        ),
    )


def _add_jobs(count: int) -> None:
    keys = list(ApiKey.objects.order_by("pk")[:count])
    now = timezone.now()
    _insert(
        PredictionJob,
        (
            PredictionJob(
                id=ids.new_id(
                    now=now - datetime.timedelta(seconds=number),
                    randomness=number.to_bytes(ids.RANDOM_BYTES, "big"),
                ),
                customer_id=key.customer_id,
                api_key=key,
                model=f"model-{number % 100:04}",
                version=20,
                variant="default",
                status=PredictionJob.Status.COMPLETED,
                input_format="csv",
                input_file="gone/input.csv",
                rows_total=1000,
                rows_done=1000,
                started_at=now,
                completed_at=now,
                removed_at=now,
            )
            for number, key in zip(range(count), itertools.cycle(keys), strict=False)
        ),
    )


def _insert(kind: type[Model], rows: Iterator[Any]) -> None:
    while some := list(itertools.islice(rows, _AT_ONCE)):
        kind._default_manager.bulk_create(some, batch_size=_AT_ONCE)
