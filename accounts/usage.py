"""What was used: taking it in exactly once, and reading it back."""

import datetime
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypedDict

from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncHour

from accounts.admission import window_of
from accounts.models import ApiKey, Customer, SpoolSegment, Usage
from accounts.usage_event import UsageEvent

# `last_used_at` is a help for people: to the minute is enough, and saves writes.
_LAST_USED_STEP = datetime.timedelta(minutes=1)
_SUMS = (
    "requests",
    "rows",
    "charged_requests",
    "charged_rows",
    "compute_us",
    "total_us",
    "shap_samples",
)
_IDENTITY = (
    "segment",
    "key_id",
    "operation",
    "model",
    "version",
    "variant",
    "minute",
    "status",
    "code",
)
Identity = tuple[str, str, str, str, str, str, datetime.datetime, int, str]


@transaction.atomic
def record(
    segment: str,
    events: Iterable[UsageEvent],
    ingested_bytes: int,
    *,
    start_bytes: int | None = None,
) -> bool:
    """Add events to usage and move the segment's offset along, both or neither.

    Return False, and add nothing, if the segment is already as far as that; or, when
    `start_bytes` is given, if it is not where the events were read from.
    """
    place, _ = SpoolSegment.objects.select_for_update().get_or_create(name=segment)
    if place.ingested_bytes >= ingested_bytes:
        return False
    if start_bytes is not None and place.ingested_bytes != start_bytes:
        return False
    _add(segment, list(events))
    place.ingested_bytes = ingested_bytes
    place.save(update_fields=["ingested_bytes"])
    return True


def _add(segment: str, events: list[UsageEvent]) -> None:
    # An event of a customer deleted since, or of no customer, can be billed to nobody.
    known = set(
        Customer.objects.filter(
            pk__in={event.customer_id for event in events}
        ).values_list("pk", flat=True)
    )
    events = [event for event in events if event.customer_id in known]
    if not events:
        return
    # Nobody else writes this segment's rows: its SpoolSegment is locked. So reading
    # sums, adding to them and writing them back loses nothing.
    minutes = {_minute(event.at) for event in events}
    sums: dict[Identity, Usage] = {
        _identity(row): row
        for row in Usage.objects.filter(
            segment=segment, minute__gte=min(minutes), minute__lte=max(minutes)
        )
    }
    touched: dict[Identity, Usage] = {}
    for event in events:
        identity: Identity = (
            segment,
            event.key_id,
            event.operation,
            event.model,
            event.version,
            event.variant,
            _minute(event.at),
            event.status,
            event.code,
        )
        row = sums.get(identity)
        if row is None:
            row = sums[identity] = Usage(
                customer_id=event.customer_id,
                **dict(zip(_IDENTITY, identity, strict=True)),
            )
        touched[identity] = row
        _add_event(row, event)
    Usage.objects.bulk_create(
        touched.values(),
        batch_size=500,
        update_conflicts=True,
        unique_fields=list(_IDENTITY),
        update_fields=[*_SUMS, "latency_buckets"],
    )
    _note_last_use(events)


def _add_event(row: Usage, event: UsageEvent) -> None:
    row.requests += 1
    row.rows += event.rows
    if event.charged:
        row.charged_requests += 1
        row.charged_rows += event.rows
    row.compute_us += event.compute_us
    # Two clocks may disagree by a little; the whole is never less than its part.
    row.total_us += max(event.total_us, event.compute_us)
    row.shap_samples += event.shap_samples
    bucket = str(bucket_of(event.total_us))
    row.latency_buckets[bucket] = row.latency_buckets.get(bucket, 0) + 1


def _note_last_use(events: list[UsageEvent]) -> None:
    last: dict[str, float] = {}
    for event in events:
        last[event.key_id] = max(event.at, last.get(event.key_id, 0.0))
    for key_id, seconds in last.items():
        at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        ApiKey.objects.filter(
            Q(last_used_at=None) | Q(last_used_at__lt=at - _LAST_USED_STEP),
            key_id=key_id,
        ).update(last_used_at=at)


def _minute(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds // 60 * 60, datetime.UTC)


def _identity(row: Usage) -> Identity:
    return (
        row.segment,
        row.key_id,
        row.operation,
        row.model,
        row.version,
        row.variant,
        row.minute,
        row.status,
        row.code,
    )


# Latencies


def bucket_of(microseconds: int) -> int:
    """Return n of the first bucket, up to 100 µs times 2**n, that holds a latency."""
    return (max(0, microseconds - 1) // 100).bit_length()


def percentile(buckets: dict[str, int], percent: float) -> float | None:
    """Return a percentile in milliseconds: the upper end of its bucket.

    So it is at most twice the true value, and never below it.
    """
    total = sum(buckets.values())
    if not total:
        return None
    rank = total * percent / 100
    seen = 0
    last = 0
    for bucket in sorted(int(name) for name in buckets):
        seen += buckets[str(bucket)]
        last = bucket
        if seen >= rank:
            break
    return float(0.1 * 2**last)


def latencies(usage: QuerySet[Usage]) -> dict[str, int]:
    """Add up the latency buckets of the selected usage."""
    sums: Counter[str] = Counter()
    for buckets in usage.values_list("latency_buckets", flat=True).iterator():
        sums.update(buckets)
    return dict(sums)


# Reading


class Totals(TypedDict):
    requests: int
    rows: int
    compute_ms: float
    errors: int
    charged_requests: int
    charged_rows: int
    shap_samples: int


def between(
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    *,
    customer_id: int | None = None,
) -> QuerySet[Usage]:
    """Select usage from `starts_at` on and before `ends_at`."""
    usage = Usage.objects.filter(minute__gte=starts_at, minute__lt=ends_at)
    return usage if customer_id is None else usage.filter(customer_id=customer_id)


def totals(usage: QuerySet[Usage]) -> Totals:
    """Add up the selected usage."""
    return _totals(usage.aggregate(**_sums()))


def grouped(usage: QuerySet[Usage], *fields: str) -> list[dict[str, Any]]:
    """Add up the selected usage per value of `fields`, most requests first."""
    rows = usage.order_by().values(*fields).annotate(**_sums())
    return [
        {field: row[field] for field in fields} | _totals(row)
        for row in rows.order_by("-sum_requests", *fields)
    ]


def over_time(
    usage: QuerySet[Usage], bucket: Literal["hour", "day"], *fields: str
) -> list[dict[str, Any]]:
    """Add up the selected usage per UTC hour or day, and per value of `fields`."""
    truncate = TruncHour if bucket == "hour" else TruncDay
    rows = (
        usage.order_by()
        .annotate(start=truncate("minute", tzinfo=datetime.UTC))
        .values("start", *fields)
        .annotate(**_sums())
        .order_by("start", *fields)
    )
    return [
        {"start": row["start"]} | {field: row[field] for field in fields} | _totals(row)
        for row in rows
    ]


class Refusals(TypedDict):
    status: int
    code: str
    count: int


def refusals(usage: QuerySet[Usage]) -> list[Refusals]:
    """Count the calls that were refused or failed, per status and code."""
    rows = (
        usage.filter(status__gte=400)
        .order_by()
        .values_list("status", "code")
        .annotate(count=Sum("requests"))
        .order_by("-count", "status", "code")
    )
    return [
        Refusals(status=status, code=code, count=count) for status, code, count in rows
    ]


def top_customers(
    starts_at: datetime.datetime, ends_at: datetime.datetime, *, limit: int = 5
) -> list[dict[str, Any]]:
    """Name the customers with the most requests."""
    return grouped(between(starts_at, ends_at), "customer_id", "customer__name")[:limit]


def charged_units(
    customer_id: int,
    *,
    unit: str,
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    segment_prefix: str = "",
) -> int:
    """Add up the quota units spent, if asked for in the spool files of one process."""
    usage = between(starts_at, ends_at, customer_id=customer_id)
    if segment_prefix:
        usage = usage.filter(segment__startswith=segment_prefix)
    field = "charged_rows" if unit == "rows" else "charged_requests"
    return usage.aggregate(units=Sum(field))["units"] or 0


def quota_used(
    customer_id: int,
    *,
    quota: Literal["day", "month"],
    unit: str,
    now: datetime.datetime,
) -> tuple[int, datetime.datetime]:
    """Return the units spent in the current window, and when it ends."""
    starts, ends = (
        datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        for seconds in window_of(quota, now.timestamp())
    )
    units = charged_units(customer_id, unit=unit, starts_at=starts, ends_at=ends)
    return units, ends


CSV_COLUMNS = (
    "day",
    "customer",
    "key_id",
    "operation",
    "model",
    "version",
    "variant",
    "status",
    "code",
    *_SUMS,
)


def csv_rows(usage: QuerySet[Usage]) -> Iterator[tuple[Any, ...]]:
    """Yield CSV_COLUMNS, then one row per day and kind of call."""
    yield CSV_COLUMNS
    groups = ("day", "customer__name", *CSV_COLUMNS[2:9])
    rows = (
        usage.order_by()
        .annotate(day=TruncDay("minute", tzinfo=datetime.UTC))
        .values(*groups)
        .annotate(**{f"sum_{field}": Sum(field) for field in _SUMS})
        .order_by(*groups)
    )
    for row in rows.iterator():
        yield (
            row["day"].date().isoformat(),
            *(_plain_text(row[group]) for group in groups[1:]),
            *(row[f"sum_{field}"] for field in _SUMS),
        )


def _plain_text(value: Any) -> Any:
    """Keep spreadsheets from reading a name as a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _sums() -> dict[str, Sum]:
    sums = {f"sum_{field}": Sum(F(field)) for field in _SUMS}
    return sums | {"sum_errors": Sum("requests", filter=Q(status__gte=400))}


def _totals(row: dict[str, Any]) -> Totals:
    return Totals(
        requests=row["sum_requests"] or 0,
        rows=row["sum_rows"] or 0,
        compute_ms=round((row["sum_compute_us"] or 0) / 1000, 3),
        errors=row["sum_errors"] or 0,
        charged_requests=row["sum_charged_requests"] or 0,
        charged_rows=row["sum_charged_rows"] or 0,
        shap_samples=row["sum_shap_samples"] or 0,
    )
