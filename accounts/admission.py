"""Whether one customer's call may go on, decided in memory. Pure.

Rates are fixed windows since the epoch; quotas are spent from leases, blocks of units
that the site has already counted. The caller passes the clock in, as epoch seconds.

A clock that steps back a little stays in the window it has reached. One that steps
back by more than a window starts over there, without what was already used up being
given again: so a wrong clock never admits more, and never locks anyone out for long.
"""

import datetime
from typing import Literal

import msgspec

from accounts.limits import (
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    Limits,
    Quota,
    Rate,
)

# What the first lease of a window asks for; grows while leases are spent fast.
_FIRST_BLOCK = 64
# A holder has at most 1/64 of a quota and 1/16 of what is left of it in hand.
_SHARE_OF_LIMIT = 64
_SHARE_OF_REMAINING = 16
# Leases spent within this time make the next ones larger, …
_FAST_S = 1.0
# … but once per this time only, however many calls ask in the same moment.
_GROW_EVERY_S = 0.02
_SLOW_S = 30.0
# Units come back to a spent quota only when another holder dies or gives up some, so
# a site that said "none left" is believed this long before it is asked again.
_ASK_AGAIN_S = 10.0
_CLOCK_TOLERANCE_S = 3600
_CONCURRENCY_RETRY_S = 1.0
_UNKNOWN = 1 << 62

Kind = Literal["rate", "quota", "concurrency"]


class Refusal(msgspec.Struct, frozen=True):
    """Why a call is refused; waiting `retry_after_s` gets past this limit."""

    kind: Kind
    limit_name: str
    retry_after_s: float
    message: str


class _Window:
    """What rates and quotas share: a span of time, a limit, and its header texts."""

    __slots__ = ("ends", "limit", "limit_text", "name", "reset_text", "share", "starts")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.starts = 0
        # 0: no window has begun.
        self.ends = 0
        self.set_limit(limit)
        self.reset_text = b"0"

    def set_limit(self, limit: int) -> None:
        self.limit = limit
        self.limit_text = b"%d" % limit
        self.share = 1.0 / limit if limit else 0.0

    def begin(self, starts: int, ends: int) -> None:
        self.starts = starts
        self.ends = ends
        self.reset_text = b"%d" % ends


class _RateWindow(_Window):
    __slots__ = ("earliest", "left", "window_s")

    def __init__(self, rate: Rate) -> None:
        super().__init__(rate.name, rate.quota)
        self.window_s = rate.window_s
        self.left = rate.quota
        # The clock may step back to here without leaving the window.
        self.earliest = 0

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
        return b'"%s";q=%d;w=%d' % (self.name.encode(), self.limit, self.window_s)


class _QuotaWindow(_Window):
    __slots__ = (
        "asked_at",
        "available",
        "believe_until",
        "block",
        "by_rows",
        "earliest",
        "granted",
        "grew_at",
        "left",
        "quota",
        "spent",
        "withheld",
    )

    def __init__(self, quota: Quota) -> None:
        super().__init__(quota.name, quota.limit)
        self.quota = quota
        self.by_rows = quota.unit == "rows"
        self.block = _FIRST_BLOCK
        self.asked_at = self.grew_at = 0.0
        self.earliest = 0
        self._empty()

    def _empty(self) -> None:
        self.available = 0
        # Leased, but over a limit that was lowered since.
        self.withheld = 0
        self.spent = 0
        # What the site has granted to all holders, as far as this one knows.
        self.granted = 0
        self.left = self.limit
        self.believe_until = 0.0

    def roll(self, now: float) -> None:
        starts, ends = window_of(self.quota.name, now)
        self.begin(starts, ends)
        self.earliest = starts - _CLOCK_TOLERANCE_S
        self._empty()

    def replace(self, quota: Quota) -> None:
        self.quota = quota
        self.set_limit(quota.limit)
        self.believe_until = 0.0
        self.weigh()

    def weigh(self) -> None:
        """Withhold leased units that the limit, as it is now, does not cover."""
        held = self.available + self.withheld
        self.withheld = min(held, max(0, self.granted - self.limit))
        self.available = held - self.withheld
        self.left = max(0, self.limit - self.granted) + self.available

    def ask(self, customer_id: int, need: int, now: float) -> LeaseRequest:
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
            (self.limit - self.granted) // _SHARE_OF_REMAINING,
        )
        return LeaseRequest(
            customer_id=customer_id,
            quota=self.quota.name,
            unit=self.quota.unit,
            window_start=self.starts,
            units=max(need, ahead),
            minimum=need,
        )

    def accept(self, grant: LeaseGrant, now: float) -> None:
        self.available += grant.units
        self.granted = self.limit - grant.remaining
        self.believe_until = now + _ASK_AGAIN_S
        self.weigh()

    def policy(self) -> bytes:
        return b'"%s";q=%d;w=%d;qu="%s"' % (
            self.name.encode(),
            self.limit,
            self.ends - self.starts,
            self.quota.unit.encode(),
        )


class Admission:
    """One customer's counts in this process."""

    __slots__ = (
        "_customer_id",
        "_in_flight",
        "_max_concurrency",
        "_policy",
        "_policy_until",
        "_quotas",
        "_rates",
        "_retired",
        "_windows",
        "limits",
    )

    def __init__(self, customer_id: int, limits: Limits) -> None:
        self._customer_id = customer_id
        self._in_flight = 0
        self._rates: list[_RateWindow] = []
        self._quotas: list[_QuotaWindow] = []
        # Quotas that a plan change removed while units of them were in hand.
        self._retired: list[_QuotaWindow] = []
        self.replace_limits(limits)

    def replace_limits(self, limits: Limits) -> None:
        """Change the limits and keep what was counted under the same names."""
        self.limits = limits
        self._max_concurrency = limits.max_concurrency or _UNKNOWN
        rates = {rate.name: rate for rate in self._rates}
        self._rates = []
        for new_rate in limits.rates:
            rate = rates.get(new_rate.name)
            if rate is None:
                rate = _RateWindow(new_rate)
            else:
                rate.replace(new_rate)
            self._rates.append(rate)
        quotas = {
            (quota.quota.name, quota.quota.unit): quota
            for quota in (*self._retired, *self._quotas)
        }
        self._quotas = []
        for new_quota in limits.quotas:
            quota = quotas.pop((new_quota.name, new_quota.unit), None)
            if quota is None:
                quota = _QuotaWindow(new_quota)
            else:
                quota.replace(new_quota)
            self._quotas.append(quota)
        self._retired = [
            quota for quota in quotas.values() if quota.available + quota.withheld
        ]
        self._windows: tuple[_RateWindow | _QuotaWindow, ...] = (
            *self._rates,
            *self._quotas,
        )
        self._policy = (b"RateLimit-Policy", b"")
        self._policy_until = 0

    def enter(self, now: float) -> Refusal | None:
        """Count one call; call `leave` once when it is over unless it was refused.

        Nothing is counted unless every rate has room.
        """
        if self._in_flight >= self._max_concurrency:
            return self._too_many_at_once()
        for rate in self._rates:
            if now >= rate.ends or now < rate.earliest:
                rate.roll(now)
            if rate.left <= 0:
                return self._too_fast(now)
        for rate in self._rates:
            rate.left -= 1
        self._in_flight += 1
        return None

    def leave(self) -> None:
        self._in_flight -= 1

    def spend(self, rows: int, now: float) -> Refusal | LeaseRequest | None:
        """Spend one request of `rows` rows from every quota, or from none.

        A LeaseRequest asks the caller to fetch it, `accept` the grant, and spend again.
        """
        for quota in self._quotas:
            if now >= quota.ends or now < quota.earliest:
                quota.roll(now)
            need = (rows if quota.by_rows else 1) - quota.available
            if need > 0:
                if now < quota.believe_until and need > quota.limit - quota.granted:
                    return self._spent(quota, rows, now)
                return quota.ask(self._customer_id, need, now)
        for quota in self._quotas:
            units = rows if quota.by_rows else 1
            quota.available -= units
            quota.left -= units
            quota.spent += units
        return None

    def refund(self, rows: int, now: float) -> None:
        """Undo a spend; `now` is the time that spend was given.

        A window that has ended since keeps nothing to give back to the next one.
        """
        for quota in self._quotas:
            units = rows if quota.by_rows else 1
            if quota.starts <= now < quota.ends and units <= quota.spent:
                quota.available += units
                quota.left += units
                quota.spent -= units

    def accept(self, request: LeaseRequest, grant: LeaseGrant, now: float) -> None:
        """Take what the site granted, unless its window is over."""
        for quota in self._quotas:
            if (
                quota.quota.name == request.quota
                and quota.quota.unit == request.unit
                and quota.starts == request.window_start
            ):
                quota.accept(grant, now)

    def held(self) -> list[LeaseReturn]:
        """List what is leased and unspent, for the caller to return on shutdown."""
        return [
            LeaseReturn(
                customer_id=self._customer_id,
                quota=quota.quota.name,
                unit=quota.quota.unit,
                window_start=quota.starts,
                units=quota.available + quota.withheld,
            )
            for quota in (*self._quotas, *self._retired)
            if quota.available + quota.withheld
        ]

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Describe the limit nearest to exhaustion, and the policy of all.

        Names follow draft-ietf-httpapi-ratelimit-headers and its common forerunners.
        """
        windows = self._windows
        if not windows:
            return []
        nearest = windows[0]
        least = 2.0
        for window in windows:
            if now >= window.ends or now < window.earliest:
                window.roll(now)
            share = window.left * window.share
            if share < least:
                least = share
                nearest = window
        if now >= self._policy_until:
            self._describe(now)
        left = nearest.left
        if left < 0:
            left = 0
        left_text = b"%d" % left
        # Rounded up; math.ceil would cost a call.
        wait = int(nearest.ends - now + 0.999)
        return [
            (b"X-RateLimit-Limit", nearest.limit_text),
            (b"X-RateLimit-Remaining", left_text),
            (b"X-RateLimit-Reset", nearest.reset_text),
            self._policy,
            (
                b"RateLimit",
                b'"%b";r=%b;t=%d' % (nearest.name.encode(), left_text, wait),
            ),
        ]

    def _describe(self, now: float) -> None:
        """Write the policy header, which a month's length alone changes."""
        self._policy = (
            b"RateLimit-Policy",
            b", ".join(window.policy() for window in self._windows),
        )
        self._policy_until = min(
            (quota.ends for quota in self._quotas), default=_UNKNOWN
        )

    def _too_many_at_once(self) -> Refusal:
        return Refusal(
            kind="concurrency",
            limit_name="concurrency",
            retry_after_s=_CONCURRENCY_RETRY_S,
            message=(
                f"{self._max_concurrency} requests are in flight, as many as your plan"
                " allows at once. Wait for one to finish."
            ),
        )

    def _too_fast(self, now: float) -> Refusal:
        """Name the spent rate that is the last to open again."""
        for rate in self._rates:
            if now >= rate.ends or now < rate.earliest:
                rate.roll(now)
        rate = max(
            (rate for rate in self._rates if rate.left <= 0),
            key=lambda rate: rate.ends,
        )
        return Refusal(
            kind="rate",
            limit_name=rate.name,
            retry_after_s=rate.ends - now,
            message=(
                f"The {rate.name} limit of {rate.limit} requests per {rate.window_s} s"
                " is used up. Slow down, or ask for a larger plan."
            ),
        )

    def _spent(self, quota: _QuotaWindow, rows: int, now: float) -> Refusal:
        unit = quota.quota.unit
        period = "daily" if quota.name == "day" else "monthly"
        if quota.by_rows and rows > quota.limit:
            message = (
                f"{rows} rows are more than the whole {period} quota of {quota.limit}."
                " Send fewer rows at once."
            )
        elif quota.left > 0:
            message = (
                f"{quota.left} of {quota.limit} {unit} are left of the {period} quota;"
                f" this request needs {rows}. Send fewer rows, or wait for its reset."
            )
        else:
            message = (
                f"The {period} quota of {quota.limit} {unit} is used up."
                " Wait for its reset, or ask for a larger plan."
            )
        return Refusal(
            kind="quota",
            limit_name=quota.name,
            retry_after_s=quota.ends - now,
            message=message,
        )


def window_of(name: Literal["day", "month"], now: float) -> tuple[int, int]:
    """Return start and end of the UTC day or month around `now`, in epoch seconds."""
    if name == "day":
        starts = int(now // 86400) * 86400
        return starts, starts + 86400
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    first = datetime.datetime(at.year, at.month, 1, tzinfo=datetime.UTC)
    following = (first + datetime.timedelta(days=32)).replace(day=1)
    return int(first.timestamp()), int(following.timestamp())
