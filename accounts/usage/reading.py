"""Read recorded usage back: totals, series over time, refusals and units spent."""

import datetime
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from django.db.models import Count, Expression, F, Q, Sum
from django.db.models.functions import Trunc

from accounts.admission.windows import window_of
from accounts.models import ApiKey, Customer, Usage, UsageDay, UsageHour
from accounts.usage import field_uses, grains
from accounts.usage.grains import Grain
from accounts.usage.spans import _GRAINS, Span, between, minutes, of_minutes

# The field that each unit of a quota adds up.
_UNIT_FIELDS = {
    "requests": "charged_requests",
    "rows": "charged_rows",
    "compute_ms": "charged_compute_us",
    "shap_samples": "charged_shap_samples",
}
CHARGED = tuple(_UNIT_FIELDS.values())

_RECENT = datetime.timedelta(days=30)


class Totals(TypedDict):
    requests: int
    rows: int
    compute_ms: float
    errors: int
    charged_requests: int
    charged_rows: int
    shap_samples: int
    # Billed exactly, so not rounded.
    charged_compute_us: int
    charged_shap_samples: int


def totals(span: Span) -> Totals:
    """Add up the selected usage."""
    return _totals(summed(span).get((), Counter()))


def most_used(span: Span, *fields: str) -> list[list[dict[str, Any]]]:
    """Count calls per value of each field, most requests first; read usage once."""
    sums = {name: each for name, each in _sums().items() if name in _COUNTS}
    rows = [
        dict(zip(fields, group, strict=True)) | counts
        for group, counts in summed(span, *fields, sums=sums).items()
    ]
    return [
        sorted(per(rows, field), key=operator.itemgetter("requests"), reverse=True)
        for field in fields
    ]


# These add up rows that were read already, instead of reading them again.


def add_up(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Add up the counts of rows."""
    found = per(rows)
    return found[0] if found else dict.fromkeys(_COUNTS, 0)


def per(rows: Iterable[Mapping[str, Any]], *fields: str) -> list[dict[str, Any]]:
    """Add up the counts of rows per value of `fields`, ordered by these."""
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
        # To truncate a time is slow on SQLite, and most are truncated already.
        if _GRAIN_OF[model] == bucket:
            return F("at")
        return Trunc("at", bucket, tzinfo=datetime.UTC)

    return [
        dict(zip(("start", *fields), group, strict=True)) | _totals(sums)
        for group, sums in sorted(summed(span, *fields, bucket=start_of).items())
    ]


def charged_by_period(
    span: Span, starts: Sequence[datetime.datetime], *fields: str
) -> list[dict[str, Any]]:
    """Add up the charged part of the selected usage per period and value of `fields`.

    Each period begins at one of `starts`, which are in order, and ends at the next. No
    selected row may belong to two periods.
    """
    # Conditions of sums: PostgreSQL would sort all rows by a computed group.
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
        for group, found in sorted(summed(span, *fields, sums=sums).items())
        for place, start in enumerate(starts)
        if any(found[place, field] for field in CHARGED)
    ]


def summed(
    span: Span,
    *fields: str,
    bucket: Callable[[Any], Expression | F] | None = None,
    sums: Mapping[Any, Sum] | None = None,
) -> dict[tuple[Any, ...], dict[Any, int]]:
    """Add up each part of the span in the database, and the sums of the parts here."""
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


class StatusCount(TypedDict):
    status: int
    code: str
    count: int


def refusals(rows: Iterable[Mapping[str, Any]]) -> list[StatusCount]:
    """Count refused and failed calls per status and code, most calls first.

    The rows must have been read by status and code.
    """
    refused = [row for row in rows if row["status"] >= 400]
    found = [
        StatusCount(status=row["status"], code=row["code"], count=row["requests"])
        for row in per(refused, "status", "code")
    ]
    return sorted(found, key=operator.itemgetter("count"), reverse=True)


def quota_units(totals: Mapping[str, Any]) -> dict[str, int]:
    """Return the quota units spent, by unit."""
    return {
        unit: totals[field] // 1000 if unit == "compute_ms" else totals[field]
        for unit, field in _UNIT_FIELDS.items()
    }


def name_keys(customer_id: int, rows: list[dict[str, Any]]) -> None:
    """Set the key's name in each row, with its id if another key has the same name.

    A rotated key and its replacement always have the same name.
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
    """Set the customer's name in each row."""
    rows = list(rows)
    known = Customer.objects.in_bulk([row["customer_id"] for row in rows])
    for row in rows:
        row["name"] = known[row["customer_id"]].name


def callers_of(
    model: str,
    *,
    now: datetime.datetime,
    most: int = 10,
    using: Mapping[str, int] | None = None,
) -> tuple[list[str], int]:
    """Name the keys that a model answered in the last 30 days, most calls first.

    Returns the customer and key of `most` of them, and how many there are. `using`
    leaves out keys none of whose calls used these optional inputs: bits by version.
    A key with calls of which nobody knows, as of jobs, stays.
    """
    since = now - _RECENT
    span = between(since, now).filter(model=model, status__lt=400)
    sums = {"requests": Sum("requests")}
    found = summed(span, "customer_id", "key_id", sums=sums)
    if using is not None:
        without = field_uses.without(model, bits=using, since=since)
        found = {
            group: counts
            for group, counts in found.items()
            if counts["requests"] > without.get(str(group[1]), 0)
        }
    ordered = sorted(found, key=lambda group: (-found[group]["requests"], group))
    named = []
    for customer_id, key_id in ordered[:most]:
        row = {"customer_id": customer_id, "key_id": key_id}
        name_keys(customer_id, [row])
        key = row["name"]
        name_customers([row])
        named.append(f"{row['name']} (key {key})")
    return named, len(found)


def charged_units(
    customer_id: int,
    *,
    unit: str,
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    segment_prefix: str = "",
    key_id: str = "",
) -> int:
    """Add up the quota units that were spent.

    With `segment_prefix`, only those in the spool files of one process. With `key_id`,
    only those of that key and of the keys that replaced it by rotation.
    """
    if segment_prefix:
        # Only minutes record which process a call came from.
        rows = minutes(starts_at, ends_at).filter(
            customer_id=customer_id, segment__startswith=segment_prefix
        )
        span = of_minutes(rows)
    else:
        span = between(starts_at, ends_at, customer_id=customer_id)
    if key_id:
        keys = ApiKey.objects.filter(customer_id=customer_id).sharing(key_id)
        # A list: with a subquery the database would look for the keys of every row.
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

    With `key_id`, only those of that key and of the keys that replaced it by rotation.
    """
    window = window_of(quota, now.timestamp())
    starts, ends = (grains.utc(seconds) for seconds in window)
    units = charged_units(
        customer_id, unit=unit, starts_at=starts, ends_at=ends, key_id=key_id
    )
    return units, ends
