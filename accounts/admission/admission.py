"""Decide in memory whether one customer's call may go on.

Rates are fixed windows since the epoch; quotas are spent from leases, blocks of units
that the site has already counted. The caller passes the clock in, as epoch seconds.

A clock that steps back a little stays in the window it has reached. A clock that steps
back by more than a window begins that earlier window, but what was used stays used: a
wrong clock never admits more, and never locks anyone out for long.
"""

from collections.abc import Callable, Sequence

from accounts.admission import refusal
from accounts.admission.limits import (
    LeaseGrant,
    LeaseRequest,
    Limits,
    Recall,
    Recalled,
    Source,
)
from accounts.admission.refusal import LimitRefusal as Refusal
from accounts.admission.refusal import later
from accounts.admission.shared_counts import SharedCounts, key_of
from accounts.admission.windows import QuotaWindow, RateWindow

POLICY_HEADER = b"RateLimit-Policy"
_UNLIMITED = 1 << 62
# Share of a quota's limit that may be spent beyond leases while the site is away.
OVERDRAFT_SHARE = 0.05

# What a call has reserved of post-paid quotas, until its cost is known.
Reserved = Sequence[tuple[QuotaWindow, int]]


class Admission:
    """The counts of one customer, or of one of its keys, in this process.

    `shared` holds counts that all gateways of the machine share, if there are several.
    """

    __slots__ = (
        "_customer_id",
        "_flights",
        "_flights_key",
        "_in_flight",
        "_key_id",
        "_max_concurrency",
        "_numbered",
        "_overdraft",
        "_overdraft_share",
        "_policy",
        "_policy_until",
        "_post_paid",
        "_quotas",
        "_rates",
        "_retired",
        "_shared",
        "_windows",
        "limits",
        "owed",
        "prefetch",
        "reserved",
    )

    def __init__(
        self,
        customer_id: int,
        limits: Limits,
        *,
        key_id: str = "",
        shared: SharedCounts | None = None,
        overdraft: SharedCounts | None = None,
        overdraft_share: float = OVERDRAFT_SHARE,
        prefetch: "Callable[[Admission, LeaseRequest], None] | None" = None,
        numbered: bool = True,
    ) -> None:
        """Begin with nothing counted.

        `overdraft` holds counts of overdrawn units that outlive this process. Numbered
        requests for one window must be made one after the other. If no answer can get
        lost, requests need no numbers and may be made at the same time.
        """
        self._numbered = numbered
        self._customer_id = customer_id
        self._key_id = key_id
        self._shared = shared
        self._overdraft = overdraft or shared
        self._overdraft_share = overdraft_share
        # Called to ask for units before they are needed.
        self.prefetch = prefetch
        self._in_flight = 0
        self._flights_key = key_of(customer_id, key_id, "in flight")
        self._flights = shared.hints() if shared is not None else []
        self._rates: list[RateWindow] = []
        self._quotas: list[QuotaWindow] = []
        # Quotas that a plan change removed while units of them were in hand.
        self._retired: list[QuotaWindow] = []
        # What the latest `spend` has reserved of post-paid quotas.
        self.reserved: Reserved
        # Reports of units that were overdrawn in windows that are over.
        self.owed: list[LeaseRequest] = []
        self.replace_limits(limits)

    def replace_limits(self, limits: Limits) -> None:
        """Change the limits; limits of the same name keep their counts."""
        self.limits = limits
        self._max_concurrency = limits.max_concurrency or _UNLIMITED
        rates = {rate.name: rate for rate in self._rates}
        self._rates = []
        for new_rate in limits.rates:
            rate = rates.get(new_rate.name)
            if rate is None:
                key = key_of(self._customer_id, self._key_id, new_rate.name)
                rate = RateWindow(new_rate, key)
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
                quota = QuotaWindow(new_quota, numbered=self._numbered)
            else:
                quota.replace(new_quota)
            self._quotas.append(quota)
        self._post_paid = any(quota.post_paid for quota in self._quotas)
        self.reserved = ()
        self._retired = [
            quota for quota in quotas.values() if quota.available + quota.withheld
        ]
        self._windows: tuple[RateWindow | QuotaWindow, ...] = (
            *self._rates,
            *self._quotas,
        )
        self._policy = (POLICY_HEADER, b"")
        self._policy_until = 0

    # Rates and concurrency

    def enter(self, now: float) -> Refusal | None:
        """Count one call, if every rate has room for it; otherwise count nothing.

        Unless it was refused, call `leave` once when the call is over.
        """
        if self._shared is not None:
            return self._enter_with_others(now, self._shared)
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
        if self._shared is not None and self._max_concurrency != _UNLIMITED:
            self._shared.add_in_flight(self._flights_key, self._flights, -1)

    def withdraw(self, now: float) -> None:
        """Undo an `enter` that had the same `now`, as if the call had never come."""
        self.leave()
        for rate in self._rates:
            if rate.starts <= now < rate.ends:
                rate.left += 1
        shared = self._shared
        if shared is None:
            return
        shared.lock()
        try:
            for rate in self._rates:
                at = shared.find(rate.key, rate.starts, rate.ends, rate.cell)
                shared.cells[at] = max(0, shared.cells[at] - 1)
        finally:
            shared.unlock()

    def _enter_with_others(self, now: float, shared: SharedCounts) -> Refusal | None:
        cells = shared.cells
        shared.lock()
        try:
            if self._max_concurrency != _UNLIMITED:
                flights = shared.in_flight(self._flights_key, self._flights)
                if flights >= self._max_concurrency:
                    return self._too_many_at_once()
            for rate in self._rates:
                if now >= rate.ends or now < rate.earliest:
                    rate.roll(now)
            if not self._read(shared):
                return self._too_fast(now)
            for rate in self._rates:
                cells[rate.cell] += 1
                rate.left -= 1
            if self._max_concurrency != _UNLIMITED:
                shared.add_in_flight(self._flights_key, self._flights, 1)
        finally:
            shared.unlock()
        self._in_flight += 1
        return None

    def _read(self, shared: SharedCounts) -> bool:
        """Read what all gateways have left of the rates; return whether all have room.

        Needs the lock.
        """
        cells = shared.cells
        room = True
        for rate in self._rates:
            at = rate.cell
            # The slot may have gone to another window since it was found.
            if cells[at - 3] != rate.key or cells[at - 2] != rate.starts:
                at = rate.cell = shared.find(rate.key, rate.starts, rate.ends, at)
            rate.left = rate.limit - cells[at]
            if rate.left <= 0:
                room = False
        return room

    # Quotas

    def spend(
        self, rows: int, now: float, *, explains: bool = False
    ) -> Refusal | LeaseRequest | None:
        """Spend one request of `rows` rows from every quota, or from none.

        If a LeaseRequest is returned, send it, `accept` the grant, and spend again.
        From post-paid quotas an estimate is spent. It is in `reserved` afterwards, for
        `settle` or `refund`.
        """
        for quota in self._quotas:
            if now >= quota.ends or now < quota.earliest:
                self._roll(quota, now)
            units = rows if quota.by_rows else quota.price(rows, explains)
            need = units - quota.available
            if need > 0 and units > 0:
                if quota.refuses(need, now):
                    return later(
                        self._spent(quota, rows, explains, now),
                        self.lacks(rows, now, explains=explains),
                    )
                return quota.ask(self._customer_id, self._key_id, need, now)
        if self._post_paid:
            self.reserved = [
                (quota, quota.price(rows, explains))
                for quota in self._quotas
                if quota.post_paid
            ]
        for quota in self._quotas:
            units = rows if quota.by_rows else quota.price(rows, explains)
            quota.available -= units
            quota.left -= units
            quota.spent += units
            if quota.available < quota.low:
                self._ask_ahead(quota, now)
        return None

    def refund(self, rows: int, now: float, reserved: Reserved = ()) -> None:
        """Undo a spend; `now` is the time that `spend` was called with.

        If its window has ended since, nothing comes back: the next one is unspent.
        """
        for quota in self._quotas:
            if quota.post_paid:
                continue
            units = rows if quota.by_rows else 1
            if quota.starts <= now < quota.ends and units <= quota.spent:
                quota.pay(-units)
        for quota, units in reserved:
            if quota.starts <= now < quota.ends and units <= quota.spent:
                quota.pay(-units)

    def give_back(self, rows: int, now: float) -> None:
        """Undo a spend for some of its rows; `now` as in `spend`."""
        for quota in self._quotas:
            if not quota.by_rows or quota.post_paid:
                continue
            if quota.starts <= now < quota.ends and rows <= quota.spent:
                quota.pay(-rows)

    def settle(
        self,
        reserved: Reserved,
        *,
        rows: int,
        compute_us: int,
        samples: int,
        now: float,
    ) -> None:
        """Replace what a call reserved by what it cost; `now` as in `spend`.

        A call that cost more than its estimate is not refused. The quota goes below
        zero, and later calls wait for the next window.
        """
        for quota, units in reserved:
            if not units or not quota.starts <= now < quota.ends:
                continue
            cost = quota.cost(compute_us, samples)
            quota.pay(cost - units)
            of_device = quota.quota.unit == "compute_ms"
            quota.learn(compute_us / 1000 if of_device else samples, max(1, rows))

    def accept(self, request: LeaseRequest, grant: LeaseGrant, now: float) -> None:
        """Take what the site granted, unless its window is over."""
        quota = self._find(request)
        if quota is not None:
            quota.accept(request, grant, now)

    def give_up_on(self, request: LeaseRequest) -> None:
        """Ignore a later answer to this request: it may have been lost."""
        quota = self._find(request)
        if quota is not None:
            quota.give_up_on(request)

    def overdraw(self, request: LeaseRequest, now: float) -> bool:
        """Take the units of a request without a lease, because the site is away.

        Return True if the call is to spend again. It is then refused if the site had
        nothing left when it answered last. Return False if the share that may be
        overdrawn is used up.
        """
        quota = self._find(request)
        if quota is None:
            # Its window is over, and the call spends from the next one.
            return True
        quota.give_up_on(request)
        need = request.minimum
        if need > quota.limit - quota.granted:
            quota.believe(now)
            return True
        allowed = int(quota.limit * self._overdraft_share)
        counts = self._overdraft
        if counts is None:
            if quota.overdrawn + need > allowed:
                return False
            quota.overdraw(need)
            return True
        parts = (self._customer_id, self._key_id, quota.quota.name, quota.quota.unit)
        counts.lock()
        try:
            at = counts.find(key_of(*parts, "overdrawn"), quota.starts, quota.ends)
            if counts.cells[at] + need > allowed:
                return False
            counts.cells[at] += need
        finally:
            counts.unlock()
        quota.overdraw(need)
        return True

    def overdrawn(self) -> int:
        """Count the units taken without a lease in the present windows."""
        return sum(quota.overdrawn for quota in self.quotas())

    def recall(self, recall: Recall) -> Recalled:
        """Give up unspent leased units, because another holder needs them."""
        quota = self._find(recall)
        if quota is None:
            # Its window is over: nobody can spend from it.
            return Recalled(units=0, number=0)
        return quota.give_back()

    def release(self) -> list[LeaseRequest]:
        """Give up all unspent units on shutdown; return requests that tell the site."""
        requests = list(self.owed)
        self.owed.clear()
        for quota in (*self._quotas, *self._retired):
            if quota.give_back().units or quota.overdrawn > quota.reported:
                requests.append(
                    quota.request(self._customer_id, self._key_id, units=0, minimum=0)
                )
        return requests

    def quotas(self) -> list[QuotaWindow]:
        """List the quotas, and those of a former plan that still hold units."""
        return [*self._quotas, *self._retired]

    def held(self) -> int:
        """Count the units in hand."""
        return sum(quota.available + quota.withheld for quota in self.quotas())

    def _roll(self, quota: QuotaWindow, now: float) -> None:
        if quota.overdrawn > quota.reported:
            quota.give_back()
            self.owed.append(
                quota.request(self._customer_id, self._key_id, units=0, minimum=0)
            )
        quota.roll(now)

    def _begin(self, window: RateWindow | QuotaWindow, now: float) -> None:
        if isinstance(window, QuotaWindow):
            self._roll(window, now)
        else:
            window.roll(now)

    def _ask_ahead(self, quota: QuotaWindow, now: float) -> None:
        quota.stop_asking_ahead()
        if self.prefetch is None:
            return
        request = quota.ask(self._customer_id, self._key_id, 0, now)
        if request.units > 0:
            self.prefetch(self, request)

    def _find(self, named: LeaseRequest | Recall) -> QuotaWindow | None:
        for quota in (*self._quotas, *self._retired):
            if (
                quota.quota.name == named.quota
                and quota.quota.unit == named.unit
                and quota.starts == named.window_start
            ):
                return quota
        return None

    # What callers are told

    def nearness(self, now: float) -> float:
        """Return the share that is left of the limit nearest to exhaustion."""
        for window in self._windows:
            if now >= window.ends or now < window.earliest:
                self._begin(window, now)
        return min((window.left * window.share for window in self._windows), default=2)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Describe the limit nearest to exhaustion, and the policy of all.

        Of two exhausted limits, describe the one that opens later: by then the other is
        open, too. Names follow draft-ietf-httpapi-ratelimit-headers and its common
        forerunners.
        """
        windows = self._windows
        if not windows:
            return []
        nearest = windows[0]
        least = 2.0
        for window in windows:
            if now >= window.ends or now < window.earliest:
                self._begin(window, now)
            left = window.left
            share = left * window.share if left > 0 else 0.0
            if share < least or (share == 0 and window.ends > nearest.ends):
                least = share
                nearest = window
        if now >= self._policy_until:
            self._describe()
        left = nearest.left
        if left < 0:
            left = 0
        left_text = b"%d" % left
        return [
            nearest.limit_header,
            (b"X-RateLimit-Remaining", left_text),
            nearest.reset_header,
            self._policy,
            (
                b"RateLimit",
                # A window ends at a whole second, so this wait is rounded up.
                b"%b;r=%b;t=%d"
                % (nearest.quoted_name, left_text, nearest.ends - int(now)),
            ),
        ]

    def policy(self, now: float) -> bytes:
        """List all limits, as `RateLimit-Policy` does."""
        if now >= self._policy_until:
            self._describe()
        return self._policy[1]

    def _describe(self) -> None:
        """Write the policy header; only the length of a month changes it."""
        policies = [window.policy() for window in self._windows]
        if self._max_concurrency != _UNLIMITED:
            name = refusal.concurrency_name("key" if self._key_id else "plan")
            policies.append(
                b'"%s";q=%d;qu="concurrent-requests"'
                % (name.encode(), self._max_concurrency)
            )
        self._policy = (POLICY_HEADER, b", ".join(policies))
        self._policy_until = min(
            (quota.ends for quota in self._quotas), default=_UNLIMITED
        )

    def closed(self, now: float) -> Refusal | None:
        """Return the refusal that a call would get now, without counting a call."""
        for rate in self._rates:
            if now >= rate.ends or now < rate.earliest:
                rate.roll(now)
        if self._shared is not None:
            self._shared.lock()
            try:
                self._read(self._shared)
            finally:
                self._shared.unlock()
        if any(window.left <= 0 for window in self._windows):
            return self._too_fast(now)
        return None

    def lacks(self, rows: int, now: float, *, explains: bool) -> Refusal | None:
        """Find the last to open again of the quotas that lack what a call needs."""
        last = None
        for quota in self._quotas:
            if now >= quota.ends or now < quota.earliest:
                self._roll(quota, now)
            if quota.price(rows, explains) > quota.left and (
                last is None or quota.ends > last.ends
            ):
                last = quota
        return None if last is None else self._spent(last, rows, explains, now)

    def _too_many_at_once(self) -> Refusal:
        source = self._source(refusal.concurrency_name("plan"))
        return refusal.too_many_at_once(self._max_concurrency, source)

    def _too_fast(self, now: float) -> Refusal:
        """Refuse for the spent rate or quota that is the last to open again."""
        for window in self._windows:
            if now >= window.ends or now < window.earliest:
                self._begin(window, now)
        spent = [quota for quota in self._quotas if quota.left <= 0]
        if spent:
            last = max(spent, key=lambda quota: quota.ends)
            return refusal.spent(last, 1, self._source(last.name), now)
        rate = max(
            (rate for rate in self._rates if rate.left <= 0),
            key=lambda rate: rate.ends,
        )
        return refusal.too_fast(rate, self._source(rate.name), now)

    def _spent(
        self, quota: QuotaWindow, rows: int, explains: bool, now: float
    ) -> Refusal:
        units = quota.price(rows, explains)
        return refusal.spent(quota, units, self._source(quota.name), now)

    def _source(self, name: str) -> Source:
        return "key" if self._key_id else self.limits.source_of(name)
