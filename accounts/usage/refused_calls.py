"""Keep the newest calls that were refused or failed, one by one."""

import datetime
from collections import defaultdict
from collections.abc import Iterable

from django.db.models import QuerySet

from accounts.metering.event import UsageEvent
from accounts.models import Refusal

# Per customer and code. A client that keeps hammering must neither fill the database
# nor push out the one refusal that somebody asks about.
KEPT = 200
_REQUEST_ID_LENGTH = 128


def keep(events: Iterable[UsageEvent]) -> None:
    """Keep the newest refusals among events whose customers exist."""
    kinds: dict[tuple[int, str], list[UsageEvent]] = defaultdict(list)
    for event in events:
        if event.status >= 400:
            kinds[event.customer_id, event.code].append(event)
    if not kinds:
        return
    Refusal.objects.bulk_create(
        [_refusal(event) for kind in kinds.values() for event in kind[-KEPT:]],
        batch_size=500,
    )
    for customer_id, code in kinds:
        _forget_all_but_newest(customer_id, code)


def of_customer(customer_id: int, *, request_id: str = "") -> QuerySet[Refusal]:
    """Select a customer's refusals, newest first, or those with a request id."""
    own = Refusal.objects.filter(customer_id=customer_id)
    return own.filter(request_id=request_id) if request_id else own


def _refusal(event: UsageEvent) -> Refusal:
    return Refusal(
        customer_id=event.customer_id,
        key_id=event.key_id,
        request_id=event.request_id[:_REQUEST_ID_LENGTH],
        at=datetime.datetime.fromtimestamp(event.at, datetime.UTC),
        operation=event.operation,
        model=event.model,
        version=event.version,
        status=event.status,
        code=event.code,
        message=event.message,
        limit={} if event.limit is None else event.limit.facts(),
    )


def _forget_all_but_newest(customer_id: int, code: str) -> None:
    same = Refusal.objects.filter(customer_id=customer_id, code=code).order_by("-id")
    first_too_many = same.values_list("pk", flat=True)[KEPT : KEPT + 1].first()
    if first_too_many is not None:
        same.filter(pk__lte=first_too_many).delete()
