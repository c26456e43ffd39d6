"""Quota units lent to the processes that answer calls, counted exactly.

`QuotaCounter.granted` holds all units of one window that were lent or spent. It grows
by one conditional UPDATE that the limit guards, so that no two processes can be lent
the same unit. A process returns what it did not spend; for one that died, `settle`
returns it, once its usage has been read to the end.
"""

import datetime

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from accounts import plans, usage
from accounts.admission import window_of
from accounts.limits import LeaseGrant, LeaseRequest, LeaseReturn, Quota
from accounts.models import Customer, Lease, QuotaCounter

# Stands for the limit of a quota that the plan has no more: the asker has not heard
# of that yet, and is not to be refused for it.
_NO_LIMIT = 1 << 62


class InvalidWindow(ValueError):
    """The window asked for is no UTC day or month."""


@transaction.atomic
def grant(holder: str, request: LeaseRequest) -> LeaseGrant:
    """Lend `request.units`, or what is left if that is `request.minimum` at least.

    The limit is that of the plan as it is now. Raise InvalidWindow for a start at
    which no window begins.
    """
    limit = _limit(request)
    if limit is None:
        return LeaseGrant(units=0, remaining=0)
    counter = _counter(request)
    units, granted = _count(counter, request, limit)
    if units:
        _add_to_lease(counter, holder, units)
    return LeaseGrant(units=units, remaining=limit - granted)


@transaction.atomic
def release(holder: str, returned: LeaseReturn) -> bool:
    """Take unspent units back; False if the holder has not got as many."""
    lease = Lease.objects.filter(
        holder=holder,
        settled_at=None,
        counter__customer_id=returned.customer_id,
        counter__name=returned.quota,
        counter__unit=returned.unit,
        counter__window_start=_date(returned.window_start),
    ).first()
    if lease is None:
        return False
    taken = Lease.objects.filter(
        pk=lease.pk, settled_at=None, granted__gte=returned.units
    ).update(granted=F("granted") - returned.units)
    if taken:
        _give_back(lease.counter_id, returned.units)
    return bool(taken)


def settle(holder: str) -> int:
    """Give back what a dead process was lent and did not spend; return the units.

    Call it once the holder's usage is ingested to the end: what that says was spent
    stays counted. A second call finds nothing left to do.
    """
    return sum(
        _settle(lease.pk)
        for lease in Lease.objects.filter(holder=holder, settled_at=None)
    )


@transaction.atomic
def _settle(lease_id: int) -> int:
    lease = (
        Lease.objects.select_for_update(of=("self",))
        .select_related("counter")
        .get(pk=lease_id)
    )
    if lease.settled_at is not None:
        return 0
    counter = lease.counter
    starts, ends = _window(counter.name, counter.window_start)
    spent = usage.charged_units(
        counter.customer_id,
        unit=counter.unit,
        starts_at=starts,
        ends_at=ends,
        # A holder's spool files are named after it.
        segment_prefix=f"{lease.holder}-",
    )
    unspent = max(0, lease.granted - spent)
    lease.granted -= unspent
    lease.settled_at = timezone.now()
    lease.save(update_fields=["granted", "settled_at"])
    if unspent:
        _give_back(counter.pk, unspent)
    return unspent


def _limit(request: LeaseRequest) -> int | None:
    """Return the limit of the quota asked for; None for a customer that is refused."""
    customer = (
        Customer.objects.select_related("plan")
        .filter(pk=request.customer_id, active=True)
        .first()
    )
    if customer is None:
        return None
    quotas: tuple[Quota, ...] = plans.limits_of(customer).quotas
    for quota in quotas:
        if (quota.name, quota.unit) == (request.quota, request.unit):
            return quota.limit
    return _NO_LIMIT


def _counter(request: LeaseRequest) -> QuotaCounter:
    """Find the counter of the window, or begin it with what usage says was spent.

    It begins above zero when a quota is added, or changes its unit, in mid-window.
    """
    window_start = _date(request.window_start)
    if window_of(request.quota, request.window_start)[0] != request.window_start:
        raise InvalidWindow(request.window_start)
    counter = QuotaCounter.objects.filter(
        customer_id=request.customer_id,
        name=request.quota,
        unit=request.unit,
        window_start=window_start,
    ).first()
    if counter is not None:
        return counter
    starts, ends = _window(request.quota, window_start)
    counter, _ = QuotaCounter.objects.get_or_create(
        customer_id=request.customer_id,
        name=request.quota,
        unit=request.unit,
        window_start=window_start,
        defaults={
            "granted": usage.charged_units(
                request.customer_id, unit=request.unit, starts_at=starts, ends_at=ends
            )
        },
    )
    return counter


def _count(counter: QuotaCounter, request: LeaseRequest, limit: int) -> tuple[int, int]:
    """Count as many units as fit; return them and the sum granted to all."""
    granted = counter.granted
    while True:
        units = min(request.units, limit - granted)
        if units < request.minimum or units <= 0:
            return 0, granted
        counted = QuotaCounter.objects.filter(
            pk=counter.pk, granted=granted, granted__lte=limit - units
        ).update(granted=F("granted") + units)
        if counted:
            return units, granted + units
        # Someone else was faster: look again. Cannot happen on SQLite, where this
        # transaction is the only one that writes.
        granted = QuotaCounter.objects.values_list("granted", flat=True).get(
            pk=counter.pk
        )


def _add_to_lease(counter: QuotaCounter, holder: str, units: int) -> None:
    lease, created = Lease.objects.get_or_create(
        counter=counter, holder=holder, defaults={"granted": units}
    )
    if not created:
        # A holder that was settled and asks again was not dead after all.
        Lease.objects.filter(pk=lease.pk).update(
            granted=F("granted") + units, settled_at=None, renewed_at=timezone.now()
        )


def _give_back(counter_id: int, units: int) -> None:
    QuotaCounter.objects.filter(pk=counter_id).update(granted=F("granted") - units)


def _date(seconds: int) -> datetime.date:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date()


def _window(
    name: str, window_start: datetime.date
) -> tuple[datetime.datetime, datetime.datetime]:
    midnight = datetime.datetime.combine(
        window_start, datetime.time(), tzinfo=datetime.UTC
    )
    starts, ends = window_of("day" if name == "day" else "month", midnight.timestamp())
    return (
        datetime.datetime.fromtimestamp(starts, datetime.UTC),
        datetime.datetime.fromtimestamp(ends, datetime.UTC),
    )
