"""Hold the window of each limit, and what one process has counted in it."""

import datetime
from collections.abc import Iterable

from accounts.admission.limits import (
    LeaseGrant,
    LeaseRequest,
    Period,
    Quota,
    Rate,
    Recalled,
)

LIMIT_HEADER = b"X-RateLimit-Limit"
RESET_HEADER = b"X-RateLimit-Reset"

# Units in the first lease of a window; more while leases are spent fast.
_FIRST_BLOCK = 64
# A holder has at most 1/64 of a quota in hand, and of what is left at most its share
# of 1/16; so blocks shrink to the units that are needed as the limit comes near.
_SHARE_OF_LIMIT = 64
_SHARE_OF_REMAINING = 16
# A lease that is spent within this time makes the next one larger, …
_FAST_S = 1.0
# … but only once in this time, however many calls ask at the same moment.
_GROW_EVERY_S = 0.02
_SLOW_S = 30.0
# Units come back to a spent quota when a call fails, a holder dies or a clock is put
# right. So a site that had none left is asked again after this long, then later still.
_FIRST_PATIENCE_S = 2.0
_LONGEST_PATIENCE_S = 60.0
_UNKNOWN_CUSTOMER_S = 1.0
_CLOCK_TOLERANCE_S = 3600
# The next lease is asked for when a quarter of the last one is left.
_SHARE_OF_LEASE = 4
_NEVER_LOW = -(1 << 62)
# A call reserves at most a tenth of the quota.
_SHARE_OF_ESTIMATE = 10
# Weight of the newest call in the estimate of what a row costs.
_LEARN = 0.1


class Window:
    """A limit with its present span of time, and the headers that describe them."""

    __slots__ = (
        "ends",
        "limit",
        "limit_header",
        "name",
        "quoted_name",
        "reset_header",
        "share",
        "starts",
    )

    def __init__(self, name: str, limit: int) -> None:
        self.set_name(name)
        self.starts = 0
        # 0: no window has begun.
        self.ends = 0
        self.set_limit(limit)
        self.reset_header = (RESET_HEADER, b"0")

    def set_name(self, name: str) -> None:
        self.name = name
        self.quoted_name = b'"%b"' % name.encode()

    def set_limit(self, limit: int) -> None:
        self.limit = limit
        self.limit_header = (LIMIT_HEADER, b"%d" % limit)
        self.share = 1.0 / limit if limit else 0.0

    def begin(self, starts: int, ends: int) -> None:
        self.starts = starts
        self.ends = ends
        self.reset_header = (RESET_HEADER, b"%d" % ends)


class RateWindow(Window):
    __slots__ = ("cell", "earliest", "key", "left", "window_s")

    def __init__(self, rate: Rate, key: int = 0) -> None:
        super().__init__(rate.name, rate.quota)
        self.window_s = rate.window_s
        self.left = rate.quota
        # The clock may step back to here without leaving the window.
        self.earliest = 0
        # Where processes share its count: see accounts/admission/shared_counts.py.
        self.key = key
        self.cell = 0

    def roll(self, now: float) -> None:
        stepped_back = now < self.earliest
        starts = int(now // self.window_s) * self.window_s
        self.begin(starts, starts + self.window_s)
        self.earliest = starts - self.window_s
        if not stepped_back:
            self.left = self.limit

    def replace(self, rate: Rate) -> None:
        used = self.limit - self.left
        self.set_limit(rate.quota)
        self.left = rate.quota - used
        if rate.window_s == self.window_s:
            return
        self.window_s = rate.window_s
        starts = self.starts // rate.window_s * rate.window_s
        self.begin(starts, starts + rate.window_s)
        self.earliest = starts - rate.window_s

    def policy(self) -> bytes:
        return b"%s;q=%d;w=%d" % (self.quoted_name, self.limit, self.window_s)


class QuotaWindow(Window):
    """A quota's window and the lease of it: units that the site has counted already.

    `available` may be below zero, after a call that cost more than its estimate.
    """

    __slots__ = (
        "asked_at",
        "available",
        "believe_until",
        "block",
        "by_rows",
        "carried_us",
        "closed_until",
        "earliest",
        "given_up",
        "granted",
        "grew_at",
        "holders",
        "leased",
        "left",
        "low",
        "number",
        "numbered",
        "overdrawn",
        "patience_s",
        "post_paid",
        "quota",
        "reported",
        "row_cost",
        "spent",
        "withheld",
    )

    def __init__(self, quota: Quota, *, numbered: bool = True) -> None:
        super().__init__(quota.policy_name, quota.limit)
        self.quota = quota
        self.numbered = numbered
        self.by_rows = quota.unit == "rows"
        self.post_paid = quota.unit in ("compute_ms", "shap_samples")
        self.block = _FIRST_BLOCK
        self.asked_at = self.grew_at = 0.0
        self.earliest = 0
        # What a row cost lately, in units, and microseconds that are no whole unit yet.
        self.row_cost = 0.0
        self.carried_us = 0
        self.number = 0
        self.holders = 1
        self._empty()

    def _empty(self) -> None:
        self.available = 0
        # Leased units above a limit that was lowered since.
        self.withheld = 0
        self.spent = 0
        self.leased = 0
        # Units taken beyond the lease, and how many of them the site knows of.
        self.overdrawn = 0
        self.reported = 0
        # Units that the site had granted to all holders when it answered last.
        self.granted = 0
        self.left = self.limit
        # With fewer units in hand than this, more are asked for ahead.
        self.low = _NEVER_LOW
        # Answers to requests up to this number are ignored.
        self.given_up = self.number
        self.believe_until = 0.0
        self.closed_until = 0.0
        self.patience_s = _FIRST_PATIENCE_S

    def roll(self, now: float) -> None:
        starts, ends = window_of(self.quota.name, now)
        self.begin(starts, ends)
        self.earliest = starts - _CLOCK_TOLERANCE_S
        self._empty()

    def replace(self, quota: Quota) -> None:
        self.quota = quota
        self.set_name(quota.policy_name)
        self.set_limit(quota.limit)
        self.believe_until = self.closed_until = 0.0
        self.patience_s = _FIRST_PATIENCE_S
        self.weigh()

    def weigh(self) -> None:
        """Withhold leased units that the present limit does not cover."""
        held = self.available + self.withheld
        self.withheld = max(0, min(held, self.granted - self.limit))
        self.available = held - self.withheld
        self.left = max(0, self.limit - self.granted) + self.available

    def price(self, rows: int, explains: bool) -> int:
        """Return what a call costs; if that is known only afterwards, an estimate."""
        if self.by_rows:
            return rows
        if not self.post_paid:
            return 1
        if self.quota.unit == "shap_samples" and not explains:
            return 0
        expected = round(self.row_cost * rows)
        # One costly call must not keep out all later ones.
        return max(1, min(expected, self.limit // _SHARE_OF_ESTIMATE))

    def cost(self, compute_us: int, samples: int) -> int:
        """Return what a finished call costs a post-paid quota."""
        if self.quota.unit == "shap_samples":
            return samples
        units, self.carried_us = divmod(self.carried_us + compute_us, 1000)
        return units

    def learn(self, cost: float, rows: int) -> None:
        per_row = cost / rows
        known = self.row_cost
        self.row_cost = known + _LEARN * (per_row - known) if known else per_row

    def pay(self, units: int) -> None:
        self.available -= units
        self.left -= units
        self.spent += units

    # The lease

    def ask(self, customer_id: int, key_id: str, need: int, now: float) -> LeaseRequest:
        idle = now - self.asked_at
        if idle > _SLOW_S:
            self.block = max(_FIRST_BLOCK, self.block // 4)
        elif idle < _FAST_S and now - self.grew_at > _GROW_EVERY_S:
            self.block *= 4
            self.grew_at = now
        self.block = min(self.block, max(_FIRST_BLOCK, self.limit // _SHARE_OF_LIMIT))
        self.asked_at = now
        ahead = min(
            self.block,
            self.limit // _SHARE_OF_LIMIT,
            (self.limit - self.granted) // (_SHARE_OF_REMAINING * self.holders),
        )
        return self.request(customer_id, key_id, max(need, ahead), need)

    def request(
        self, customer_id: int, key_id: str, units: int, minimum: int
    ) -> LeaseRequest:
        self.number += 1
        return LeaseRequest(
            customer_id=customer_id,
            key_id=key_id,
            quota=self.quota.name,
            unit=self.quota.unit,
            window_start=self.starts,
            units=units,
            minimum=minimum,
            needed=minimum,
            number=self.number if self.numbered else 0,
            leased=self.leased,
            overdrawn=self.overdrawn,
        )

    def accept(self, request: LeaseRequest, grant: LeaseGrant, now: float) -> None:
        if request.number:
            if request.number <= self.given_up:
                return
            self.given_up = request.number
        if grant.unknown:
            self.closed_until = now + _UNKNOWN_CUSTOMER_S
            return
        self.leased += grant.units
        self.reported = request.overdrawn
        self.available += grant.units
        self.granted = self.limit - grant.remaining
        self.holders = max(1, grant.holders)
        if grant.units:
            self.patience_s = _FIRST_PATIENCE_S
            self.believe_until = 0.0
            self.low = grant.units // _SHARE_OF_LEASE
        elif request.minimum > 0:
            self.believe(now)
        self.weigh()

    def believe(self, now: float) -> None:
        """For a while, refuse calls that need more than the site had left."""
        self.believe_until = now + self.patience_s
        self.patience_s = min(2 * self.patience_s, _LONGEST_PATIENCE_S)

    def give_up_on(self, request: LeaseRequest) -> None:
        self.given_up = max(self.given_up, request.number)

    def stop_asking_ahead(self) -> None:
        self.low = _NEVER_LOW

    def overdraw(self, units: int) -> None:
        self.overdrawn += units
        self.available += units

    def give_back(self) -> Recalled:
        """Hand over unspent leased units; overdrawn units belong to nobody."""
        units = min(max(0, self.available + self.withheld), self.leased)
        self.leased -= units
        from_available = min(units, max(0, self.available))
        self.available -= from_available
        self.withheld -= units - from_available
        self.left = max(0, self.left - from_available)
        self.low = _NEVER_LOW
        return Recalled(units=units, number=self.number)

    def refuses(self, need: int, now: float) -> bool:
        """Return whether the site is sure to lend nothing, so need not be asked."""
        if now < self.closed_until:
            return True
        return now < self.believe_until and need > self.limit - self.granted

    def policy(self) -> bytes:
        return b'%s;q=%d;w=%d;qu="%s"' % (
            self.quoted_name,
            self.limit,
            self.ends - self.starts,
            self.quota.unit.encode(),
        )


def window_of(name: Period, now: float) -> tuple[int, int]:
    """Return the start and end of the UTC day or month of `now`, in epoch seconds."""
    if name == "day":
        starts = int(now // 86400) * 86400
        return starts, starts + 86400
    first, following = month_of(datetime.datetime.fromtimestamp(now, datetime.UTC))
    return int(first.timestamp()), int(following.timestamp())


def month_of(day: datetime.date) -> tuple[datetime.datetime, datetime.datetime]:
    """Return the start of a day's UTC month and of the next one."""
    first = datetime.datetime(day.year, day.month, 1, tzinfo=datetime.UTC)
    return first, (first + datetime.timedelta(days=32)).replace(day=1)


def merged(requests: Iterable[LeaseRequest]) -> LeaseRequest:
    """Merge requests into one: enough units for all, or the smallest minimum.

    Near the end of a quota blocks are small, and each caller would wait for a round
    trip of its own. The last request knows best what the holder has.
    """
    asked = sorted(requests, key=lambda request: request.number)
    last = asked[-1]
    if len(asked) == 1:
        return last
    needed = sum(request.needed for request in asked)
    return LeaseRequest(
        customer_id=last.customer_id,
        key_id=last.key_id,
        quota=last.quota,
        unit=last.unit,
        window_start=last.window_start,
        units=max(needed, *(request.units for request in asked)),
        minimum=min(request.minimum for request in asked),
        needed=needed,
        number=last.number,
        leased=last.leased,
        overdrawn=last.overdrawn,
    )
