"""Record from which networks each key was used, day by day.

An address identifies a person, a network hardly: three bytes are kept of IPv4, six of
IPv6. Per key, process and day, one event carries each network.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable

from django.db.models import QuerySet

from accounts.admission.networks import MOST_NETWORKS
from accounts.metering.event import UsageEvent
from accounts.models import KeyNetworks

# The events themselves are kept as long.
KEEP = datetime.timedelta(days=7)


def keep(events: Iterable[UsageEvent]) -> None:
    """Add the networks of events whose customers exist; call in a transaction."""
    found: dict[tuple[int, str, datetime.date], list[str]] = defaultdict(list)
    for event in events:
        if event.network:
            at = datetime.datetime.fromtimestamp(event.at, datetime.UTC)
            found[event.customer_id, event.key_id, at.date()].append(event.network)
    for (customer_id, key_id, day), networks in found.items():
        row, _ = KeyNetworks.objects.select_for_update().get_or_create(
            key_id=key_id, day=day, defaults={"customer_id": customer_id}
        )
        both = dict.fromkeys([*row.networks, *networks])
        row.networks = list(both)[:MOST_NETWORKS]
        row.save(update_fields=["networks"])


def of_days(days: Iterable[datetime.date]) -> QuerySet[KeyNetworks]:
    return KeyNetworks.objects.filter(day__in=list(days)).order_by("day", "pk")


def forget(*, now: datetime.datetime) -> None:
    """Delete what is older than its events."""
    KeyNetworks.objects.filter(day__lt=(now - KEEP).date()).delete()
