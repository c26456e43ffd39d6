"""Find the rows that a model fails on: halve a batch that fails, and try the halves.

Predictions with `return_errors: individual` and jobs use this, and bound the calls.
"""

from collections.abc import Container, Generator, Sequence

import msgspec

from inference.codecs.decoding import DecodedRequest
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.joined_outputs import join_outputs
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors.api_error import ErrorCode, Problem

# Errors that a single row may cause, and the problem that is reported for it.
FAILS_ON_ROWS = {
    EngineErrorCode.MODEL_ERROR: Problem(
        "the model failed on this row", code=ErrorCode.MODEL_ERROR
    ),
    EngineErrorCode.BAD_REQUEST: Problem(
        "the model does not take this row", code=ErrorCode.INVALID_INPUT
    ),
}

Outcome = Prediction | EngineError


def by_halves(
    tensors: tuple[Tensor, ...], *, fails: Container[EngineErrorCode]
) -> Generator[tuple[Tensor, ...], Outcome, list[tuple[int, Outcome]]]:
    """Yield rows to predict, and be sent their outcome; return all pieces in order.

    A piece is a number of rows with their prediction, or a single row with its error.
    Raises an EngineError whose code is not among `fails`.
    """
    pending = [tensors]
    done: list[tuple[int, Outcome]] = []
    while pending:
        piece = pending.pop()
        rows = len(piece[0].data)
        outcome = yield piece
        if isinstance(outcome, EngineError):
            if outcome.code not in fails:
                raise outcome
            if rows > 1:
                pending += [
                    take(piece, slice(rows // 2, None)),
                    take(piece, slice(rows // 2)),
                ]
                continue
        done.append((rows, outcome))
    return done


def take(tensors: Sequence[Tensor], rows: slice | list[int]) -> tuple[Tensor, ...]:
    """Return some rows of tensors."""
    return tuple(Tensor(one.name, one.data[rows]) for one in tensors)


def put_together(
    decoded: DecodedRequest, pieces: Sequence[tuple[int, Outcome]]
) -> tuple[DecodedRequest, Prediction] | None:
    """Join the predictions, and report the other rows as problems of the request.

    Returns None if nothing was predicted.
    """
    indexes = decoded.indexes or range(decoded.rows)
    good: list[int] = []
    problems = list(decoded.problems)
    predictions: list[Prediction] = []
    start = 0
    for rows, outcome in pieces:
        if isinstance(outcome, EngineError):
            problem = FAILS_ON_ROWS[outcome.code]
            problems.append(msgspec.structs.replace(problem, index=indexes[start]))
        else:
            predictions.append(outcome)
            good += range(start, start + rows)
        start += rows
    if not predictions:
        return None
    problems.sort(key=lambda problem: problem.index or 0)
    rest = msgspec.structs.replace(
        decoded,
        tensors=take(decoded.tensors, good),
        rows=len(good),
        total=decoded.total or decoded.rows,
        indexes=tuple(indexes[row] for row in good),
        problems=tuple(problems),
    )
    joined = Prediction(
        join_outputs([prediction.tensors for prediction in predictions]),
        queue_us=sum(one.queue_us for one in predictions),
        compute_us=sum(one.compute_us for one in predictions),
        batch_rows=max(one.batch_rows for one in predictions),
    )
    return rest, joined
