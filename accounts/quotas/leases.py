"""Lend quota units to the processes that answer calls, and count them exactly.

How the protocol works
----------------------
A quota is a counter in the database per customer, unit and UTC day or month. A process
that answers calls (a gateway, the site, a job) is a *holder*. It borrows blocks of
units that the counter has counted already, and spends them from memory.

Lending ahead. While much is left, a holder borrows more than it needs, the more the
faster it spends. It asks for the next block before the last is used up, so that no call
waits. A block is at most the holder's share of 1/16 of what is left: near the limit it
shrinks to what is needed at once.

Recall. Before a call is refused, every other holder of the window is asked to give up
its unspent units; then the request is tried again. So a limit of N admits exactly N
calls, however unevenly they come in.

Lost messages. Requests are numbered and say what their holder has. The next request
corrects what a lost answer, a time-out or a killed site left undone. The rules are in
`lending.py`, without a database; its simulation loses, delays and reorders messages.

Death. A holder is dead if no process writes its usage file any more. When that file is
read to its end, `settle` frees the unspent units.

Refusals. A holder remembers that nothing was left, for two seconds at first and for up
to a minute, because a call that fails on our side gives units back. A change of the
plan or customer clears it.

Overdraft. While the site is away, holders spend what they have, and then up to 5 % of
the limit more (MODELYARD_OVERDRAFT_PERCENT, for all gateways of a machine together and
across their restarts); after that they answer 503. The next answered request reports
the overdrawn units: they are part of the lease from then on, in `Lease.overdrawn`. If
the holder dies first, `settle` finds them in the usage.

Cost known afterwards. Time on the device and SHAP samples are reserved by an estimate
of what rows cost lately, and corrected when the call ends.
"""

import datetime
import functools
from collections.abc import Callable
from typing import TypeVar

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.admission.limits import LeaseGrant, LeaseRequest, Recall, Recalled
from accounts.admission.windows import window_of
from accounts.customers import plans
from accounts.models import Customer, Lease, QuotaCounter
from accounts.quotas import lending
from accounts.quotas.lending import Account, Loan
from accounts.usage import reading, roll_ups

# The limit of a quota that was removed from the plan: the asker does not know that yet,
# and must not be refused for it.
_NO_LIMIT = 1 << 62

Decision = TypeVar("Decision")

# Asks a holder to give up its units; None: it did not answer.
AskHolder = Callable[[str, Recall], Recalled | None]


class InvalidWindow(ValueError):
    """The requested window does not begin at a UTC day or month."""


class _Overtaken(Exception):
    """Another transaction changed the counter; this one is tried again."""


def grant(
    holder: str, request: LeaseRequest, *, ask_holder: AskHolder | None = None
) -> LeaseGrant:
    """Lend `request.units`, or what is left if it is at least `request.minimum`.

    The present plan has the limit. If less than the minimum is left, other holders are
    asked for theirs. Raise InvalidWindow if no window begins at the requested start.
    """
    steps = lending.answer(request)
    value: LeaseGrant | list[str] | Recalled | int | None = None
    try:
        while True:
            step = steps.send(value)
            match step:
                case lending.Lend():
                    value = _lend(holder, request, again=step.again)
                case lending.ListOthers():
                    value = [] if ask_holder is None else _others(holder, request)
                case lending.AskHolder():
                    assert ask_holder is not None, "nobody else was listed"
                    value = ask_holder(step.holder, _recall(request))
                case lending.TakeBack():
                    value = _take_back(step.holder, request, step.recalled)
    except StopIteration as stop:
        granted: LeaseGrant = stop.value
        return granted


def settle(holder: str) -> int:
    """Free the units that a dead process did not spend; return how many.

    Call it when the holder's usage is ingested to the end: spent units stay counted. A
    second call does nothing.
    """
    return sum(
        _settle(lease.pk)
        for lease in Lease.objects.filter(holder=holder, settled_at=None)
    )


def _lend(holder: str, request: LeaseRequest, *, again: bool) -> LeaseGrant:
    lend = lending.lend_again if again else lending.lend
    while True:
        try:
            with transaction.atomic():
                limit = _limit(request)
                if limit is None:
                    return LeaseGrant(units=0, remaining=0, unknown=True)
                counter = _counter(request)
                lease = _lease(counter, holder)
                holders = (
                    counter.leases.filter(settled_at=None, granted__gt=0)
                    .exclude(holder__startswith="job:")
                    .exclude(pk=lease.pk)
                    .count()
                    + 1
                )
                return _decide(
                    counter,
                    lease,
                    holders,
                    functools.partial(lend, request=request, limit=limit),
                )
        except _Overtaken:
            continue


def _others(holder: str, request: LeaseRequest) -> list[str]:
    """List the other holders of the window, without jobs, which have spent theirs."""
    return list(
        _leases(request)
        .filter(granted__gt=0)
        .exclude(holder=holder)
        .exclude(holder__startswith="job:")
        .values_list("holder", flat=True)
    )


def _take_back(holder: str, request: LeaseRequest, recalled: Recalled) -> int:
    lease = _leases(request).filter(holder=holder).first()
    if lease is None:
        return 0
    return _change(lease.pk, lambda account: lending.take_back(account, recalled))


def _recall(request: LeaseRequest) -> Recall:
    return Recall(
        customer_id=request.customer_id,
        key_id=request.key_id,
        quota=request.quota,
        unit=request.unit,
        window_start=request.window_start,
    )


def _settle(lease_id: int) -> int:
    lease = Lease.objects.select_related("counter").get(pk=lease_id)
    counter = lease.counter
    starts, ends = _window(counter.name, counter.window_start)
    spent = reading.charged_units(
        counter.customer_id,
        unit=counter.unit,
        starts_at=starts,
        ends_at=ends,
        # A holder's spool files are named after it.
        segment_prefix=f"{lease.holder}-",
        key_id=counter.key_id,
    )
    if starts < roll_ups.kept_from():
        # The usage by process is gone. The window is over, so nothing of it can be lent
        # again.
        spent = max(spent, lease.granted)
    return _change(lease_id, lambda account: lending.settle(account, spent=spent))


def _change(lease_id: int, decide: Callable[[Account], int]) -> int:
    while True:
        try:
            with transaction.atomic():
                lease = (
                    Lease.objects.select_for_update(of=("self",))
                    .select_related("counter")
                    .get(pk=lease_id)
                )
                return _decide(lease.counter, lease, 1, decide)
        except _Overtaken:
            continue


def _decide(
    counter: QuotaCounter,
    lease: Lease,
    holders: int,
    decide: Callable[[Account], Decision],
) -> Decision:
    """Decide on plain data and write what changed; raise _Overtaken if it is stale.

    Only the lease's row is locked, so several holders of a counter meet only in the
    guarded update.
    """
    loan = Loan(
        units=lease.granted,
        number=lease.request_number,
        overdrawn=lease.overdrawn,
        settled=lease.settled_at is not None,
    )
    account = Account(counted=counter.granted, loan=loan, holders=holders)
    decision = decide(account)
    if account.counted != counter.granted and not QuotaCounter.objects.filter(
        pk=counter.pk, granted=counter.granted
    ).update(granted=max(0, account.counted)):
        raise _Overtaken
    lease.granted = loan.units
    lease.request_number = loan.number
    lease.overdrawn = loan.overdrawn
    if not loan.settled:
        lease.settled_at = None
    elif lease.settled_at is None:
        lease.settled_at = timezone.now()
    lease.save(
        update_fields=[
            "granted",
            "request_number",
            "overdrawn",
            "settled_at",
            "renewed_at",
        ]
    )
    return decision


def _limit(request: LeaseRequest) -> int | None:
    """Return the limit of the requested quota; None if there is no such customer."""
    customer = (
        Customer.objects.select_related("plan")
        .filter(pk=request.customer_id, active=True)
        .first()
    )
    if customer is None:
        return None
    limits = plans.limits_of(customer)
    quotas = limits.quotas
    if request.key_id:
        key = customer.api_keys.filter(key_id=request.key_id).first()
        own = None if key is None else plans.key_limits_of(key.limited_as, limits)
        quotas = () if own is None else own.quotas
    for quota in quotas:
        if (quota.name, quota.unit) == (request.quota, request.unit):
            return quota.limit
    return _NO_LIMIT


def _counter(request: LeaseRequest) -> QuotaCounter:
    """Find the counter of the window, or make it, beginning with the units spent.

    That is above zero if a quota is added, or changes its unit, within a window.
    """
    window_start = _date(request.window_start)
    if window_of(request.quota, request.window_start)[0] != request.window_start:
        raise InvalidWindow(request.window_start)
    identity = {
        "customer_id": request.customer_id,
        "key_id": request.key_id,
        "name": request.quota,
        "unit": request.unit,
        "window_start": window_start,
    }
    counter = QuotaCounter.objects.filter(**identity).first()
    if counter is not None:
        return counter
    starts, ends = _window(request.quota, window_start)
    spent = reading.charged_units(
        request.customer_id,
        unit=request.unit,
        starts_at=starts,
        ends_at=ends,
        key_id=request.key_id,
    )
    counter, _ = QuotaCounter.objects.get_or_create(
        **identity, defaults={"granted": spent}
    )
    return counter


def _lease(counter: QuotaCounter, holder: str) -> Lease:
    lease, _ = Lease.objects.select_for_update().get_or_create(
        counter=counter, holder=holder
    )
    return lease


def _leases(request: LeaseRequest) -> QuerySet[Lease]:
    return Lease.objects.filter(
        settled_at=None,
        counter__customer_id=request.customer_id,
        counter__key_id=request.key_id,
        counter__name=request.quota,
        counter__unit=request.unit,
        counter__window_start=_date(request.window_start),
    ).order_by("pk")


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
