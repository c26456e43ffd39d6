"""Lending units of a quota, decided on plain data. Pure: no database, no clock.

An Account is one window's counter with one holder's loan of it. `counted` is all that
was lent to anybody or spent; it never exceeds the limit but for what was overdrawn, and
for a limit that was lowered.

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

So every message may get lost, or come late, or twice. A request states what its holder
has, not what changed; requests are numbered, and one that was overtaken is ignored.
What remains wrong after a loss is on the safe side, units that nobody may spend, and
only until the holder's next request, or its death.
"""

from collections.abc import Generator
from typing import Any

import msgspec

from accounts.admission.limits import LeaseGrant, LeaseRequest, Recalled

# Beyond what is needed, a holder gets at most its share of 1/16 of what is left.
_SHARE_OF_REMAINING = 16


class Loan(msgspec.Struct):
    """What one holder was lent in one window, spent or not."""

    units: int = 0
    # The last request that was answered.
    number: int = 0
    # Of `units`, those spent before they were lent.
    overdrawn: int = 0
    # Its holder was taken for dead, and what it had not spent is free again.
    settled: bool = False


class Account(msgspec.Struct):
    """One window's counter, and one holder's loan of it."""

    counted: int
    loan: Loan
    # Processes with a loan of this window, this one among them.
    holders: int = 1


class Lend(msgspec.Struct, frozen=True):
    """Answered by the LeaseGrant of `lend`; or of `lend_again`."""

    again: bool = False


class ListOthers(msgspec.Struct, frozen=True):
    """Answered by the names of the other holders that were lent something."""


class AskHolder(msgspec.Struct, frozen=True):
    """Answered by Recalled; None: there was no answer."""

    holder: str


class TakeBack(msgspec.Struct, frozen=True):
    """Answered by what `take_back` gives for this holder."""

    holder: str
    recalled: Recalled


Step = Lend | ListOthers | AskHolder | TakeBack


def answer(request: LeaseRequest) -> Generator[Step, Any, LeaseGrant]:
    """Carry one request out: recall what others hold before less than the minimum.

    Each step is a transaction or a message of its own; none is held while another
    holder is waited for.
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
    """Compare the loan with what its holder says it has; then lend what it needs."""
    loan = account.loan
    if request.number:
        if request.number <= loan.number:
            # Overtaken: the holder does not wait for this answer any more.
            return LeaseGrant(0, limit - account.counted, account.holders)
        loan.number = request.number
        _compare(account, request)
    loan.settled = False
    return _lend(account, request, limit=limit)


def lend_again(account: Account, request: LeaseRequest, *, limit: int) -> LeaseGrant:
    """Lend for a request that was compared before, after others gave up units."""
    if account.loan.number != request.number:
        # Meanwhile its holder gave up on it and made another.
        return LeaseGrant(0, limit - account.counted, account.holders)
    return _lend(account, request, limit=limit)


def take_back(account: Account, recalled: Recalled) -> int:
    """Free what a holder gave up, unless a later request has told of it already."""
    loan = account.loan
    if loan.settled or loan.number > recalled.number:
        return 0
    units = min(recalled.units, loan.units)
    loan.units -= units
    account.counted -= units
    return units


def settle(account: Account, *, spent: int) -> int:
    """End the loan of a dead holder; give what becomes free, below zero if overdrawn.

    `spent` is what its usage events say. It may be more than it was lent, if it died
    before it could tell that it had overdrawn.
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
        # A holder that says it has more was asked to give it up after it had said so.
        # One that was taken for dead spends what was given away behind its back.
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
