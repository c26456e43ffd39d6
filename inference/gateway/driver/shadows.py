"""Send copies of answered calls to shadows, and compare what they answer.

Copies have the least of everything: they wait until the loop has time, at the priority
of jobs, within bounds, and are dropped first. What was found goes to the spool about
once a second, added up by key.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from accounts.metering.comparison import ComparedCalls
from accounts.metering.spool import SpoolUnavailable, SpoolWriter, encode_event
from inference.codecs import differences
from inference.codecs.decoding import DecodedRequest
from inference.codecs.differences import Difference
from inference.dialects.dialect import ReadsFiles
from inference.engine.signatures.signature import UnsupportedSignature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Prediction
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.driver.engines import Engines
from inference.gateway.metrics.calls import ShadowCounts
from inference.installation import example_files
from inference.installation.example_files import Example
from inference.prediction.effects import EngineCall, ShadowCopy
from inference.prediction.refused import BY_ENGINE

logger = structlog.get_logger(__name__)

# Copies that wait or are under way, and their inputs and answers.
_MOST = 64
_MOST_BYTES = 16 * 1024 * 1024
_MOST_ROWS = 256
# An engine answers a copy within this time, or it is dropped.
_TIMEOUT_S = 10.0
# Copies have a few turns of the loop, so many in each.
_PACE_S = 0.002
_AT_ONCE = 4
# A turn that comes so late means that answers to callers wait.
_LATE_S = 0.02
_FLUSH_S = 1.0
# Larger calls, and longer answers, are no examples.
_MOST_EXAMPLE_BYTES = 8 * 1024
# Errors of the version itself.
_OWN_ERRORS = BY_ENGINE | {EngineErrorCode.MODEL_ERROR}

# What came of a copy; all but the first three say nothing of the version.
Outcome = Literal[
    "same", "changed", "failed", "full", "busy", "large", "unread", "unanswered"
]
_Key = tuple[int, str, str, int, int]


class _Sum:
    """What the copies of one key's calls found since the last flush."""

    __slots__ = (
        "at",
        "calls",
        "changed",
        "changed_rows",
        "default_us",
        "distance",
        "failed",
        "rows",
        "shadow_us",
    )

    def __init__(self, at: float) -> None:
        self.at = at
        self.calls = self.failed = self.rows = self.changed_rows = 0
        self.default_us = self.shadow_us = 0
        self.changed = self.distance = 0.0


class _UnderWay:
    """Wait for a shadow's answer to one copy."""

    __slots__ = ("_copy", "_shadows", "_size")

    def __init__(self, shadows: "Shadows", copy: ShadowCopy, size: int) -> None:
        self._shadows = shadows
        self._copy = copy
        self._size = size

    def resume(self, value: Any) -> None:
        self._shadows.answered(self._copy, value, self._size)

    def fail(self, error: Exception) -> None:
        self._shadows.answered(self._copy, error, self._size)


class Shadows:
    """Hold the copies of one gateway that wait, and what came of the others."""

    def __init__(
        self,
        engines: Engines,
        writer: SpoolWriter,
        *,
        clock: Callable[[], float],
        examples: Path | None = None,
        most: int = _MOST,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self.counts = ShadowCounts()
        # Copies that wait are dropped if their turn comes so late.
        self.late_s = _LATE_S
        self._engines = engines
        self._writer = writer
        self._clock = clock
        # The folder for examples; None: no examples are kept.
        self._examples = examples
        # No further example before this time.
        self._next_example = 0.0
        self._most = most
        self._most_bytes = most_bytes
        self._held = self._held_bytes = 0
        self._waiting: deque[tuple[ShadowCopy, int]] = deque()
        self._answered: deque[tuple[ShadowCopy, Prediction | Exception, int]] = deque()
        self._sums: dict[_Key, _Sum] = {}
        # When the next turn is due, in the loop's time; 0: none is.
        self._due = 0.0
        self._flushing = False

    def offer(self, copy: ShadowCopy) -> None:
        """Take a copy of a call whose answer has left, if there is room."""
        call = copy.call
        if call.decoded.rows > _MOST_ROWS:
            self._count(copy, "large")
            return
        tensors = (*call.decoded.tensors, *copy.prediction.tensors)
        size = _size_of(call.body) + sum(tensor.data.nbytes for tensor in tensors)
        if self._held >= self._most or self._held_bytes + size > self._most_bytes:
            self._count(copy, "full")
            return
        self._held += 1
        self._held_bytes += size
        self._waiting.append((copy, size))
        self._schedule()

    def answered(
        self, copy: ShadowCopy, outcome: Prediction | Exception, size: int
    ) -> None:
        """Compare an answer in a later turn of the loop."""
        self._answered.append((copy, outcome, size))
        self._schedule()

    def flush(self) -> None:
        """Write what was found to the spool, and begin new sums."""
        sums, self._sums = self._sums, {}
        frames = [
            encode_event(
                ComparedCalls(
                    at=it.at,
                    customer_id=customer_id,
                    key_id=key_id,
                    model=model,
                    default=default,
                    shadow=shadow,
                    calls=it.calls,
                    failed=it.failed,
                    changed=it.changed,
                    rows=it.rows,
                    changed_rows=it.changed_rows,
                    distance=it.distance,
                    default_us=it.default_us,
                    shadow_us=it.shadow_us,
                )
            )
            for (customer_id, key_id, model, default, shadow), it in sums.items()
        ]
        if not frames:
            return
        try:
            self._writer.append_encoded(frames)
        except SpoolUnavailable as error:
            # Answers to callers are refused then, too, and say so.
            logger.warning("comparisons_lost", reason=str(error))

    def _schedule(self) -> None:
        if not self._due:
            loop = asyncio.get_running_loop()
            self._due = loop.time() + _PACE_S
            loop.call_at(self._due, self._turn)

    def _turn(self) -> None:
        late_s = asyncio.get_running_loop().time() - self._due
        self._due = 0.0
        if late_s > self.late_s:
            while self._waiting:
                copy, size = self._waiting.popleft()
                self._drop(copy, "busy", size)
        for _ in range(min(_AT_ONCE, len(self._answered))):
            copy, outcome, size = self._answered.popleft()
            self._give_back(size)
            try:
                self._finish(copy, outcome)
            except Exception:
                # The copies behind it have to go on.
                logger.exception("copy_not_finished", version=str(copy.shadow))
                self._count(copy, "unread")
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            copy, size = self._waiting.popleft()
            try:
                self._send(copy, size)
            except Exception:
                logger.exception("copy_not_sent", version=str(copy.shadow))
                self._drop(copy, "unread", size)
        if self._waiting or self._answered:
            self._schedule()

    def _send(self, copy: ShadowCopy, size: int) -> None:
        try:
            decoded = _read(copy)
        except ApiError as error:
            self.answered(copy, error, size)
            return
        if decoded is None:
            self._drop(copy, "unread", size)
            return
        target = copy.shadow.target
        call = EngineCall(
            target.key,
            decoded.tensors,
            _TIMEOUT_S,
            decoded.options.batch_size or 0,
            decoded.params,
            # Copies take no customer's turn.
            0,
            "job",
            engines=target.engines,
        )
        if not self._engines.begin_at_once(call, _UnderWay(self, copy, size)):
            self._drop(copy, "unanswered", size)

    def _finish(self, copy: ShadowCopy, outcome: Prediction | Exception) -> None:
        rows, shadow_us = copy.call.decoded.rows, 0
        kind: Outcome = "failed"
        found = Difference(rows, rows)
        if isinstance(outcome, Prediction):
            shadow_us = outcome.compute_us
            try:
                found = _compare(copy, outcome)
            except Exception:
                # The shadow may give other outputs than it says; no caller waits.
                logger.exception("answers_not_compared", version=str(copy.shadow))
            else:
                kind = "changed" if found.changed_rows else "same"
            if kind == "changed" and copy.shadow.keeps_examples:
                self._keep_example(copy, outcome)
        elif isinstance(outcome, EngineError) and outcome.code not in _OWN_ERRORS:
            self._count(copy, "unanswered")
            return
        self._add(copy, found, failed=kind == "failed", shadow_us=shadow_us)
        self._count(copy, kind)

    def _add(
        self, copy: ShadowCopy, found: Difference, *, failed: bool, shadow_us: int
    ) -> None:
        call, shadow = copy.call, copy.shadow
        known, rows = call.known, call.decoded.rows
        name = shadow.target.key.model
        counts, labels = self.counts, (name, shadow.target.version)
        counts.rows[labels] = counts.rows.get(labels, 0) + rows
        distance = counts.distance.get(labels, 0.0)
        counts.distance[labels] = distance + found.distance
        seconds = counts.seconds.get(labels, 0.0)
        counts.seconds[labels] = seconds + shadow_us / 1e6
        key: _Key = (
            known.customer_id,
            known.entry.key.key_id,
            name,
            shadow.default,
            shadow.target.key.version,
        )
        total = self._sums.get(key)
        if total is None:
            total = self._sums[key] = _Sum(known.now)
        total.calls += 1
        total.failed += failed
        total.changed += found.changed_rows / rows
        total.rows += rows
        total.changed_rows += found.changed_rows
        total.distance += found.distance
        total.default_us += copy.prediction.compute_us
        total.shadow_us += shadow_us
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(_FLUSH_S, self._flush_in_turn)

    def _keep_example(self, copy: ShadowCopy, answer: Prediction) -> None:
        """Write at most one example a second for the controller."""
        now, body = self._clock(), copy.call.body
        if (
            self._examples is None
            or now < self._next_example
            # A message of gRPC is no text.
            or not isinstance(body, (bytes, bytearray))
            or len(body) > _MOST_EXAMPLE_BYTES
        ):
            return
        known, shadow = copy.call.known, copy.shadow
        ours, theirs = (
            msgspec.json.encode(predictions).decode()
            for predictions in _predictions(copy, answer)
        )
        if max(len(ours), len(theirs)) > _MOST_EXAMPLE_BYTES:
            return
        try:
            text = bytes(body).decode()
        except UnicodeDecodeError:
            # Raw tensors, or a picture.
            return
        if "\0" in text:
            # PostgreSQL refuses it.
            return
        self._next_example = now + 1.0
        example = Example(
            at=known.now,
            customer_id=known.customer_id,
            request_id=known.request_id[:200],
            model=shadow.target.key.model,
            default=shadow.default,
            shadow=shadow.target.key.version,
            body=text,
            default_answer=ours,
            shadow_answer=theirs,
        )
        try:
            example_files.write(self._examples, secrets.token_hex(16), example)
        except OSError as error:
            logger.warning("example_not_kept", reason=str(error))

    def _flush_in_turn(self) -> None:
        self._flushing = False
        self.flush()

    def _drop(self, copy: ShadowCopy, why: Outcome, size: int) -> None:
        self._give_back(size)
        self._count(copy, why)

    def _give_back(self, size: int) -> None:
        self._held -= 1
        self._held_bytes -= size

    def _count(self, copy: ShadowCopy, outcome: Outcome) -> None:
        target, calls = copy.shadow.target, self.counts.calls
        labels = (target.key.model, target.version, outcome)
        calls[labels] = calls.get(labels, 0) + 1


def _size_of(body: Any) -> int:
    """Return the size of a body, or of a message of gRPC, in bytes."""
    if isinstance(body, (bytes, bytearray)):
        return len(body)
    return int(body.ByteSize())


def _read(copy: ShadowCopy) -> DecodedRequest | None:
    """Read the same body for the shadow; None if that takes more than the body.

    Raises ApiError if the shadow does not take what the default took.
    """
    call, target = copy.call, copy.shadow.target
    if copy.shadow.reads_same:
        return call.decoded
    ours = call.decoded
    apart = ours.options.return_errors == "individual"
    if apart or ours.total or ours.indexes is not None or ours.problems:
        # The default answered some of the rows only; which of them the shadow would
        # answer says nothing of the version.
        return None
    known, dialect = call.known, call.known.call.dialect
    limits = known.entry.admission.limits
    try:
        decoded = dialect.decode(known.call, target, call.body, limits)
    except UnsupportedSignature:
        return None
    except ApiError:
        if isinstance(dialect, ReadsFiles) and dialect.find_file(call.body) is not None:
            return None
        raise
    if decoded.images is not None:
        return None
    if decoded.rows != ours.rows:
        message = "The shadow refuses rows that the default takes."
        raise ApiError(ErrorCode.INVALID_INPUT, message)
    return decoded


def _compare(copy: ShadowCopy, answer: Prediction) -> Difference:
    ours, theirs = _predictions(copy, answer)
    return differences.compare(ours, theirs, tolerance=copy.shadow.tolerance)


def _predictions(copy: ShadowCopy, answer: Prediction) -> tuple[list[Any], list[Any]]:
    """Return what a caller reads of the default's answer, and of the shadow's."""
    ours = copy.call.target.tools()[1].predictions(copy.prediction.tensors)
    theirs = copy.shadow.target.tools()[1].predictions(answer.tensors)
    return ours, theirs
