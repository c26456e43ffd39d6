"""Run one batch.

A batch that does not fit into the device's memory runs as two halves, each split again
if needed; a single row that still does not fit is refused as overload.
"""

import time
import traceback
from collections.abc import Callable, Sequence

import msgspec

from inference.engine.batching.entry import BatchAnswer, Entry
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


class Outcome(msgspec.Struct, gc=False):
    """The result for the entries that shared one forward pass."""

    entries: Sequence[Entry]
    answer: BatchAnswer | None
    error: EngineError | None
    # The model's own exception, to be logged and classified, never sent.
    cause: BaseException | None = None
    # Traceback of the exception.
    trace: str = ""
    # How often rows were halved because memory was short.
    halvings: int = 0


def run(
    runner: Runner,
    entries: Sequence[Entry],
    rows: int,
    whole: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run the entries together; a `whole` batch also if memory is short."""
    started = clock()
    halved: list[int] = []
    try:
        tensors = runners.concatenate([entry.tensors for entry in entries])
        # All entries of a batch have the same parameters.
        outputs = _run_rows(runner, tensors, entries[0].params, halved, whole)
    # A model may raise anything; also its sys.exit must not end the engine.
    except BaseException as cause:
        return failed(entries, cause, halvings=len(halved))
    compute_us = int((clock() - started) * 1e6)
    answer = BatchAnswer(outputs, compute_us, rows)
    return Outcome(entries, answer, None, halvings=len(halved))


def failed(
    entries: Sequence[Entry], cause: BaseException, *, halvings: int = 0
) -> Outcome:
    """Return the outcome for entries on which a model failed."""
    trace = trace_of(cause)
    # The traceback's frames would keep the batch's tensors in device memory.
    cause.__traceback__ = None
    error = error_of(cause)
    if is_fatal(cause) and len(entries) > 1:
        # Perhaps no request or only one is the cause. A single request gets the
        # model's own error instead.
        error = EngineError(
            EngineErrorCode.DEVICE_FAILED,
            "the device failed; its engine starts again",
            retry_after_ms=_RESTART_RETRY_MS,
        )
    return Outcome(entries, None, error, cause, trace, halvings)


def may_halve(outcome: Outcome) -> bool:
    """Return whether each half of a batch that failed should run apart.

    So only requests that fail alone are failed, after few more forward passes. If
    memory is short, not even one row fits, and all rows have the same size.
    """
    return (
        outcome.error is not None
        and len(outcome.entries) > 1
        and not is_fatal(outcome.cause)
        and not failures.is_out_of_memory(outcome.cause)
    )


def _run_rows(
    runner: Runner,
    tensors: Sequence[Tensor],
    params: Params | None,
    halved: list[int],
    whole: bool,
) -> tuple[Tensor, ...]:
    """Run rows together, or as two halves if they do not fit into memory."""
    rows = len(tensors[0].data)
    try:
        outputs = runners.run(runner, tensors, params)
    except Exception as error:
        if rows == 1 or whole or not failures.is_out_of_memory(error):
            raise
        halved.append(rows)
    else:
        runners.check_outputs(outputs, rows)
        return outputs
    # Not in the handler above, where the error keeps the failed tensors alive.
    middle = rows // 2
    return join_outputs(
        [
            _run_rows(runner, part, params, halved, whole)
            for part in (_rows(tensors, 0, middle), _rows(tensors, middle, rows))
        ]
    )


def _rows(tensors: Sequence[Tensor], start: int, stop: int) -> tuple[Tensor, ...]:
    return tuple(Tensor(tensor.name, tensor.data[start:stop]) for tensor in tensors)


def error_of(cause: BaseException) -> EngineError:
    if isinstance(cause, EngineError):
        return cause
    if failures.is_out_of_memory(cause):
        return EngineError(
            EngineErrorCode.OVERLOADED,
            "the device has no memory left for this request",
            retry_after_ms=_NO_MEMORY_RETRY_MS,
        )
    return _model_error(cause, failures.said(cause))


def _model_error(cause: BaseException, message: str) -> EngineError:
    return EngineError(
        EngineErrorCode.MODEL_ERROR,
        f"the model raised {type(cause).__name__}: {message}"[:500],
    )


def without_values(
    error: EngineError, cause: BaseException, message: str
) -> EngineError:
    """Return the failure of a model with a message that holds no values of rows.

    Gateways write it into their logs.
    """
    if error.code is not EngineErrorCode.MODEL_ERROR:
        return error
    if error is cause:
        return EngineError(error.code, message)
    return _model_error(cause, message)


def trace_of(cause: BaseException) -> str:
    """Return the end of an error's traceback, without values, which are private."""
    frames = traceback.format_tb(cause.__traceback__, limit=-_TRACE_FRAMES)
    return "".join(frames)[-_TRACE_LENGTH:]


def is_fatal(cause: BaseException | None) -> bool:
    """Return whether the device itself failed, so that all later work fails too."""
    return failures.is_sticky(cause)
