"""Hold one version's queues, and what is known about the time of its batches."""

import asyncio
from collections import deque

from inference.engine.batching.cost import CostModel, Pace
from inference.engine.batching.entry import Entry
from inference.engine.batching.queue import (
    QueueLimits,
    QueueRefusal,
    QueueRoom,
    VersionQueue,
)
from inference.engine.runners.runner import Runner
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import BatchFailure

_MIN_RETRY_MS = 10
_MAX_RETRY_MS = 60_000
# Used until a batch of the version was measured.
UNKNOWN_RETRY_MS = 1000
# The longest batch where others may wait for it: other versions, or interactive
# requests for a job.
PIECE_S = 0.05
# The longest batch of a version alone in its engine: nobody computes much longer than
# this for callers that left.
LONE_PIECE_S = 0.5
_MOST_FAILURES = 20


def failures_kept() -> deque[BatchFailure]:
    """Return what holds a version's last failures."""
    return deque(maxlen=_MOST_FAILURES)


class Lane:
    """The queues of one loaded version; owned by the batcher that opened them.

    `depth` is the number of batches that may be in flight at once. It is more than one
    if the device can copy in the next batch while it computes. Without `joins`, each
    request is a batch of its own, whole.
    """

    def __init__(
        self,
        runner: Runner,
        limits: QueueLimits,
        room: QueueRoom,
        *,
        max_wait_s: float = 0.0,
        depth: int = 1,
        name: str = "",
        joins: bool = True,
        log_values: bool = False,
        failures: deque[BatchFailure] | None = None,
    ) -> None:
        self.runner = runner
        # Name of the version, for the log.
        self.name = name
        self.depth = depth
        self.joins = joins
        # Whether the log of failures may hold values of rows.
        self.log_values = log_values
        self.failures = failures_kept() if failures is None else failures
        # Requests answered, their rows, and batches.
        self.calls = self.rows = self.batches = 0
        self.max_wait_s = max_wait_s
        self.interactive = VersionQueue(limits, room)
        self.jobs = VersionQueue(limits, room)
        self.cost = CostModel()
        self.pace = Pace()
        self.in_flight = 0
        self.closed = False
        # Ends when the first request has waited long enough for others.
        self.timer: asyncio.TimerHandle | None = None

    @property
    def limits(self) -> QueueLimits:
        return self.interactive.limits

    def limit(self, limits: QueueLimits, *, max_wait_s: float) -> None:
        """Change the limits; entries that already wait stay."""
        self.interactive.limits = self.jobs.limits = limits
        self.max_wait_s = max_wait_s

    def queue(self, *, job: bool) -> VersionQueue:
        return self.jobs if job else self.interactive

    @property
    def queued_rows(self) -> int:
        return self.interactive.rows + self.jobs.rows

    @property
    def queued_bytes(self) -> int:
        return self.interactive.nbytes + self.jobs.nbytes

    @property
    def idle(self) -> bool:
        return not (self.in_flight or len(self.interactive) or len(self.jobs))

    def drain_s(self, *, job: bool) -> float | None:
        """Return the seconds that the queue will take; None while nothing is known."""
        rows = self.queue(job=job).rows
        if self.pace.row_s:
            return rows * self.pace.row_s
        if not rows:
            return 0.0
        batch_rows = min(rows, self.limits.max_batch_rows)
        seconds = self.cost.estimate(batch_rows)
        return None if seconds is None else seconds * rows / batch_rows

    def piece_rows(self, seconds: float) -> int:
        """Return the most rows of a batch that takes no longer; at least one.

        It grows from a single row while nothing is known.
        """
        return min(self.cost.most_rows(seconds), self.limits.max_batch_rows)

    def job_price_s(self) -> float:
        """Return the seconds that the next batch of jobs will take; 0 if unknown."""
        rows = self.jobs.rows
        if self.joins:
            rows = min(rows, self.piece_rows(PIECE_S))
        return self.cost.estimate(rows) or 0.0


def refusal(
    lane: Lane, entry: Entry, room: QueueRoom, max_queue_s: float
) -> QueueRefusal | None:
    """Return the limit that refuses an entry; None if it may wait."""
    queue = lane.jobs if entry.job else lane.interactive
    limits = queue.limits
    row_s = 0.0 if entry.job else lane.pace.row_s
    left_s = entry.deadline - entry.arrived_at
    rows = queue.rows + entry.rows
    if (
        rows * 2 <= limits.max_rows
        and (queue.nbytes + entry.nbytes) * 2 <= limits.max_bytes
        and rows * row_s * 2 <= max_queue_s
        and rows * row_s <= left_s
        and room.leaves_half(entry)
    ):
        return None  # At least as much stays free as all customers hold together.
    most_rows, rows_bound = limits.max_rows, "queue_rows"
    if row_s * most_rows > max_queue_s:
        most_rows, rows_bound = max(int(max_queue_s / row_s), 1), "queue_time"
    found = queue.refusal(entry, most_rows=most_rows, rows_bound=rows_bound)
    if found is None and not room.leaves_half(entry):
        found = room.refusal(entry)
    if found is not None:
        return found
    if queue.rows * row_s > left_s and queue.rows_before(entry) * row_s > left_s:
        # The answer would come after the entry's deadline.
        return QueueRefusal("queue_time")
    return None


def overloaded(
    lane: Lane, seconds: float | None, *, of_customer: bool = False
) -> EngineError:
    """Return the error for a full queue, with the time until the queue is done."""
    retry_ms = UNKNOWN_RETRY_MS
    if seconds is not None:
        retry_ms = min(max(int(seconds * 1000), _MIN_RETRY_MS), _MAX_RETRY_MS)
    whose = ", with all that one customer may have" if of_customer else ""
    return EngineError(
        EngineErrorCode.OVERLOADED,
        f"{lane.queued_rows} rows are waiting already{whose}",
        retry_after_ms=retry_ms,
        of_customer=of_customer,
    )
