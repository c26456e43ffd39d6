"""Form batches while the device is busy, and keep enough batches in flight for it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import structlog

from inference.engine.batching import execution, lane, redaction
from inference.engine.batching.entry import BatchAnswer, Caller, Entry, EntryPart
from inference.engine.batching.execution import Outcome
from inference.engine.batching.histogram import Histogram
from inference.engine.batching.lane import LONE_PIECE_S, PIECE_S, Lane
from inference.engine.batching.notes import NoNotes, PieceNotes
from inference.engine.batching.queue import QueueLimits, QueueRefusal, QueueRoom, late
from inference.engine.batching.scheduler import JOB_SHARE, BatchScheduler, Turn
from inference.engine.devices import failures
from inference.engine.runners.runner import Runner
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import BatchFailure
from inference.metrics.table import METRICS

logger = structlog.get_logger()

# No device can use more batches in flight.
_MAX_DEPTH = 4
# After a batch that took so long, others in its queue may be late.
_LONG_S = 0.01
# Request ids named in one failure, and the length of each.
_MOST_IDS = 32
# A job sends its own id and that of its request.
_MOST_ID = 192


class _Batch(msgspec.Struct, gc=False):
    """Entries that share one run on the device."""

    turn: Turn[Lane]
    entries: Sequence[Entry]
    rows: int
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
        notes: PieceNotes | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._inline_s = settings.inline_s
        self._loop = loop
        self._clock = clock
        self._on_fatal = on_fatal
        self._notes = NoNotes() if notes is None else notes
        self._wall_clock = wall_clock
        # All that are open, also while they are retired.
        self._lanes: set[Lane] = set()
        self._shared = False
        self._number = 0
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
        self.batch_rows = Histogram(METRICS["engine_batch_rows"].buckets)
        self.queue_seconds = Histogram(METRICS["engine_queue_seconds"].buckets)
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
                "pieces",
                "dropped_between_pieces",
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
        joins: bool = True,
        log_values: bool = False,
        failures: deque[BatchFailure] | None = None,
    ) -> Lane:
        settings = self._settings
        opened = Lane(
            runner,
            settings.limits if limits is None else limits,
            self.room,
            max_wait_s=settings.max_wait_s if max_wait_s is None else max_wait_s,
            depth=min(depth, _MAX_DEPTH),
            name=name,
            joins=joins,
            log_values=log_values,
            failures=failures,
        )
        self._lanes.add(opened)
        self._shared = len(self._lanes) > 1
        return opened

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
            if len(old.queue(job=job)):
                self._turns.wait(old, job=job)
        self._schedule()

    def submit(self, to: Lane, entry: Entry) -> None:
        """Queue an entry; raise EngineError OVERLOADED if there is no room."""
        if lane.refusal(to, entry, self.room, self._settings.max_queue_s):
            # Entries that are already too late may be taking the room.
            self._drop_late(to, job=entry.job)
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
            self._note_dropped(entry)
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
        waiting, most = queue.rows, queue.limits.max_batch_rows
        expected_s = to.cost.estimate(waiting if waiting < most else most)
        growing = False
        if to.joins:
            longest_s = PIECE_S if self._shared or turn.job else LONE_PIECE_S
            # The estimate is of all sizes up to twice the smallest.
            if expected_s is None or 2 * expected_s > longest_s:
                most = to.piece_rows(longest_s)
                growing = most < waiting and not to.cost.has_measured(most)
        entries, late = queue.take(now, most, joins=to.joins)
        waits = len(queue) > 0
        if waits:
            self._turns.wait(to, job=turn.job)
        for entry in late:
            self._fail_late(entry)
        if entries:
            rows = waiting
            # Halves of a batch that failed were not counted.
            if waits or late or not rows:
                rows = sum([entry.left for entry in entries])
                expected_s = to.cost.estimate(rows)
            # While its batches still grow, they do not show a version's pace.
            saturated = (self._behind or waits) and not growing
            self._start(_Batch(turn, entries, rows, now, saturated), expected_s)
        else:
            self._turns.give_back(turn)
            self._free_idle(to)
        self._behind = False
        self._schedule()

    def _start(self, batch: _Batch, expected_s: float | None) -> None:
        to = batch.turn.lane
        self._number += 1
        if (
            expected_s is not None
            and expected_s <= self._inline_s
            and not self._in_flight
            # A deeper device takes the next batch meanwhile; here the loop would wait.
            and to.depth == 1
        ):
            self.counters["inline_batches"] += 1
            self._finish(batch, self._run(batch, self._number))
            if self._retired:
                self._free_idle(to)
            return
        self._in_flight += 1
        self._depth = min(self._depth, to.depth)
        to.in_flight += 1
        thread = self._take_thread()
        task = thread.submit(self._run, batch, self._number)

        def done(task: "Future[Outcome]") -> None:
            self._loop.call_soon_threadsafe(self._done, batch, task, thread)

        task.add_done_callback(done)

    def _run(self, batch: _Batch, number: int) -> Outcome:
        to, notes = batch.turn.lane, self._notes
        slot = notes.begin(to.name, batch.rows, number)
        outcome = execution.run(
            to.runner, batch.entries, batch.rows, not to.joins, self._clock
        )
        notes.end(slot)
        return outcome

    def _take_thread(self) -> ThreadPoolExecutor:
        if not self._free_threads:
            self._threads.append(_thread())
            self._free_threads.append(self._threads[-1])
        return self._free_threads.pop()

    def _done(
        self,
        batch: _Batch,
        task: "Future[Outcome]",
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
            self._lanes.discard(lane)
            self._shared = len(self._lanes) > 1
            self._threads[0].submit(self._retired.pop(lane))

    # Answers

    def _finish(self, batch: _Batch, outcome: Outcome) -> None:
        counters, now = self.counters, self._clock()
        turn, taken_at = batch.turn, batch.taken_at
        to = turn.lane
        # Batches in flight overlap: charge each only from the end of the one before.
        free_at = self._free_at
        seconds = now - (taken_at if taken_at > free_at else free_at)
        self._free_at = now
        counters["busy_us"] += int(seconds * 1e6)
        self._turns.ran(turn, seconds)
        if outcome.halvings:
            counters["memory_halvings"] += outcome.halvings
        if seconds > _LONG_S:
            self._drop_late(to, job=turn.job)
        answer = outcome.answer
        if answer is None:
            self._finish_failed(batch, outcome)
            return
        start = answered = 0
        callers: dict[Caller, None] = {}
        for entry in outcome.entries:
            if entry.whole is not None:
                self._answer_part(entry, answer, start, to)
                callers[entry.caller] = None
            elif not entry.gone:
                entry.gone = True
                answered += 1
                queue_s = taken_at - entry.arrived_at
                self.queue_seconds.observe(queue_s)
                queue_us = int(queue_s * 1e6)
                if entry.cut is None:
                    entry.caller.answered(entry, answer, start, queue_us)
                else:
                    part = entry.cut(answer, start, entry.rows)
                    entry.caller.answered(entry, part, 0, queue_us)
                callers[entry.caller] = None
            start += entry.rows
        self.unanswered -= answered
        for caller in callers:
            caller.delivered()
        rows = answer.rows
        to.calls += answered
        to.rows += rows
        to.batches += 1
        self.batch_rows.observe(rows)
        to.cost.observe(rows, answer.compute_us / 1e6)
        counters["batches"] += 1
        counters["rows"] += rows
        if turn.job:
            counters["job_rows"] += rows
        else:
            to.pace.observe(rows, seconds, saturated=batch.saturated)

    def _answer_part(
        self, part: Entry, answer: BatchAnswer, start: int, to: Lane
    ) -> None:
        """Keep the answer to a part; answer the entry once all parts are there."""
        assert isinstance(part, EntryPart)
        self.counters["pieces"] += 1
        entry = part.whole
        parts = entry.parts
        if entry.gone or parts is None:
            return
        parts.add(part, answer, start)
        try:
            whole = parts.answer(entry)
        # A model may answer each part with outputs of another kind.
        except (EngineError, TypeError, ValueError) as cause:
            self._fail_with(execution.failed([entry], cause), to)
            return
        if whole is None:
            return
        entry.gone, entry.parts = True, None
        self.unanswered -= 1
        to.calls += 1
        if entry.cut is not None:
            whole = entry.cut(whole, 0, entry.rows)
        queue_s = parts.taken_at - entry.arrived_at
        self.queue_seconds.observe(queue_s)
        queue_us = int(queue_s * 1e6)
        entry.caller.answered(entry, whole, 0, queue_us)

    def _finish_failed(self, batch: _Batch, outcome: Outcome) -> None:
        turn, to = batch.turn, batch.turn.lane
        if to.joins and execution.may_halve(outcome):
            to.queue(job=turn.job).put_back_halved(outcome.entries)
            self._turns.wait(to, job=turn.job)
            self._schedule()
        else:
            self._fail_with(outcome, to)

    def _fail_with(self, outcome: Outcome, to: Lane) -> None:
        """Fail the entries, and tell the version's owners why."""
        error, cause = outcome.error, outcome.cause
        assert error is not None
        assert cause is not None
        self.counters["model_errors"] += 1
        message = failures.said(cause)
        if not to.log_values:
            message = redaction.redacted(
                message, [entry.tensors for entry in outcome.entries]
            )
            error = execution.without_values(error, cause, message)
        failure = BatchFailure(
            self._wall_clock(),
            error.code,
            type(cause).__name__,
            message[: redaction.MOST_MESSAGE],
            outcome.trace,
            sum([entry.rows for entry in outcome.entries]),
            tuple(
                dict.fromkeys(
                    [
                        entry.request_id[:_MOST_ID]
                        for entry in outcome.entries
                        if entry.request_id
                    ]
                )
            )[:_MOST_IDS],
        )
        to.failures.append(failure)
        logger.warning(
            "batch_failed",
            version=to.name,
            code=failure.code,
            request_ids=failure.request_ids,
            entries=len(outcome.entries),
            rows=failure.rows,
            exception=failure.exception,
            message=failure.message,
            trace=failure.trace,
        )
        for entry in outcome.entries:
            self._fail(entry, error)
        if execution.is_fatal(cause):
            self._on_fatal()

    def _drop_late(self, to: Lane, *, job: bool) -> None:
        for entry in to.queue(job=job).drop_late(self._clock()):
            self._fail_late(entry)

    def _fail_late(self, entry: Entry) -> None:
        entry = entry.whole or entry
        if not entry.gone:
            self.counters["late"] += 1
            self._note_dropped(entry)
        self._fail(entry, late(entry))

    def _fail(self, entry: Entry, error: EngineError) -> None:
        entry = entry.whole or entry
        if entry.gone:
            return
        entry.gone = True
        self.unanswered -= 1
        if entry.queue is not None:
            entry.queue.leave(entry)  # the rest of an entry whose part failed
        entry.caller.failed(entry, error)

    def _note_dropped(self, entry: Entry) -> None:
        if entry.parts is not None:
            self.counters["dropped_between_pieces"] += 1


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="device")
