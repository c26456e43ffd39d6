"""Take a worker's turn on a job: claim it, predict chunks for a while, release it.

A turn is short, so that customers share the workers and workers can stop soon.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec
import structlog

from accounts.customers import plans
from inference.codecs.answers import Warned
from inference.codecs.files import row_files as job_rows
from inference.codecs.options import Options
from inference.engine.signatures.signature import Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import VersionKey
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.jobs import files as job_files
from inference.jobs import life_cycle as jobs
from inference.jobs.work.row_predictor import (
    EngineDied,
    JobEngines,
    NoEngine,
    RowPredictor,
)
from inference.models import PredictionJob

TURN_S = 2.0
# Jobs of one process: its other threads stay free for the sync, mail and sweeps,
# however many jobs wait.
JOBS_AT_ONCE = 2
# A chunk of a slow model is committed after this time with the rows that are done.
CHUNK_S = 3.0
# How long a job without an engine waits before its next turn, and in total.
AGAIN_S = 3.0
GIVE_UP_S = 900.0

_slots = threading.BoundedSemaphore(JOBS_AT_ONCE)
logger = structlog.get_logger(__name__)


class Clock(Protocol):
    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class TurnProgress(Protocol):
    def note(self) -> None:
        """Record progress, so that the claim is renewed further."""
        ...


@dataclass(frozen=True, slots=True)
class Worker:
    """What a turn needs from its process."""

    name: str
    engines: JobEngines
    clock: Clock
    # Keeps the claim alive during the turn.
    keep: Callable[[jobs.Claim], AbstractContextManager[TurnProgress]]


def take_next_turn(worker: Worker) -> None:
    """Work on the next job in turn, then send a hint if other jobs wait.

    Returns at once if this process already works on JOBS_AT_ONCE jobs: the thread that
    ends its turn sends the hint.
    """
    if not _slots.acquire(blocking=False):
        return
    try:
        job_id = jobs.next_in_turn(now=worker.clock.now())
        if job_id is not None:
            take_turn(job_id, worker)
    finally:
        _slots.release()
    if jobs.claimable(worker.clock.now()).exists():
        jobs.dispatch()


def take_turn(job_id: str, worker: Worker) -> None:
    """Work on a job until it or the turn ends; return at once if it is held."""
    claim = jobs.claim(job_id, worker=worker.name, now=worker.clock.now())
    if claim is None:
        return
    with structlog.contextvars.bound_contextvars(
        job=job_id,
        request_id=claim.request_id,
        customer_id=claim.customer_id,
        key_id=claim.key_id,
    ):
        try:
            _work(claim, worker)
        except jobs.ClaimLost:
            # It was cancelled, or taken over because this worker seemed dead.
            logger.info("job_claim_lost")


def _work(claim: jobs.Claim, worker: Worker) -> None:
    clock = worker.clock
    try:
        with worker.keep(claim) as progress:
            ended = _Turn(claim, worker, progress).run()
    except jobs.ClaimLost:
        raise
    except NoEngine:
        jobs.hand_back(claim, again_at=clock.now() + timedelta(seconds=AGAIN_S))
        return
    except EngineDied:
        logger.warning("job_engine_died")
        again_at = clock.now() + timedelta(seconds=AGAIN_S)
        jobs.hand_back(claim, again_at=again_at, blameless=False)
        return
    except ApiError as error:
        logger.info("job_failed", code=error.code)
        jobs.fail(claim, error, now=clock.now())
        return
    except Exception:
        # The process boundary: this start counts as one that died.
        logger.exception("job_turn_failed")
        jobs.hand_back(claim, again_at=clock.now(), blameless=False)
        return
    if ended:
        logger.info("job_ended")
    else:
        jobs.hand_back(claim, again_at=clock.now())


class _Turn:
    def __init__(
        self, claim: jobs.Claim, worker: Worker, progress: TurnProgress
    ) -> None:
        self._claim = claim
        self._clock = worker.clock
        self._progress = progress
        self._job = PredictionJob.objects.select_related("customer__plan").get(
            pk=claim.job_id
        )
        self._signature = msgspec.convert(self._job.signature, Signature)
        self._predictor = RowPredictor(
            VersionKey(self._job.model, self._job.version),
            signature=self._signature,
            options=msgspec.convert(self._job.options, Options),
            engines=worker.engines,
            sleep=worker.clock.sleep,
            on_wait=self._note_waiting,
            customer_id=self._job.customer_id,
            request_id=f"{claim.job_id} {claim.request_id}".strip(),
        )

    def run(self) -> bool:
        """Predict chunks; return False if the turn ended before the job."""
        job, started = self._job, self._clock.monotonic()
        offset, first_row = job.input_offset, job.rows_done
        index = job.chunks.count()
        with job_files.open_input(job) as file:
            reader = job_rows.open_rows(
                file, input_format=job.input_format, signature=self._signature
            )
            if job.rows_total is None:
                self._count_rows(reader)
            while True:
                chunk = job_rows.read_chunk(reader, offset, max_rows=job.chunk_rows)
                if not chunk.rows:
                    jobs.finish(self._claim, now=self._clock.now())
                    return True
                # Checked last: a job whose rows are done needs no other turn to end.
                if self._clock.monotonic() - started >= TURN_S:
                    return False
                output = self._predict_chunk(chunk, index=index, first_row=first_row)
                jobs.commit_chunk(self._claim, output, now=self._clock.now())
                self._progress.note()
                offset, first_row = output.input_end, first_row + output.rows
                index += 1

    def _count_rows(self, reader: job_rows.FileRows) -> None:
        limit = plans.limits_of(self._job.customer).max_job_rows
        rows = job_rows.count_rows(reader, max_rows=limit)
        assert rows is not None
        jobs.count_rows(self._claim, rows=rows)
        self._progress.note()

    def _predict_chunk(
        self, chunk: job_rows.RowChunk, *, index: int, first_row: int
    ) -> jobs.ChunkOutput:
        started = self._clock.monotonic()
        self._predictor.start_chunk()
        predictions: list[Any] = []
        problems: list[Problem] = []
        warnings: list[Warned] = []
        while len(predictions) < len(chunk.rows):
            done = len(predictions)
            rows = chunk.rows[done : done + self._predictor.call_rows]
            some, bad, warned = self._predictor.predict(rows)
            predictions += some
            warnings += (Warned(first_row + done + position) for position in warned)
            problems += (
                msgspec.structs.replace(
                    problem, index=first_row + done + (problem.index or 0)
                )
                for problem in bad
            )
            self._progress.note()
            if self._clock.monotonic() - started >= CHUNK_S:
                break
        seconds = self._clock.monotonic() - started
        return jobs.ChunkOutput(
            index=index,
            predictions=msgspec.to_builtins(predictions),
            errors=sorted(problems, key=lambda problem: problem.index or 0),
            input_end=chunk.ends[len(predictions) - 1],
            compute_us=self._predictor.compute_us,
            total_us=int(seconds * 1_000_000),
            warnings=warnings,
        )

    def _note_waiting(self, error: EngineError) -> None:
        """Record that the job waits; raise ApiError once it has waited too long."""
        now = self._clock.now()
        since = jobs.note_waiting(self._claim, now=now)
        self._progress.note()
        if (now - since).total_seconds() < GIVE_UP_S:
            return
        minutes = f"{GIVE_UP_S / 60:.0f} minutes"
        if error.code is EngineErrorCode.OVERLOADED:
            raise ApiError(
                ErrorCode.OVERLOADED,
                f"The model had no room for this job for {minutes}.",
            ) from error
        raise ApiError(
            ErrorCode.MODEL_UNAVAILABLE, f"The model was not available for {minutes}."
        ) from error
