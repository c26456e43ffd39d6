"""Run one batch, and keep a request that breaks the model from failing the others.

A batch that does not fit into the device's memory runs as two halves, each split again
if needed; a single row that still does not fit is refused as overload.
"""

import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from inference.engine.batching.queue import BatchAnswer, Entry
from inference.engine.devices import failures
from inference.engine.runners import runner as runners
from inference.engine.runners.runner import Runner
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.joined_outputs import join_outputs
from inference.engine.wire.messages import Params
from inference.engine.wire.tensors import Tensor

# By then other batches will have left the device.
_NO_MEMORY_RETRY_MS = 1000
# Limits for the logged traceback of a model's error: innermost frames, characters.
_TRACE_FRAMES = 10
_TRACE_LENGTH = 4000
# An engine needs about this long to restart, without loading its versions.
_RESTART_RETRY_MS = 5000


class Outcome(NamedTuple):
    """The result for the entries that shared one forward pass."""

    entries: Sequence[Entry]
    answer: BatchAnswer | None
    error: EngineError | None
    # The model's own exception, to be logged and classified, never sent.
    cause: BaseException | None = None
    # Traceback of the exception.
    trace: str = ""
    # How often a piece was halved because memory was short.
    halvings: int = 0


def run(
    runner: Runner,
    entries: Sequence[Entry],
    *,
    max_batch_rows: int,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run the entries together, in pieces of at most `max_batch_rows` rows."""
    started = clock()
    halved: list[int] = []
    try:
        tensors = _forward(runner, entries, max_batch_rows, halved)
    # A model may raise anything; also its sys.exit must not end the engine.
    except (Exception, SystemExit) as cause:
        trace = trace_of(cause)
        # The traceback's frames would keep the batch's tensors in device memory.
        cause.__traceback__ = None
        error = _error(cause)
        if is_fatal(cause) and len(entries) > 1:
            # Perhaps no request or only one is the cause. A single request gets the
            # model's own error instead.
            error = EngineError(
                EngineErrorCode.DEVICE_FAILED,
                "the device failed; its engine starts again",
                retry_after_ms=_RESTART_RETRY_MS,
            )
        return Outcome(entries, None, error, cause, trace, len(halved))
    rows = len(tensors[0].data)
    compute_us = int((clock() - started) * 1e6)
    return Outcome(
        entries, BatchAnswer(tensors, compute_us, rows), None, halvings=len(halved)
    )


def run_apart(
    runner: Runner, entries: Sequence[Entry], *, max_batch_rows: int
) -> list[Outcome]:
    """Run the entries together; if they fail, run each half apart, and so on.

    So only requests that fail alone are failed, after few more forward passes.
    """
    outcome = run(runner, entries, max_batch_rows=max_batch_rows)
    if outcome.error is None or len(entries) == 1 or is_fatal(outcome.cause):
        return [outcome]
    if failures.is_out_of_memory(outcome.cause):
        # Not even one row fits, and all rows have the same size.
        return [outcome]
    middle = len(entries) // 2
    return [
        *run_apart(runner, entries[:middle], max_batch_rows=max_batch_rows),
        *run_apart(runner, entries[middle:], max_batch_rows=max_batch_rows),
    ]


def _forward(
    runner: Runner, entries: Sequence[Entry], max_batch_rows: int, halved: list[int]
) -> tuple[Tensor, ...]:
    tensors = runners.concatenate([entry.tensors for entry in entries])
    rows = len(tensors[0].data)
    # All entries of a batch have the same parameters.
    params = entries[0].params
    if rows <= max_batch_rows:
        return _run_piece(runner, tensors, params, halved)
    pieces = []
    for start in range(0, rows, max_batch_rows):
        if all(entry.gone for entry in entries):
            raise EngineError(EngineErrorCode.DEADLINE_EXCEEDED, "the caller left")
        piece = _rows(tensors, start, start + max_batch_rows)
        pieces.append(_run_piece(runner, piece, params, halved))
    return join_outputs(pieces)


def _run_piece(
    runner: Runner,
    tensors: Sequence[Tensor],
    params: Params | None,
    halved: list[int],
) -> tuple[Tensor, ...]:
    """Run rows together, or as two halves if they do not fit into memory."""
    rows = len(tensors[0].data)
    try:
        outputs = runners.run(runner, tensors, params)
    except Exception as error:
        if rows == 1 or not failures.is_out_of_memory(error):
            raise
        halved.append(rows)
    else:
        runners.check_outputs(outputs, rows)
        return outputs
    # Not in the handler above, where the error keeps the failed tensors alive.
    middle = rows // 2
    return join_outputs(
        [
            _run_piece(runner, _rows(tensors, 0, middle), params, halved),
            _run_piece(runner, _rows(tensors, middle, rows), params, halved),
        ]
    )


def _rows(tensors: Sequence[Tensor], start: int, stop: int) -> tuple[Tensor, ...]:
    return tuple(Tensor(tensor.name, tensor.data[start:stop]) for tensor in tensors)


def _error(cause: BaseException) -> EngineError:
    if isinstance(cause, EngineError):
        return cause
    if failures.is_out_of_memory(cause):
        return EngineError(
            EngineErrorCode.OVERLOADED,
            "the device has no memory left for this request",
            retry_after_ms=_NO_MEMORY_RETRY_MS,
        )
    return EngineError(
        EngineErrorCode.MODEL_ERROR,
        f"the model raised {type(cause).__name__}: {cause}"[:500],
    )


def trace_of(cause: BaseException) -> str:
    """Return the end of an error's traceback, without values, which are private."""
    frames = traceback.format_tb(cause.__traceback__, limit=-_TRACE_FRAMES)
    return "".join(frames)[-_TRACE_LENGTH:]


def is_fatal(cause: BaseException | None) -> bool:
    """Return whether the device itself failed, so that all later work fails too."""
    return failures.is_sticky(cause)
