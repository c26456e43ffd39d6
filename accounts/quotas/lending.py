"""Decide on plain data how to lend units of a quota: no database, no clock.

An Account is one window's counter with one holder's loan of it. `counted` is all units
that were lent or spent. It exceeds the limit only by overdrawn units, and if the limit
was lowered.

    holder                                  lender
      │  request 7: I have 40, need 3          │
      ├───────────────────────────────────────►│  loan was 50: 10 got lost on the way,
      │                                        │  they are free again; lend 3 or more
      │  grant: 5 units, 120 remain            │
      │◄───────────────────────────────────────┤
      │                                        │  another holder needs what nobody has
      │  recall                                │  left in hand but this one
      │◄───────────────────────────────────────┤
      │  2 units; request 7 was my last        │
      ├───────────────────────────────────────►│  free, unless request 8 was seen, which
                                                  has told it already

So every message may get lost, come late, or come twice. A request says what its holder
has, not what changed. Requests are numbered, and an overtaken request is ignored. A
loss errs on the safe side: for a while nobody may spend some units, until the holder's
next request or its death.
"""

from collections.abc import Generator
from typing import Any

import msgspec

from accounts.admission.limits import LeaseGrant, LeaseRequest, Recalled

# Beyond what it needs, a holder gets at most its share of 1/16 of what is left.
_SHARE_OF_REMAINING = 16


class Loan(msgspec.Struct):
    """The units that one holder was lent in one window, spent or not."""

    units: int = 0
    # The last request that was answered.
    number: int = 0
    # Part of `units` that was spent before it was lent.
    overdrawn: int = 0
    # Whether its holder was found dead, so that its unspent units are free again.
    settled: bool = False


class Account(msgspec.Struct):
    """One window's counter, and one holder's loan of it."""

    counted: int
    loan: Loan
    # Number of processes with a loan of this window, with this one.
    holders: int = 1


class Lend(msgspec.Struct, frozen=True):
    """Lend units; answered by the LeaseGrant of `lend`, or of `lend_again`."""

    again: bool = False


class ListOthers(msgspec.Struct, frozen=True):
    """List the other holders that were lent units; answered by their names."""


class AskHolder(msgspec.Struct, frozen=True):
    """Recall a holder's unspent units; answered by Recalled, or None for no answer."""

    holder: str


class TakeBack(msgspec.Struct, frozen=True):
    """Take back what a holder gave up; answered by the result of `take_back`."""

    holder: str
    recalled: Recalled


Step = Lend | ListOthers | AskHolder | TakeBack


def answer(request: LeaseRequest) -> Generator[Step, Any, LeaseGrant]:
    """Answer one request; recall units of other holders before refusing the minimum.

    Each step is a transaction or a message of its own. No transaction is open while the
    answer of another holder is waited for.
    """
    granted: LeaseGrant = yield Lend()
    if granted.units >= request.minimum or granted.unknown:
        return granted
    freed = 0
    for holder in (yield ListOthers()):
        recalled: Recalled | None = yield AskHolder(holder)
        if recalled is not None and recalled.units:
            freed += yield TakeBack(holder, recalled)
    if freed:
        granted = yield Lend(again=True)
    return granted


def lend(account: Account, request: LeaseRequest, *, limit: int) -> LeaseGrant:
    """Compare the loan with what its holder says it has, then lend what it needs."""
    loan = account.loan
    if request.number:
        if request.number <= loan.number:
            # Overtaken: the holder no longer waits for this answer.
            return LeaseGrant(0, limit - account.counted, account.holders)
        loan.number = request.number
        _compare(account, request)
    loan.settled = False
    return _lend(account, request, limit=limit)


def lend_again(account: Account, request: LeaseRequest, *, limit: int) -> LeaseGrant:
    """Lend after other holders gave up units; the loan was compared before."""
    if account.loan.number != request.number:
        # Meanwhile the holder gave up on this request and sent another.
        return LeaseGrant(0, limit - account.counted, account.holders)
    return _lend(account, request, limit=limit)


def take_back(account: Account, recalled: Recalled) -> int:
    """Free what a holder gave up, unless a later request has counted it already."""
    loan = account.loan
    if loan.settled or loan.number > recalled.number:
        return 0
    units = min(recalled.units, loan.units)
    loan.units -= units
    account.counted -= units
    return units


def settle(account: Account, *, spent: int) -> int:
    """End a dead holder's loan; return the freed units, below zero if overdrawn.

    `spent` comes from its usage events. It may be more than it was lent, if it died
    before it reported overdrawn units.
    """
    loan = account.loan
    if loan.settled:
        return 0
    free = loan.units - spent
    loan.units = spent
    loan.overdrawn += max(0, -free)
    loan.settled = True
    account.counted -= free
    return free


def _compare(account: Account, request: LeaseRequest) -> None:
    loan = account.loan
    has = request.leased
    if not loan.settled:
        # A holder that says it has more gave it up after it sent this request. A holder
        # that was wrongly found dead does have more, although others got those units.
        has = min(has, loan.units - loan.overdrawn)
    has += request.overdrawn
    account.counted += has - loan.units
    loan.units = has
    loan.overdrawn = request.overdrawn


def _lend(account: Account, request: LeaseRequest, *, limit: int) -> LeaseGrant:
    loan = account.loan
    left = limit - account.counted
    units = request.units
    if request.number:
        ahead = left // (_SHARE_OF_REMAINING * account.holders)
        units = max(request.minimum, request.needed, min(units, ahead))
    units = min(units, left)
    if units < request.minimum or units <= 0:
        return LeaseGrant(0, left, account.holders)
    loan.units += units
    account.counted += units
    return LeaseGrant(units, left - units, account.holders)
