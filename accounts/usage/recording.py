"""Record usage events in the database, each event of the spool once."""

import datetime
import functools
import operator
from collections.abc import Callable, Iterable

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.metering.event import UsageEvent
from accounts.models import ApiKey, Customer, SpoolSegment, Usage
from accounts.models.usage import USAGE_IDENTITY
from accounts.usage import field_uses, grains, key_networks, refused_calls, roll_ups
from accounts.usage.latencies import bucket_of

# `last_used_at` is for people: a minute is exact enough, and saves writes.
_LAST_USED_STEP = datetime.timedelta(minutes=1)
Identity = tuple[str, str, str, str, str, str, datetime.datetime, int, str]
_identity: Callable[[Usage], Identity] = operator.attrgetter(*USAGE_IDENTITY)


@transaction.atomic
def record(
    segment: str,
    events: Iterable[UsageEvent],
    ingested_bytes: int,
    *,
    start_bytes: int | None = None,
    also: Callable[[list[UsageEvent]], None] | None = None,
) -> bool:
    """Add events to usage and advance the segment's offset, both or neither.

    `also` gets the same events in the same transaction.

    Return False and add nothing if the offset is there already, or if it is not at
    `start_bytes`, where the events were read from.
    """
    place, _ = SpoolSegment.objects.select_for_update().get_or_create(name=segment)
    if place.ingested_bytes >= ingested_bytes:
        return False
    if start_bytes is not None and place.ingested_bytes != start_bytes:
        return False
    events = list(events)
    _add(segment, events)
    if also is not None:
        also(events)
    place.ingested_bytes = ingested_bytes
    place.save(update_fields=["ingested_bytes"])
    return True


def _add(segment: str, events: list[UsageEvent]) -> None:
    # Nobody can be billed for events of a deleted customer, or of no customer.
    known = set(
        Customer.objects.filter(
            pk__in={event.customer_id for event in events}
        ).values_list("pk", flat=True)
    )
    events = [event for event in events if event.customer_id in known]
    if not events:
        return
    oldest = min(event.at for event in events)
    kept_from = roll_ups.lock_if_old(grains.utc(oldest), now=timezone.now()).timestamp()
    late = [event for event in events if event.at < kept_from]
    roll_ups.add_late(_minutes(segment, late, {}).values())
    _add_minutes(segment, [event for event in events if event.at >= kept_from])
    refused_calls.keep(events)
    key_networks.keep(events)
    field_uses.keep(events)
    _note_last_use(events)


def _add_minutes(segment: str, events: list[UsageEvent]) -> None:
    if not events:
        return
    hours = {(event.customer_id, event.at // 3600 * 3600) for event in events}
    roll_ups.mark((customer_id, grains.utc(start)) for customer_id, start in hours)
    # Only this transaction writes the segment's rows: its SpoolSegment is locked. So
    # sums can be read, added to and written back.
    minutes = {_minute(event.at) for event in events}
    known = Usage.objects.filter(
        segment=segment, minute__gte=min(minutes), minute__lte=max(minutes)
    )
    touched = _minutes(segment, events, {_identity(row): row for row in known})
    Usage.objects.bulk_create(
        touched.values(),
        batch_size=500,
        update_conflicts=True,
        unique_fields=list(USAGE_IDENTITY),
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
                **dict(zip(USAGE_IDENTITY, identity, strict=True)),
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
    # Two clocks may disagree by a little; the total is never less than its part.
    row.total_us += max(event.total_us, event.compute_us)
    row.shap_samples += event.shap_samples
    bucket = str(bucket_of(event.total_us))
    row.latency_buckets[bucket] = row.latency_buckets.get(bucket, 0) + 1


def _note_last_use(events: list[UsageEvent]) -> None:
    last: dict[str, float] = {}
    for event in events:
        last[event.key_id] = max(event.at, last.get(event.key_id, 0.0))
    for key_id, seconds in last.items():
        at = grains.utc(seconds)
        ApiKey.objects.filter(
            Q(last_used_at=None) | Q(last_used_at__lt=at - _LAST_USED_STEP),
            key_id=key_id,
        ).update(last_used_at=at)


def _minute(seconds: float) -> datetime.datetime:
    return _start_of_minute(seconds // 60)


@functools.lru_cache(maxsize=4096)
def _start_of_minute(number: float) -> datetime.datetime:
    """Return the same object for the same minute: hashed before, it hashes quickly."""
    return grains.utc(number * 60)
