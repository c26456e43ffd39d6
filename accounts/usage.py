"""What was used: taking it in exactly once, and reading it back."""

import datetime
import functools
import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from django.db import transaction
from django.db.models import Count, Expression, F, Max, Min, Q, QuerySet, Sum, TextField
from django.db.models.functions import Cast, Trunc
from django.utils import timezone

from accounts import grains, key_networks, roll_ups
from accounts import refusals as refused_calls
from accounts.admission.admission import window_of
from accounts.grains import Grain
from accounts.metering.event import UsageEvent
from accounts.models import ApiKey, Customer, SpoolSegment, Usage, UsageDay, UsageHour

# `last_used_at` is a help for people: to the minute is enough, and saves writes.
_LAST_USED_STEP = datetime.timedelta(minutes=1)
_GRAINS: tuple[Grain, ...] = ("minute", "hour", "day")
# What each unit of a quota adds up.
_UNIT_FIELDS = {
    "requests": "charged_requests",
    "rows": "charged_rows",
    "compute_ms": "charged_compute_us",
    "shap_samples": "charged_shap_samples",
}
CHARGED = tuple(_UNIT_FIELDS.values())
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
    oldest = min(event.at for event in events)
    kept_from = roll_ups.lock_if_old(_time(oldest), now=timezone.now()).timestamp()
    late = [event for event in events if event.at < kept_from]
    roll_ups.add_late(_minutes(segment, late, {}).values())
    _add_minutes(segment, [event for event in events if event.at >= kept_from])
    refused_calls.keep(events)
    key_networks.keep(events)
    _note_last_use(events)


def _add_minutes(segment: str, events: list[UsageEvent]) -> None:
    if not events:
        return
    hours = {(event.customer_id, event.at // 3600 * 3600) for event in events}
    roll_ups.mark((customer_id, _time(start)) for customer_id, start in hours)
    # Nobody else writes this segment's rows: its SpoolSegment is locked. So reading
    # sums, adding to them and writing them back loses nothing.
    minutes = {_minute(event.at) for event in events}
    known = Usage.objects.filter(
        segment=segment, minute__gte=min(minutes), minute__lte=max(minutes)
    )
    touched = _minutes(segment, events, {_identity(row): row for row in known})
    Usage.objects.bulk_create(
        touched.values(),
        batch_size=500,
        update_conflicts=True,
        unique_fields=list(_IDENTITY),
        update_fields=[*Usage.SUMS, "latency_buckets", "slowest_us"],
    )


def _minutes(
    segment: str, events: Iterable[UsageEvent], known: dict[Identity, Usage]
) -> dict[Identity, Usage]:
    """Add events to the rows of their minutes, and return those rows."""
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
        row = touched.get(identity) or known.get(identity)
        if row is None:
            row = Usage(
                customer_id=event.customer_id,
                **dict(zip(_IDENTITY, identity, strict=True)),
            )
        touched[identity] = row
        _add_event(row, event)
    return touched


def _add_event(row: Usage, event: UsageEvent) -> None:
    if not row.requests:
        row.slowest_us = event.total_us
    elif row.slowest_us is not None:
        row.slowest_us = max(row.slowest_us, event.total_us)
    row.requests += 1
    row.rows += event.rows
    if event.charged:
        row.charged_requests += 1
        row.charged_rows += event.rows
        row.charged_compute_us += event.compute_us
        row.charged_shap_samples += event.shap_samples
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
        at = _time(seconds)
        ApiKey.objects.filter(
            Q(last_used_at=None) | Q(last_used_at__lt=at - _LAST_USED_STEP),
            key_id=key_id,
        ).update(last_used_at=at)


def _minute(seconds: float) -> datetime.datetime:
    return _start_of_minute(seconds // 60)


@functools.lru_cache(maxsize=4096)
def _start_of_minute(number: float) -> datetime.datetime:
    """Give the same object for the same minute: one that was hashed is so quickly."""
    return _time(number * 60)


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


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


def _ends_at(bucket: int) -> int:
    """Return the longest latency that a bucket holds, in microseconds."""
    return 100 << bucket


@dataclass(frozen=True, slots=True)
class Latencies:
    """How many calls lie in each bucket, and the slowest call.

    Where that was not kept yet, it is as slow as its bucket allows.
    """

    buckets: Mapping[int, int]
    slowest_us: int

    def percentile_ms(self, percent: float) -> float | None:
        """Return a percentile, interpolated within its bucket.

        As if latencies lay evenly in it, and in the last one up to the slowest call:
        off by half of the true value at most to the low side, and by the whole of it
        to the high side.
        """
        rank = sum(self.buckets.values()) * percent / 100
        seen = 0
        for bucket, count in sorted(self.buckets.items()):
            if seen + count >= rank:
                lower = _ends_at(bucket - 1) if bucket else 0
                upper = min(_ends_at(bucket), self.slowest_us)
                return (lower + (upper - lower) * (rank - seen) / count) / 1000
            seen += count
        return None


def latencies(span: "Span") -> Latencies:
    """Add up the latency buckets of the selected usage."""
    sums: Counter[int] = Counter()
    slowest_us = 0
    for part in span.parts:
        # As texts: many rows have the same ones, which are read once.
        of_one_text = (
            part.order_by()
            .values(text=Cast("latency_buckets", TextField()))
            .annotate(
                rows=Count("pk"), known=Count("slowest_us"), slowest=Max("slowest_us")
            )
        )
        for found in of_one_text.iterator():
            buckets = {int(name): n for name, n in json.loads(found["text"]).items()}
            for bucket, count in buckets.items():
                sums[bucket] += count * found["rows"]
            is_known = found["known"] == found["rows"]
            longest = found["slowest"] if is_known else _ends_at(max(buckets))
            slowest_us = max(slowest_us, longest)
    return Latencies(sums, slowest_us)


# Selecting


@dataclass(frozen=True, slots=True)
class Span:
    """Usage of a span of time: rows of days, hours and minutes that do not overlap.

    `at` of a row is when its day, hour or minute starts; none is longer than `grain`.
    """

    parts: tuple[QuerySet[Any], ...]
    grain: Grain = "day"

    def filter(self, **conditions: Any) -> "Span":
        """Keep calls of a kind, named by fields that all rows have."""
        parts = tuple(part.filter(**conditions) for part in self.parts)
        return Span(parts, self.grain)


def between(
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    *,
    customer_id: int | None = None,
    customer_ids: Collection[int] | None = None,
    grain: Grain = "day",
) -> Span:
    """Select usage from `starts_at` on and before `ends_at`, in the fewest rows.

    Of everybody, of one customer or of some. Where minutes are kept no more, an hour
    belongs to the span if its start does.
    """
    if customer_id is not None:
        customer_ids = [customer_id]
    known = roll_ups.rolled_up(starts_at, ends_at, customer_ids=customer_ids)
    ranges = grains.split(
        starts_at,
        ends_at,
        grain=grain,
        unrolled=known.unrolled,
        kept_from=known.kept_from,
    )
    found: list[tuple[type[UsageDay | UsageHour | Usage], str, list[grains.Range]]] = [
        (UsageDay, "start", ranges.days),
        (UsageHour, "start", ranges.hours),
        (Usage, "minute", ranges.minutes),
    ]
    own = Q() if customer_ids is None else Q(customer_id__in=customer_ids)
    return Span(
        tuple(
            model._default_manager.filter(own, _within(field, cut)).annotate(
                at=F(field)
            )
            for model, field, cut in found
            if cut
        ),
        grain,
    )


def _within(field: str, ranges: Iterable[grains.Range]) -> Q:
    return functools.reduce(
        operator.or_,
        (Q(**{f"{field}__gte": start, f"{field}__lt": end}) for start, end in ranges),
    )


def minutes(
    starts_at: datetime.datetime, ends_at: datetime.datetime
) -> QuerySet[Usage]:
    """Select usage minute by minute, of the time for which minutes are kept."""
    return Usage.objects.filter(minute__gte=starts_at, minute__lt=ends_at)


def of_minutes(rows: QuerySet[Usage]) -> Span:
    """Read some rows of minutes as a span."""
    return Span((rows.annotate(at=F("minute")),), "minute")


# Reading


class Totals(TypedDict):
    requests: int
    rows: int
    compute_ms: float
    errors: int
    charged_requests: int
    charged_rows: int
    shap_samples: int
    # What is billed, exactly.
    charged_compute_us: int
    charged_shap_samples: int


def totals(span: Span) -> Totals:
    """Add up the selected usage."""
    return _totals(_summed(span).get((), Counter()))


def most_used(span: Span, *fields: str) -> list[list[dict[str, Any]]]:
    """Count calls per value of each field, most requests first, in one reading."""
    sums = {name: each for name, each in _sums().items() if name in _COUNTS}
    rows = [
        dict(zip(fields, group, strict=True)) | counts
        for group, counts in _summed(span, *fields, sums=sums).items()
    ]
    return [
        sorted(per(rows, field), key=operator.itemgetter("requests"), reverse=True)
        for field in fields
    ]


# Adding up rows that were read already, instead of reading them again


def add_up(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Add up the counts of rows."""
    found = per(rows)
    return found[0] if found else dict.fromkeys(_COUNTS, 0)


def per(rows: Iterable[Mapping[str, Any]], *fields: str) -> list[dict[str, Any]]:
    """Add up the counts of rows per value of `fields`, in the order of these."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        sums = found.setdefault(
            tuple([row[field] for field in fields]), [0] * len(_COUNTS)
        )
        for place, name in enumerate(_COUNTS):
            sums[place] += row[name]
    return [
        dict(zip((*fields, *_COUNTS), (*group, *sums), strict=True))
        for group, sums in sorted(found.items())
    ]


def over_time(span: Span, bucket: Grain, *fields: str) -> list[dict[str, Any]]:
    """Add up the selected usage per UTC minute, hour or day, and value of `fields`."""
    assert _GRAINS.index(span.grain) <= _GRAINS.index(bucket), "rows are too long"

    def start_of(model: Any) -> Expression | F:
        # Cutting a time short is slow on SQLite; most are that short already.
        if _GRAIN_OF[model] == bucket:
            return F("at")
        return Trunc("at", bucket, tzinfo=datetime.UTC)

    return [
        dict(zip(("start", *fields), group, strict=True)) | _totals(sums)
        for group, sums in sorted(_summed(span, *fields, bucket=start_of).items())
    ]


def charged_by_period(
    span: Span, starts: Sequence[datetime.datetime], *fields: str
) -> list[dict[str, Any]]:
    """Add up what is charged of the selected usage per period and value of `fields`.

    Each period begins at one of `starts`, which are in order, and ends at the next; no
    selected row may be of two of them.
    """
    # Conditions of sums, not a group: PostgreSQL would sort all rows by a computed one.
    conditions = [Q(at__gte=start) for start in starts]
    for place, end in enumerate(starts[1:]):
        conditions[place] &= Q(at__lt=end)
    sums = {
        (place, field): Sum(field, filter=condition if len(starts) > 1 else None)
        for place, condition in enumerate(conditions)
        for field in CHARGED
    }
    return [
        {
            "start": start,
            **dict(zip(fields, group, strict=True)),
            **{field: found[place, field] for field in CHARGED},
        }
        for group, found in sorted(_summed(span, *fields, sums=sums).items())
        for place, start in enumerate(starts)
        if any(found[place, field] for field in CHARGED)
    ]


def _summed(
    span: Span,
    *fields: str,
    bucket: Callable[[Any], Expression | F] | None = None,
    sums: Mapping[Any, Sum] | None = None,
) -> dict[tuple[Any, ...], dict[Any, int]]:
    """Add up every part in the database, and the few sums of the parts here."""
    found: dict[tuple[Any, ...], list[int]] = {}
    sums = sums or _sums()
    named = {f"sum_{number}": each for number, each in enumerate(sums.values())}
    for part in span.parts:
        selected = part.order_by()
        groups = fields
        if bucket is not None:
            groups = ("bucket", *fields)
            selected = selected.annotate(bucket=bucket(part.model))
        rows: Iterable[tuple[Any, ...]] = (
            selected.values(*groups).annotate(**named).values_list(*groups, *named)
            if groups
            else [tuple(selected.aggregate(**named).values())]
        )
        for row in rows:
            added = [int(value or 0) for value in row[len(groups) :]]
            known = found.get(row[: len(groups)])
            if known is not None:
                added = list(map(operator.add, known, added))
            found[row[: len(groups)]] = added
    return {
        group: dict(zip(sums, added, strict=True)) for group, added in found.items()
    }


_COUNTS = ("requests", "rows", "charged_rows", "errors")
_GRAIN_OF: dict[Any, Grain] = {UsageDay: "day", UsageHour: "hour", Usage: "minute"}


def _sums() -> dict[str, Sum]:
    sums = {field: Sum(field) for field in Usage.SUMS}
    return sums | {"errors": Sum("requests", filter=Q(status__gte=400))}


def _totals(sums: Mapping[str, int]) -> Totals:
    return Totals(
        requests=sums["requests"],
        rows=sums["rows"],
        compute_ms=round(sums["compute_us"] / 1000, 3),
        errors=sums["errors"],
        charged_requests=sums["charged_requests"],
        charged_rows=sums["charged_rows"],
        shap_samples=sums["shap_samples"],
        charged_compute_us=sums["charged_compute_us"],
        charged_shap_samples=sums["charged_shap_samples"],
    )


class Refusals(TypedDict):
    status: int
    code: str
    count: int


def refusals(rows: Iterable[Mapping[str, Any]]) -> list[Refusals]:
    """Count the calls that were refused or failed, per status and code.

    Of rows that were read by these, most calls first.
    """
    refused = [row for row in rows if row["status"] >= 400]
    found = [
        Refusals(status=row["status"], code=row["code"], count=row["requests"])
        for row in per(refused, "status", "code")
    ]
    return sorted(found, key=operator.itemgetter("count"), reverse=True)


def quota_units(totals: Mapping[str, Any]) -> dict[str, int]:
    """Return what was spent of quotas in each unit."""
    return {
        unit: totals[field] // 1000 if unit == "compute_ms" else totals[field]
        for unit, field in _UNIT_FIELDS.items()
    }


def name_keys(customer_id: int, rows: list[dict[str, Any]]) -> None:
    """Name the key of each row; with its id where another has that name.

    A rotated key and the one that replaces it always have the same.
    """
    own = ApiKey.objects.filter(customer_id=customer_id)
    shown = own.filter(key_id__in=[row["key_id"] for row in rows])
    names = dict(shown.values_list("key_id", "name"))
    same = own.filter(name__in=set(names.values())).order_by().values("name")
    having = dict(same.annotate(keys=Count("pk")).values_list("name", "keys"))
    for row in rows:
        key_id = row["key_id"]
        name = names.get(key_id, "")
        several = having.get(name, 1) > 1
        row["name"] = f"{name} ({key_id})" if several else name or key_id


def name_customers(rows: Iterable[dict[str, Any]]) -> None:
    """Name the customer of each row."""
    rows = list(rows)
    known = Customer.objects.in_bulk([row["customer_id"] for row in rows])
    for row in rows:
        row["name"] = known[row["customer_id"]].name


def charged_units(
    customer_id: int,
    *,
    unit: str,
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    segment_prefix: str = "",
    key_id: str = "",
) -> int:
    """Add up the quota units spent, if asked for in the spool files of one process.

    With `key_id` only those of that key and of what replaced it by rotation.
    """
    if segment_prefix:
        # Hours and days do not tell which process a call came from.
        rows = minutes(starts_at, ends_at).filter(
            customer_id=customer_id, segment__startswith=segment_prefix
        )
        span = of_minutes(rows)
    else:
        span = between(starts_at, ends_at, customer_id=customer_id)
    if key_id:
        keys = ApiKey.objects.filter(customer_id=customer_id).sharing(key_id)
        # As values: the database would look for keys of every row again.
        span = span.filter(key_id__in=[key_id, *keys.values_list("key_id", flat=True)])
    return quota_units(totals(span))[unit]


def quota_used(
    customer_id: int,
    *,
    quota: Literal["day", "month"],
    unit: str,
    now: datetime.datetime,
    key_id: str = "",
) -> tuple[int, datetime.datetime]:
    """Return the units spent in the current window, and when it ends.

    With `key_id` only what that key has spent, and what replaced it by rotation.
    """
    starts, ends = (_time(seconds) for seconds in window_of(quota, now.timestamp()))
    units = charged_units(
        customer_id, unit=unit, starts_at=starts, ends_at=ends, key_id=key_id
    )
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
    *Usage.SUMS,
)
_CSV_KIND = ("customer__name", *CSV_COLUMNS[2:9])


def days(span: Span) -> list[datetime.datetime]:
    """Return each UTC day from the first one with selected usage to the last."""
    found: list[datetime.datetime] = []
    for part in span.parts:
        ends = part.order_by().aggregate(first=Min("at"), last=Max("at"))
        found += filter(None, ends.values())
    if not found:
        return []
    first, last = grains.day_of(min(found)), grains.day_of(max(found))
    return [first + number * grains.DAY for number in range((last - first).days + 1)]


def csv_rows(span: Span) -> Iterator[tuple[Any, ...]]:
    """Yield CSV_COLUMNS, then one row per day and kind of call.

    Each day is read when its rows are asked for, so that a file may be long.
    """
    yield CSV_COLUMNS
    for day in days(span):
        of_day = span.filter(at__gte=day, at__lt=day + grains.DAY)
        for kind, sums in sorted(_summed(of_day, *_CSV_KIND).items()):
            yield (
                day.date().isoformat(),
                *(plain_text(value) for value in kind),
                *(sums[field] for field in Usage.SUMS),
            )


# Also as Japanese keyboards type them; see OWASP, "CSV Injection".
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def plain_text(value: Any) -> Any:
    """Keep spreadsheets from reading text as a formula; numbers stay as they are."""
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"
