"""Choose whose batch is next: interactive before jobs, with a small share for jobs."""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

# Part of the device's time that jobs get while interactive requests wait too. It is a
# little more than the promised 5 %, since a job must first earn a whole batch.
JOB_SHARE = 0.06
# Lanes closer than this go in the order in which they came. A small lane that always
# went first would leave the device idle while the gateway handles the large batch.
_SAME_S = 0.002

L = TypeVar("L")


class Account(msgspec.Struct, gc=False):
    """The time that a lane has used, and what its next turn should take."""

    used_s: float
    expected_s: float = 0.0
    last_s: float = 0.0


class Turn(msgspec.Struct, Generic[L], gc=False):
    """The right of a lane to run one batch of interactive requests, or of jobs."""

    lane: L
    job: bool
    # Interactive requests have to wait for this job.
    contended: bool
    account: Account
    # Time charged for it in advance.
    expected_s: float


class _FairOrder(Generic[L]):
    """The order of lanes of one priority, by the time that they used.

    This is self-clocked fair queueing (Golestani 1994), in seconds that are measured
    afterwards. The lane goes first that would have used the least time after its turn;
    a lane that comes back starts at the least time of those that wait. So lanes that
    always wait use the same time each, and one with short batches waits for one batch
    of another, however long the others' queues are.
    """

    def __init__(self) -> None:
        # What each waiting lane will have used after its turn; the first came first.
        self.ends: dict[L, float] = {}
        self.accounts: dict[L, Account] = {}
        # Least used time of the lanes that waited when the last turn began.
        self.now = 0.0

    def wait(self, lane: L) -> None:
        """Let a lane wait that does not wait already."""
        account = self.accounts.get(lane)
        if account is None:
            account = self.accounts[lane] = Account(self.now)
        elif account.used_s < self.now:
            account.used_s = self.now
        self.ends[lane] = account.used_s + account.expected_s

    def next(self) -> L:
        latest = min(self.ends.values()) + _SAME_S
        return next(lane for lane, end in self.ends.items() if end <= latest)

    def remove(self, lane: L) -> None:
        self.ends.pop(lane, None)
        self.accounts.pop(lane, None)


class BatchScheduler(Generic[L]):
    """Share the time within each priority fairly between the lanes that wait.

    While both priorities wait, every second of interactive work earns jobs a credit
    of `JOB_SHARE / (1 - JOB_SHARE)` seconds. A job goes first once the credit covers
    the `price` of its next batch, and then pays the time that it took. So jobs never
    starve, and never take more than their share.
    """

    def __init__(self, price: Callable[[L], float]) -> None:
        self._price = price
        self._interactive: _FairOrder[L] = _FairOrder()
        self._jobs: _FairOrder[L] = _FairOrder()
        self._credit_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._interactive.ends or self._jobs.ends)

    def wait(self, lane: L, *, job: bool) -> None:
        """Let a lane wait for a turn, unless it waits already."""
        order = self._jobs if job else self._interactive
        if lane not in order.ends:
            order.wait(lane)

    def remove(self, lane: L) -> None:
        self._interactive.remove(lane)
        self._jobs.remove(lane)

    def lanes(self, *, job: bool) -> list[L]:
        return list((self._jobs if job else self._interactive).ends)

    def peek(self) -> Turn[L] | None:
        """Return whose turn it is; None if nobody waits."""
        order, jobs = self._interactive, self._jobs
        contended = False
        if jobs.ends:
            contended = bool(order.ends)
            if not contended or (
                self._credit_s > 0 and self._credit_s >= self._price(jobs.next())
            ):
                order = jobs
        elif not order.ends:
            return None
        is_job = order is jobs
        lane = order.next() if len(order.ends) > 1 else next(iter(order.ends))
        account = order.accounts[lane]
        return Turn(lane, is_job, is_job and contended, account, account.expected_s)

    def take(self, turn: Turn[L]) -> None:
        order = self._jobs if turn.job else self._interactive
        account = turn.account
        least_s = account.used_s
        if len(order.ends) > 1:
            # It may go before a lane that has used a little less.
            least_s = min(order.accounts[lane].used_s for lane in order.ends)
        del order.ends[turn.lane]
        if least_s > order.now:
            order.now = least_s
        # The lane may wait again before its time is measured.
        account.used_s += turn.expected_s

    def give_back(self, turn: Turn[L]) -> None:
        """Note that nothing was left to run in a turn."""
        turn.account.used_s -= turn.expected_s

    def ran(self, turn: Turn[L], seconds: float) -> None:
        """Account for the time that a turn took."""
        job, account = turn.job, turn.account
        account.used_s += seconds - turn.expected_s
        # A batch that was preempted says little of the next.
        last_s, account.last_s = account.last_s, seconds
        account.expected_s = seconds if seconds < last_s or not last_s else last_s
        order = self._jobs if job else self._interactive
        if turn.lane in order.ends:
            order.ends[turn.lane] = account.used_s + account.expected_s
        if not job:
            earned = self._credit_s + seconds * JOB_SHARE / (1 - JOB_SHARE)
            # Debts are always paid back; credit grows only while jobs wait.
            self._credit_s = earned if self._jobs.ends else min(earned, 0.0)
        elif turn.contended:
            self._credit_s -= seconds
        else:
            self._credit_s = max(self._credit_s, 0.0)
