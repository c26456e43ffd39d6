"""One version's queues, and what is known about the time its batches take."""

import asyncio

from inference.engine.cost import CostModel, Pace
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.runner import Runner
from inference.engine.waiting import Entry, QueueLimits, Room, VersionQueue

_MIN_RETRY_MS = 10
_MAX_RETRY_MS = 60_000
# Said before any batch of a version was measured.
UNKNOWN_RETRY_MS = 1000
# Jobs share batches up to about this time, so that a request that comes meanwhile
# does not wait for a full one.
_JOB_BATCH_S = 0.05


class Lane:
    """Belongs to the batcher that opened it.

    `depth` is the number of batches that may be in flight at once: more than one where
    the device can take the next batch in while it works on the one before.
    """

    def __init__(
        self,
        runner: Runner,
        limits: QueueLimits,
        room: Room,
        *,
        max_wait_s: float = 0.0,
        depth: int = 1,
        name: str = "",
    ) -> None:
        self.runner = runner
        # Of the version, for the log.
        self.name = name
        self.depth = depth
        self.max_wait_s = max_wait_s
        self.interactive = VersionQueue(limits, room)
        self.jobs = VersionQueue(limits, room)
        self.cost = CostModel()
        self.pace = Pace()
        self.in_flight = 0
        self.closed = False
        # Runs out when the first request has waited long enough for company.
        self.timer: asyncio.TimerHandle | None = None

    @property
    def limits(self) -> QueueLimits:
        return self.interactive.limits

    def limit(self, limits: QueueLimits, *, max_wait_s: float) -> None:
        """Change the bounds; what waits already stays."""
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
        """Seconds that what waits will take; None while nothing is known."""
        rows = self.queue(job=job).rows
        if self.pace.row_s:
            return rows * self.pace.row_s
        if not rows:
            return 0.0
        batch_rows = min(rows, self.limits.max_batch_rows)
        seconds = self.cost.estimate(batch_rows)
        return None if seconds is None else seconds * rows / batch_rows

    def most_job_rows(self) -> int:
        """Rows for the next batch of jobs at most; 0: as many as the limits allow."""
        row_s = self.pace.row_s
        if not row_s:
            batch_rows = self.limits.max_batch_rows
            row_s = (self.cost.estimate(batch_rows) or 0.0) / batch_rows
        return max(int(_JOB_BATCH_S / row_s), 1) if row_s else 0

    def job_price_s(self) -> float:
        """Seconds that the next batch of jobs will take; 0 while that is unknown."""
        rows = min(self.jobs.rows, self.limits.max_batch_rows)
        most = self.most_job_rows()
        if 0 < most < rows:
            rows = most
        if self.pace.row_s:
            return rows * self.pace.row_s
        return self.cost.estimate(rows) or 0.0


def refusal(lane: Lane, entry: Entry, room: Room, max_queue_s: float) -> str:
    """Name the bound that keeps an entry out; empty if it may wait."""
    queue = lane.jobs if entry.job else lane.interactive
    if not queue.has_room(entry):
        full = queue.nbytes + entry.nbytes > queue.limits.max_bytes
        return "queue_bytes" if full else "queue_rows"
    if not room.has(entry):
        return "engine_room"
    if entry.job:
        return ""
    seconds = queue.rows * lane.pace.row_s
    if seconds <= max_queue_s and seconds <= entry.deadline - entry.arrived_at:
        return ""
    # It would be answered too late for its caller, or keep later ones from it.
    return "queue_time"


def overloaded(lane: Lane, seconds: float | None) -> EngineError:
    """Refuse, and say when what waits now should be done."""
    retry_ms = UNKNOWN_RETRY_MS
    if seconds is not None:
        retry_ms = min(max(int(seconds * 1000), _MIN_RETRY_MS), _MAX_RETRY_MS)
    return EngineError(
        EngineErrorCode.OVERLOADED,
        f"{lane.queued_rows} rows are waiting already",
        retry_after_ms=retry_ms,
    )
