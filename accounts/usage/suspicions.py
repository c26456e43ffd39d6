"""Find patterns in usage that a leaked or misused key shows, for people to judge.

- growth: an hour with ten times the calls of the busiest hour of the week before;
- scanning: an hour with many calls for models that the key may not see;
- networks: a day on which a key was used from many networks.

No key is locked.
"""

import datetime
from collections.abc import Iterator

from django.db.models import Sum

from accounts.admission.networks import MOST_NETWORKS
from accounts.models import Suspicion
from accounts.usage import key_networks, reading, spans

_HOUR = datetime.timedelta(hours=1)
_WEEK = datetime.timedelta(days=7)
_GROWTH = 10
# With fewer calls in an hour, a factor means nothing.
_FEWEST_CALLS = 1000
_FEWEST_MISSES = 50
# A program runs in one place or a few, and a phone sees some ten networks in a day.
_MOST_NETWORKS = 20
_EXAMPLES = 3

Kind = Suspicion.Kind


def look(*, now: datetime.datetime) -> list[Suspicion]:
    """Store and return the suspicions of the last hour that are new today."""
    found = []
    key_networks.forget(now=now)
    for suspicion in (*_grown(now), *_scanning(now), *_roaming(now)):
        stored, is_new = Suspicion.objects.get_or_create(
            key_id=suspicion.key_id,
            kind=suspicion.kind,
            day=suspicion.day,
            defaults={
                "customer_id": suspicion.customer_id,
                "detail": suspicion.detail,
                "at": now,
            },
        )
        if is_new:
            found.append(stored)
    return found


def dismiss(suspicion: Suspicion, *, by: int | None, now: datetime.datetime) -> bool:
    """Note that a person found nothing wrong; False if it was dismissed before."""
    return bool(
        Suspicion.objects.filter(pk=suspicion.pk, dismissed_at=None).update(
            dismissed_at=now, dismissed_by_id=by
        )
    )


def _grown(now: datetime.datetime) -> Iterator[Suspicion]:
    calls = {
        (row["customer_id"], row["key_id"]): row["calls"]
        for row in spans.minutes(now - _HOUR, now)
        .order_by()
        .values("customer_id", "key_id")
        .annotate(calls=Sum("requests"))
        .filter(calls__gte=_FEWEST_CALLS)
    }
    week = spans.between(now - _WEEK, now - _HOUR, grain="hour").filter(
        key_id__in=[key_id for _, key_id in calls]
    )
    busiest: dict[str, int] = {}
    for row in reading.over_time(week, "hour", "key_id"):
        busiest[row["key_id"]] = max(row["requests"], busiest.get(row["key_id"], 0))
    for (customer_id, key_id), now_calls in calls.items():
        # A key that never called before is new; it does not grow.
        before = busiest.get(key_id, 0)
        if before and now_calls >= _GROWTH * before:
            detail = f"{now_calls:,} calls in an hour, at most {before:,} before"
            yield _suspicion(customer_id, key_id, Kind.GROWTH, detail, now)


def _scanning(now: datetime.datetime) -> Iterator[Suspicion]:
    misses = (
        spans.minutes(now - _HOUR, now)
        .filter(code="NOT_FOUND")
        .order_by()
        .values("customer_id", "key_id")
        .annotate(calls=Sum("requests"))
        .filter(calls__gte=_FEWEST_MISSES)
    )
    for row in misses:
        detail = f"{row['calls']:,} calls in an hour for models it cannot see"
        yield _suspicion(row["customer_id"], row["key_id"], Kind.SCANNING, detail, now)


def _roaming(now: datetime.datetime) -> Iterator[Suspicion]:
    today = now.astimezone(datetime.UTC).date()
    # Just after midnight, the last calls of yesterday are still being read.
    for row in key_networks.of_days((today - datetime.timedelta(days=1), today)):
        count = len(row.networks)
        if count <= _MOST_NETWORKS:
            continue
        more = " or more" if count == MOST_NETWORKS else ""
        examples = ", ".join(row.networks[:_EXAMPLES])
        detail = f"{count}{more} networks in a day, such as {examples}"
        found = _suspicion(row.customer_id, row.key_id, Kind.NETWORKS, detail, now)
        found.day = row.day
        yield found


def _suspicion(
    customer_id: int,
    key_id: str,
    kind: Suspicion.Kind,
    detail: str,
    now: datetime.datetime,
) -> Suspicion:
    return Suspicion(
        customer_id=customer_id,
        key_id=key_id,
        kind=kind,
        day=now.astimezone(datetime.UTC).date(),
        detail=detail,
        at=now,
    )
