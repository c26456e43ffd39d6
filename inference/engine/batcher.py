"""Batches form while the device is busy; one batch runs at a time."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import structlog

from inference.engine import execution, waiting
from inference.engine.cost import CostModel
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.execution import Outcome
from inference.engine.runner import Runner
from inference.engine.waiting import Caller, Entry, QueueLimits, VersionQueue

logger = structlog.get_logger()

_MIN_RETRY_MS = 10
_MAX_RETRY_MS = 60_000
# Said before any batch of a version was measured.
_UNKNOWN_RETRY_MS = 1000


class BatchSettings(msgspec.Struct, frozen=True):
    limits: QueueLimits
    max_wait_s: float
    inline_s: float


class Lane:
    """One version's queue, and what runs its batches."""

    def __init__(self, runner: Runner, limits: QueueLimits) -> None:
        self.runner = runner
        self.queue = VersionQueue(limits)
        self.cost = CostModel()
        self.closed = False


class Batcher:
    """Takes turns between the lanes that have something waiting.

    All methods belong to the event loop. Small batches run on it, since a thread
    costs more than they do; others run in the one device thread.
    """

    def __init__(
        self,
        settings: BatchSettings,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        on_fatal: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._clock = clock
        self._on_fatal = on_fatal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        # Lanes with entries, in the order of their turns (a dict as ordered set).
        self._waiting: dict[Lane, None] = {}
        self._busy = False
        self._scheduled = False
        self.unanswered = 0
        self.counters = dict.fromkeys(
            ("batches", "rows", "inline_batches", "late", "refused", "model_errors"), 0
        )

    def open_lane(self, runner: Runner) -> Lane:
        return Lane(runner, self._settings.limits)

    def close_lane(self, lane: Lane, error: EngineError) -> None:
        """Take no more entries, and fail those that wait."""
        lane.closed = True
        self._waiting.pop(lane, None)
        for entry in lane.queue.take_all():
            self._fail(entry, error)

    def move(self, old: Lane, new: Lane) -> None:
        """Let entries that wait for a reloaded version be answered by its new self."""
        old.closed = True
        self._waiting.pop(old, None)
        for entry in old.queue.take_all():
            new.queue.append(entry)
            self._waiting[new] = None
        self._schedule()

    def submit(self, lane: Lane, entry: Entry) -> None:
        """Queue an entry; raise EngineError OVERLOADED if there is no room."""
        if not lane.queue.has_room(entry):
            # The room may be taken by entries that nobody waits for any more.
            for late in lane.queue.drop_dead(self._clock()):
                self._fail_late(late)
            if not lane.queue.has_room(entry):
                self.counters["refused"] += 1
                raise EngineError(
                    EngineErrorCode.OVERLOADED,
                    f"{lane.queue.rows} rows are waiting already",
                    retry_after_ms=self.retry_after_ms(),
                )
        lane.queue.append(entry)
        self.unanswered += 1
        self._waiting[lane] = None
        if not self._scheduled:
            self._schedule()

    def cancel(self, entry: Entry) -> None:
        """Forget a caller that left; its entry never reaches the device."""
        if not entry.gone:
            entry.gone = True
            self.unanswered -= 1

    def retry_after_ms(self) -> int:
        """Time until all that waits now should be done."""
        seconds = 0.0
        for lane in self._waiting:
            batches = -(-lane.queue.rows // self._settings.limits.max_batch_rows)
            rows = min(lane.queue.rows, self._settings.limits.max_batch_rows)
            one = lane.cost.estimate(rows)
            if one is None:
                return _UNKNOWN_RETRY_MS
            seconds += batches * one
        return min(max(int(seconds * 1000), _MIN_RETRY_MS), _MAX_RETRY_MS)

    def after_batch(self, function: Callable[[], None]) -> None:
        """Call it in the device thread, so never while a batch runs there."""
        self._thread.submit(function)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _schedule(self) -> None:
        if self._busy or self._scheduled or not self._waiting:
            return
        self._scheduled = True
        if self._settings.max_wait_s > 0:
            self._loop.call_later(self._settings.max_wait_s, self._turn)
        else:
            # After the callbacks that are ready now: what arrived in this turn of
            # the loop becomes one batch.
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._busy or not self._waiting:
            return
        lane = next(iter(self._waiting))
        del self._waiting[lane]
        batch, late = lane.queue.take(self._clock())
        if len(lane.queue):
            self._waiting[lane] = None  # at the end: the others come first
        for entry in late:
            self._fail_late(entry)
        if batch:
            self._start(lane, batch)
        self._schedule()

    def _start(self, lane: Lane, batch: Sequence[Entry]) -> None:
        rows = sum([entry.rows for entry in batch])
        cap = self._cap(batch)
        taken_at = self._clock()
        expected = lane.cost.estimate(rows)
        if expected is not None and expected <= self._settings.inline_s:
            outcome = execution.run(lane.runner, batch, max_batch_rows=cap)
            if outcome.error is None or len(batch) == 1:
                self.counters["inline_batches"] += 1
                self._finish(lane, [outcome], taken_at)
                return
        self._busy = True
        task = self._thread.submit(
            execution.run_apart, lane.runner, batch, max_batch_rows=cap
        )

        def done(task: "Future[list[Outcome]]") -> None:
            self._loop.call_soon_threadsafe(self._done, lane, task, taken_at)

        task.add_done_callback(done)

    def _cap(self, batch: Sequence[Entry]) -> int:
        cap = self._settings.limits.max_batch_rows
        for entry in batch:
            if 0 < entry.max_batch_rows < cap:
                cap = entry.max_batch_rows
        return cap

    def _done(self, lane: Lane, task: "Future[list[Outcome]]", taken_at: float) -> None:
        self._busy = False
        self._finish(lane, task.result(), taken_at)
        self._schedule()

    def _finish(self, lane: Lane, outcomes: Sequence[Outcome], taken_at: float) -> None:
        callers: dict[Caller, None] = {}
        for outcome in outcomes:
            if outcome.answer is None:
                self._finish_failed(outcome)
                continue
            answer = outcome.answer
            lane.cost.observe(answer.rows, answer.compute_us / 1e6)
            self.counters["batches"] += 1
            self.counters["rows"] += answer.rows
            start = 0
            for entry in outcome.entries:
                if not entry.gone:
                    entry.gone = True
                    self.unanswered -= 1
                    queue_us = int((taken_at - entry.arrived_at) * 1e6)
                    entry.caller.answered(entry, answer, start, queue_us)
                    callers[entry.caller] = None
                start += entry.rows
        for caller in callers:
            caller.delivered()

    def _finish_failed(self, outcome: Outcome) -> None:
        assert outcome.error is not None
        self.counters["model_errors"] += 1
        logger.warning(
            "batch_failed",
            code=outcome.error.code,
            entries=len(outcome.entries),
            exception=type(outcome.cause).__name__,
        )
        for entry in outcome.entries:
            self._fail(entry, outcome.error)
        if execution.is_fatal(outcome.cause):
            self._on_fatal()

    def _fail_late(self, entry: Entry) -> None:
        self.counters["late"] += 1
        self._fail(entry, waiting.late(entry))

    def _fail(self, entry: Entry, error: EngineError) -> None:
        if entry.gone:
            return
        entry.gone = True
        self.unanswered -= 1
        entry.caller.failed(entry, error)
