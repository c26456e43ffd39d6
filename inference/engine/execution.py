"""Run one batch and keep a poisonous request from failing the others."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from inference.engine import runner as runners
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.runner import Runner
from inference.engine.tensors import Tensor
from inference.engine.waiting import Answer, Entry

logger = structlog.get_logger()


class Outcome(NamedTuple):
    """What became of the entries that shared one forward pass."""

    entries: Sequence[Entry]
    answer: Answer | None
    error: EngineError | None
    # The model's own exception; never sent, only logged and classified.
    cause: BaseException | None = None


def run(
    runner: Runner,
    entries: Sequence[Entry],
    *,
    max_batch_rows: int,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run the entries together, in pieces of `max_batch_rows` if they are more."""
    started = clock()
    try:
        tensors = _forward(runner, entries, max_batch_rows)
    # A model may raise anything, and must not take the engine down by sys.exit.
    except (Exception, SystemExit) as cause:
        return Outcome(entries, None, _error(cause), cause)
    rows = len(tensors[0].data)
    compute_us = int((clock() - started) * 1e6)
    return Outcome(entries, Answer(tensors, compute_us, rows), None)


def run_apart(
    runner: Runner, entries: Sequence[Entry], *, max_batch_rows: int
) -> list[Outcome]:
    """Run the entries, and again by halves while they fail.

    So only the requests that fail on their own fail, after few further passes; and a
    batch that was too large for the memory is tried as two.
    """
    outcome = run(runner, entries, max_batch_rows=max_batch_rows)
    if outcome.error is None or is_fatal(outcome.cause):
        return [outcome]
    if len(entries) == 1:
        return [outcome]
    middle = len(entries) // 2
    return [
        *run_apart(runner, entries[:middle], max_batch_rows=max_batch_rows),
        *run_apart(runner, entries[middle:], max_batch_rows=max_batch_rows),
    ]


def _forward(
    runner: Runner, entries: Sequence[Entry], max_batch_rows: int
) -> tuple[Tensor, ...]:
    tensors = runners.concatenate([entry.tensors for entry in entries])
    rows = len(tensors[0].data)
    if rows <= max_batch_rows:
        outputs = runner.run(tensors)
        runners.check_outputs(outputs, rows)
        return outputs
    pieces = []
    for start in range(0, rows, max_batch_rows):
        if all(entry.gone for entry in entries):
            raise EngineError(EngineErrorCode.DEADLINE_EXCEEDED, "the caller left")
        piece = tuple(
            Tensor(tensor.name, tensor.data[start : start + max_batch_rows])
            for tensor in tensors
        )
        outputs = runner.run(piece)
        runners.check_outputs(outputs, len(piece[0].data))
        pieces.append(outputs)
    return runners.concatenate(pieces)


def _error(cause: BaseException) -> EngineError:
    if isinstance(cause, EngineError):
        return cause
    if _name(cause) == "OutOfMemoryError":
        return EngineError(
            EngineErrorCode.OVERLOADED,
            "the device has no memory left for this request",
            retry_after_ms=1000,
        )
    return EngineError(
        EngineErrorCode.MODEL_ERROR, f"the model raised {_name(cause)}: {cause}"[:500]
    )


def is_fatal(cause: BaseException | None) -> bool:
    """Tell whether the device itself failed: all that follows would fail too."""
    return cause is not None and (
        _name(cause) == "AcceleratorError" or "CUDA error" in str(cause)
    )


def _name(cause: BaseException) -> str:
    return type(cause).__name__
