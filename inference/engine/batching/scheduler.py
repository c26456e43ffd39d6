"""Choose whose batch is next: interactive before jobs, with a small share for jobs."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

# Part of the device's time that jobs get while interactive requests wait too. It is a
# little more than the promised 5 %, since a job must first earn a whole batch.
JOB_SHARE = 0.06

L = TypeVar("L")


class Turn(NamedTuple, Generic[L]):
    """The right of a lane to run one batch of interactive requests, or of jobs."""

    lane: L
    job: bool
    # Interactive requests have to wait for this job.
    contended: bool


class BatchScheduler(Generic[L]):
    """Let lanes take turns within each priority (dicts as ordered sets).

    While both priorities wait, every second of interactive work earns jobs a credit
    of `JOB_SHARE / (1 - JOB_SHARE)` seconds. A job goes first once the credit covers
    the `price` of its next batch, and then pays the time that it took. So jobs never
    starve, and never take more than their share.
    """

    def __init__(self, price: Callable[[L], float]) -> None:
        self._price = price
        self._interactive: dict[L, None] = {}
        self._jobs: dict[L, None] = {}
        self._credit_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._interactive or self._jobs)

    def wait(self, lane: L, *, job: bool) -> None:
        """Queue a lane behind the others, unless it waits already."""
        (self._jobs if job else self._interactive)[lane] = None

    def remove(self, lane: L) -> None:
        self._interactive.pop(lane, None)
        self._jobs.pop(lane, None)

    def lanes(self, *, job: bool) -> list[L]:
        return list(self._jobs if job else self._interactive)

    def peek(self) -> Turn[L] | None:
        """Return whose turn it is; None if nobody waits."""
        if not self._jobs:
            if not self._interactive:
                return None
            return Turn(next(iter(self._interactive)), False, False)
        job = next(iter(self._jobs))
        if not self._interactive:
            return Turn(job, True, False)
        if self._credit_s > 0 and self._credit_s >= self._price(job):
            return Turn(job, True, True)
        return Turn(next(iter(self._interactive)), False, False)

    def take(self, turn: Turn[L]) -> None:
        del (self._jobs if turn.job else self._interactive)[turn.lane]

    def ran(self, turn: Turn[L], seconds: float) -> None:
        """Account for the time that a turn took."""
        if not turn.job:
            earned = self._credit_s + seconds * JOB_SHARE / (1 - JOB_SHARE)
            # Debts are always paid back; credit grows only while jobs wait.
            self._credit_s = earned if self._jobs else min(earned, 0.0)
        elif turn.contended:
            self._credit_s -= seconds
        else:
            self._credit_s = max(self._credit_s, 0.0)
