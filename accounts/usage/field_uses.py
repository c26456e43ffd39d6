"""Record which optional inputs of a model each key used, day by day.

Only bits are kept, one for each input that callers may leave out; their meaning is the
version's. People who change a model learn from them whom the change concerns.
"""

import datetime
from collections.abc import Iterable, Mapping

from accounts.metering.event import UsageEvent
from accounts.models import FieldUse
from accounts.usage import grains

# A day more than people are told of.
KEEP = datetime.timedelta(days=31)
_IDENTITY = ("model", "day", "key_id", "version")
_Identity = tuple[str, datetime.date, str, str]


def keep(events: Iterable[UsageEvent]) -> None:
    """Add what events used whose customers exist; call in a transaction."""
    found: dict[_Identity, FieldUse] = {}
    for event in events:
        if event.used is None or event.status >= 400:
            continue
        day = grains.utc(event.at).date()
        identity = (event.model, day, event.key_id, event.version)
        row = found.get(identity)
        if row is None:
            row = found[identity] = FieldUse(
                customer_id=event.customer_id,
                **dict(zip(_IDENTITY, identity, strict=True)),
            )
        row.used |= event.used
        row.requests += 1
    if not found:
        return
    empty = [
        FieldUse(
            customer_id=row.customer_id,
            **{name: getattr(row, name) for name in _IDENTITY},
        )
        for row in found.values()
    ]
    FieldUse.objects.bulk_create(empty, ignore_conflicts=True)
    # Locked in one order, so that two transactions never wait for each other.
    stored = (
        FieldUse.objects.select_for_update()
        .filter(
            model__in={row.model for row in found.values()},
            day__in={row.day for row in found.values()},
            key_id__in={row.key_id for row in found.values()},
        )
        .order_by("pk")
    )
    changed = []
    for row in stored:
        new = found.get((row.model, row.day, row.key_id, row.version))
        if new is not None:
            row.used |= new.used
            row.requests += new.requests
            changed.append(row)
    FieldUse.objects.bulk_update(changed, ["used", "requests"], batch_size=500)


def without(
    model: str, *, bits: Mapping[str, int], since: datetime.datetime
) -> dict[str, int]:
    """Return the keys that used none of `bits`, each with the calls that show it.

    `bits` is by version; of a version that is not in it, any use counts. Only days that
    are later than that of `since` count, because it may begin within its day.
    """
    calls: dict[str, int] = {}
    using: set[str] = set()
    rows = FieldUse.objects.filter(model=model, day__gt=since.date())
    for key_id, version, used, requests in rows.values_list(
        "key_id", "version", "used", "requests"
    ):
        if version not in bits or used & bits[version]:
            using.add(key_id)
        calls[key_id] = calls.get(key_id, 0) + requests
    return {key_id: made for key_id, made in calls.items() if key_id not in using}


def forget_version(model: str, version: int) -> None:
    FieldUse.objects.filter(model=model, version=str(version)).delete()


def forget(*, now: datetime.datetime) -> None:
    FieldUse.objects.filter(day__lt=(now - KEEP).date()).delete()
