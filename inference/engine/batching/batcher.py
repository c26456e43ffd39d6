"""Form batches while the device is busy, and keep enough batches in flight for it."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec
import structlog

from inference.engine.batching import execution, lane
from inference.engine.batching.execution import Outcome
from inference.engine.batching.lane import Lane
from inference.engine.batching.queue import (
    Caller,
    Entry,
    QueueLimits,
    QueueRefusal,
    QueueRoom,
    late,
)
from inference.engine.batching.scheduler import JOB_SHARE, BatchScheduler, Turn
from inference.engine.runners.runner import Runner
from inference.engine.wire.errors import EngineError

logger = structlog.get_logger()

# No device can use more batches in flight.
_MAX_DEPTH = 4


class _Batch(NamedTuple):
    """Entries that share one run on the device."""

    turn: Turn[Lane]
    entries: Sequence[Entry]
    taken_at: float
    # The device was the limit: these entries waited for it, or others stayed queued.
    saturated: bool


class BatchSettings(msgspec.Struct, frozen=True):
    limits: QueueLimits
    # Limits for the queues of the whole engine.
    max_rows: int
    max_bytes: int
    max_queue_s: float
    max_wait_s: float
    inline_s: float


class Batcher:
    """Let the lanes with waiting requests take turns on the device.

    Call all methods on the event loop. Small batches run there too, as a thread costs
    more than they do; others run in device threads, one for each batch in flight.
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
        # One per batch in flight. Start more than one only for deeper lanes, since
        # libraries keep memory for every thread that uses them.
        self._threads = [_thread()]
        self._free_threads = list(self._threads)
        self._turns: BatchScheduler[Lane] = BatchScheduler(Lane.job_price_s)
        self.room = QueueRoom(settings.max_rows, settings.max_bytes)
        self._in_flight = 0
        # Smallest depth among the lanes in flight.
        self._depth = _MAX_DEPTH
        self._scheduled = False
        # When the device last finished a batch, and whether entries waited for it.
        self._free_at = 0.0
        self._behind = False
        self._retired: dict[Lane, Callable[[], None]] = {}
        self.unanswered = 0
        self.counters = dict.fromkeys(
            (
                "batches",
                "rows",
                "job_rows",
                "inline_batches",
                "busy_us",
                "late",
                "left",
                "refused",
                "refused_queue_rows",
                "refused_queue_bytes",
                "refused_queue_time",
                "refused_engine_room",
                "model_errors",
                "memory_halvings",
            ),
            0,
        )

    def open_lane(
        self,
        runner: Runner,
        *,
        limits: QueueLimits | None = None,
        max_wait_s: float | None = None,
        depth: int = 1,
        name: str = "",
    ) -> Lane:
        settings = self._settings
        return Lane(
            runner,
            settings.limits if limits is None else limits,
            self.room,
            max_wait_s=settings.max_wait_s if max_wait_s is None else max_wait_s,
            depth=min(depth, _MAX_DEPTH),
            name=name,
        )

    def retire(self, lane: Lane, free: Callable[[], None]) -> None:
        """Close a lane; answer what waits, then call `free` in a thread.

        `free` never runs while a batch of the lane runs.
        """
        lane.closed = True
        self._retired[lane] = free
        self._free_idle(lane)

    def move(self, old: Lane, new: Lane) -> None:
        """Move the entries of a reloaded version's old lane to its new lane."""
        old.closed = True
        self._turns.remove(old)
        for job in (False, True):
            for entry in old.queue(job=job).take_all():
                new.queue(job=job).append(entry)
                self._turns.wait(new, job=job)
        self._schedule()

    def submit(self, to: Lane, entry: Entry) -> None:
        """Queue an entry; raise EngineError OVERLOADED if there is no room."""
        if lane.refusal(to, entry, self.room, self._settings.max_queue_s):
            # Entries that are already too late may be taking the room.
            for late in to.queue(job=entry.job).drop_late(self._clock()):
                self._fail_late(late)
            found = lane.refusal(to, entry, self.room, self._settings.max_queue_s)
            if found:
                self._refuse(to, entry, found)
        queue = to.jobs if entry.job else to.interactive
        queue.append(entry)
        self.unanswered += 1
        if to.max_wait_s > 0 and queue.rows < to.limits.max_batch_rows:
            self._wait_for_company(to)
            return
        self._turns.wait(to, job=entry.job)
        if not self._scheduled:
            self._schedule()

    def cancel(self, entry: Entry) -> None:
        """Forget a caller that left; its entry never reaches the device."""
        if entry.gone:
            return
        entry.gone = True
        self.unanswered -= 1
        self.counters["left"] += 1
        if entry.queue is not None:
            entry.queue.leave(entry)

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)

    # Admission

    def _refuse(self, to: Lane, entry: Entry, found: QueueRefusal) -> None:
        self.counters["refused"] += 1
        self.counters[f"refused_{found.bound}"] += 1
        drain_s = self._drain_s(to, job=entry.job)
        raise lane.overloaded(to, drain_s, of_customer=found.of_customer)

    def _drain_s(self, to: Lane, *, job: bool) -> float | None:
        """Estimate the seconds until everything that waits in `to` is done.

        Lanes take turns: while one is served, every other gets at most as much time.
        Interactive requests of all lanes go before jobs, except for the jobs' share.
        """
        own = to.drain_s(job=job)
        if own is None:
            return None
        others = 0.0
        for other in self._turns.lanes(job=False):
            if job or other is not to:
                seconds = other.drain_s(job=False) or 0.0
                others += seconds if job else min(seconds, own)
        return min(own + others, own / JOB_SHARE) if job else own + others

    def _wait_for_company(self, to: Lane) -> None:
        if to.timer is None:
            to.timer = self._loop.call_later(to.max_wait_s, self._ripe, to)

    def _ripe(self, to: Lane) -> None:
        to.timer = None
        for job in (False, True):
            if len(to.queue(job=job)):
                self._turns.wait(to, job=job)
        self._schedule()

    # Turns

    def _schedule(self) -> None:
        if self._scheduled or not self._turns or self._in_flight >= self._depth:
            return
        self._scheduled = True
        # Run after the callbacks that are ready now, so that all requests of this loop
        # turn share a batch.
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        turn = self._turns.peek()
        if turn is None or (
            self._in_flight and self._in_flight >= min(self._depth, turn.lane.depth)
        ):
            return
        self._turns.take(turn)
        to = turn.lane
        if to.timer is not None:
            to.timer.cancel()
            to.timer = None
        queue = to.jobs if turn.job else to.interactive
        now = self._clock()
        entries, late = queue.take(now, to.most_job_rows() if turn.job else 0)
        if len(queue):
            self._turns.wait(to, job=turn.job)  # behind the other lanes
        for entry in late:
            self._fail_late(entry)
        if entries:
            self._start(_Batch(turn, entries, now, self._behind or len(queue) > 0))
        else:
            self._free_idle(to)
        self._behind = False
        self._schedule()

    def _start(self, batch: _Batch) -> None:
        to, entries = batch.turn.lane, batch.entries
        rows = sum([entry.rows for entry in entries])
        cap = to.limits.max_batch_rows
        for entry in entries:
            if 0 < entry.max_batch_rows < cap:
                cap = entry.max_batch_rows
        expected = to.cost.estimate(rows)
        if (
            expected is not None
            and expected <= self._settings.inline_s
            and not self._in_flight
            # A deeper device takes the next batch meanwhile; here the loop would wait.
            and to.depth == 1
        ):
            outcome = execution.run(to.runner, entries, max_batch_rows=cap)
            if outcome.error is None or len(entries) == 1:
                self.counters["inline_batches"] += 1
                self._finish(batch, [outcome])
                self._free_idle(to)
                return
        self._in_flight += 1
        self._depth = min(self._depth, to.depth)
        to.in_flight += 1
        thread = self._take_thread()
        task = thread.submit(
            execution.run_apart, to.runner, entries, max_batch_rows=cap
        )

        def done(task: "Future[list[Outcome]]") -> None:
            self._loop.call_soon_threadsafe(self._done, batch, task, thread)

        task.add_done_callback(done)

    def _take_thread(self) -> ThreadPoolExecutor:
        if not self._free_threads:
            self._threads.append(_thread())
            self._free_threads.append(self._threads[-1])
        return self._free_threads.pop()

    def _done(
        self,
        batch: _Batch,
        task: "Future[list[Outcome]]",
        thread: ThreadPoolExecutor,
    ) -> None:
        self._free_threads.append(thread)
        self._behind = bool(self._turns)
        batch.turn.lane.in_flight -= 1
        self._in_flight -= 1
        if not self._in_flight:
            self._depth = _MAX_DEPTH
        self._finish(batch, task.result())
        self._free_idle(batch.turn.lane)
        self._schedule()

    def _free_idle(self, lane: Lane) -> None:
        if self._retired and lane in self._retired and lane.idle:
            self._turns.remove(lane)
            self._threads[0].submit(self._retired.pop(lane))

    # Answers

    def _finish(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        counters, now = self.counters, self._clock()
        turn, taken_at = batch.turn, batch.taken_at
        # Batches in flight overlap: charge each only from the end of the one before.
        seconds = now - max(taken_at, self._free_at)
        self._free_at = now
        counters["busy_us"] += int(seconds * 1e6)
        self._turns.ran(turn, seconds)
        rows = 0
        callers: dict[Caller, None] = {}
        for outcome in outcomes:
            counters["memory_halvings"] += outcome.halvings
            if outcome.answer is None:
                self._finish_failed(outcome, turn.lane)
                continue
            answer = outcome.answer
            turn.lane.cost.observe(answer.rows, answer.compute_us / 1e6)
            counters["batches"] += 1
            rows += answer.rows
            start = 0
            for entry in outcome.entries:
                if not entry.gone:
                    entry.gone = True
                    self.unanswered -= 1
                    queue_us = int((taken_at - entry.arrived_at) * 1e6)
                    if entry.cut is None:
                        entry.caller.answered(entry, answer, start, queue_us)
                    else:
                        part = entry.cut(answer, start, entry.rows)
                        entry.caller.answered(entry, part, 0, queue_us)
                    callers[entry.caller] = None
                start += entry.rows
        for caller in callers:
            caller.delivered()
        counters["rows"] += rows
        if turn.job:
            counters["job_rows"] += rows
        elif rows:
            turn.lane.pace.observe(rows, seconds, saturated=batch.saturated)

    def _finish_failed(self, outcome: Outcome, lane: Lane) -> None:
        assert outcome.error is not None
        self.counters["model_errors"] += 1
        logger.warning(
            "batch_failed",
            version=lane.name,
            code=outcome.error.code,
            entries=len(outcome.entries),
            exception=type(outcome.cause).__name__,
            reason=outcome.error.message,
            trace=outcome.trace,
        )
        for entry in outcome.entries:
            self._fail(entry, outcome.error)
        if execution.is_fatal(outcome.cause):
            self._on_fatal()

    def _fail_late(self, entry: Entry) -> None:
        self.counters["late"] += 1
        self._fail(entry, late(entry))

    def _fail(self, entry: Entry, error: EngineError) -> None:
        if entry.gone:
            return
        entry.gone = True
        self.unanswered -= 1
        entry.caller.failed(entry, error)


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="device")
