"""Find out whether a model's answer to a row depends on the rows beside it.

Requests share batches, so an answer that depends on its company depends on other
callers. The same rows are answered together, again, each alone, and reversed.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from inference.engine.devices import failures
from inference.engine.signatures import similar_rows
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.joined_outputs import rows_as_objects, with_nulls
from inference.engine.wire.tensors import Array, Tensor

Answer = Callable[[Sequence[Tensor]], Sequence[Tensor]]

# Rows in a batch that is checked: enough to sort and to rank, and few to answer alone.
MOST_ROWS = 5
# The check may take this long, or this many times as long as the first answer.
_BUDGET_S = 2.0
_BUDGET_TIMES = 10
# How often each row is answered in the check, about.
_ANSWERS_PER_ROW = 4
# Batches of other sizes are computed in another order: allowed differences of a float,
# relative to the largest in its column and in the whole output, and absolute ones.
_OF_COLUMN = 1e-4
# GPUs round more: to TF32 in convolutions, and to bfloat16 where a version allows it.
_OF_COLUMN_ON_CUDA = 1e-3
_OF_COLUMN_IN_BFLOAT16 = 2e-2
_OF_OUTPUT = 1e-6
_AT_LEAST = {"float64": 1e-9}
_AT_LEAST_OTHERS = 1e-5
# Codes and numbers of customers may be floats; another one is never noise.
_WHOLE = 0.49
_DEFAULT_TOLERANCE = Signature(Layout.TENSOR).example_tolerance
# Answers of a row that got two answers, to learn whether it always gets others.
_REPEATS = 2
_SHOWN = 40


class Tolerance(NamedTuple):
    """Differences that a version's outputs may have.

    `relative` is the noise of its device's floats.
    """

    relative: float = _OF_COLUMN
    absolute: float = 0.0


def tolerance(signature: Signature, device: str) -> Tolerance:
    """Return the noise to expect, or what the version allows if that is more."""
    relative = _OF_COLUMN
    if device.startswith("cuda"):
        relative = _OF_COLUMN_ON_CUDA
        if signature.precision != "float32":
            relative = _OF_COLUMN_IN_BFLOAT16
    # The default is too much for models whose outputs are small.
    allowed = signature.example_tolerance
    return Tolerance(relative, allowed if allowed > _DEFAULT_TOLERANCE else 0)


class Independence(NamedTuple):
    # Why its requests must not share a batch, as a sentence; empty: they may.
    apart: str = ""
    # Whether the same rows get different answers each time.
    changes: bool = False


class _Difference(NamedTuple):
    """A row whose answer in a batch differs from another of its answers."""

    row: int
    # How the answers look, with the output's name if it has one.
    in_batch: str
    other: str


class _OutOfTime(Exception):
    pass


def rows_in_time(first_s: float, rows: int) -> int:
    """Return how many rows can be checked, if `rows` took `first_s` seconds."""
    affordable = _budget_s(first_s) / _ANSWERS_PER_ROW / max(first_s / rows, 1e-9)
    return max(2, min(MOST_ROWS, int(affordable)))


def judge(
    answer: Answer,
    batches: Iterable[tuple[Sequence[Tensor], Sequence[str]]],
    *,
    first_s: float,
    tolerance: Tolerance,
    clock: Callable[[], float] = time.monotonic,
) -> Independence:
    """Check the first batch that the model answers; `batches` have labels for rows.

    Stops when the time is up, with what was found until then.
    """
    deadline = clock() + _budget_s(first_s)

    def timely(tensors: Sequence[Tensor], places: Sequence[int]) -> Sequence[Tensor]:
        if clock() > deadline:
            raise _OutOfTime
        return answer(similar_rows.take(tensors, places))

    try:
        for tensors, labels in batches:
            ask = partial(timely, tensors)
            every = [*range(len(labels))]
            try:
                whole = ask(every)
            # It may refuse rows that were made up; an engine must survive its exit.
            except (Exception, SystemExit) as error:
                _stop_if_grave(error)
                continue
            return _compared(ask, whole, labels, tolerance)
    except _OutOfTime:
        pass
    return Independence()


def _budget_s(first_s: float) -> float:
    return max(_BUDGET_S, _BUDGET_TIMES * first_s)


def _stop_if_grave(error: BaseException) -> None:
    if isinstance(error, _OutOfTime) or failures.is_sticky(error):
        raise error


def _compared(
    ask: Callable[[Sequence[int]], Sequence[Tensor]],
    whole: Sequence[Tensor],
    labels: Sequence[str],
    tolerance: Tolerance,
) -> Independence:
    every = [*range(len(labels))]
    comparison = _Comparison(whole, tolerance)
    if found := comparison.first(ask(every), every):
        return _changing(found, labels)
    for row in every:
        try:
            alone = ask([row])
        except (Exception, SystemExit) as error:
            _stop_if_grave(error)
            return _dependent(
                f"{labels[row]} has an answer in a batch, but alone the model raises "
                f"{type(error).__name__}"
            )
        if found := comparison.first(alone, [row]):
            # Does it change each time, only more rarely?
            for _ in range(_REPEATS):
                again = comparison.first(ask(every), every) or _Comparison(
                    alone, tolerance
                ).first(ask([row]), [0])
                if again:
                    return _changing(again, labels)
            return _dependent(
                f"{labels[row]} alone gives {found.other}, in a batch {found.in_batch}"
            )
    backwards = every[::-1]
    if found := comparison.first(ask(backwards), backwards):
        for _ in range(_REPEATS):
            if again := comparison.first(ask(every), every):
                return _changing(again, labels)
        return _dependent(
            f"{labels[found.row]} gives {found.in_batch} in a batch, {found.other} if "
            "the same rows come in reverse"
        )
    return Independence()


def _dependent(reason: str) -> Independence:
    return Independence(f"The answer to a row depends on the other rows: {reason}.")


def _changing(found: _Difference, labels: Sequence[str]) -> Independence:
    return Independence(
        f"The same rows get other answers each time: {labels[found.row]} gave "
        f"{found.in_batch}, then {found.other}.",
        changes=True,
    )


class _Comparison:
    """Compare other answers with those that the rows got together."""

    def __init__(self, whole: Sequence[Tensor], tolerance: Tolerance) -> None:
        self._whole = {tensor.name: tensor.data for tensor in whole}
        self._objects = rows_as_objects(whole)
        self._tolerance = tolerance
        self._allowed = {
            tensor.name: _allowed(tensor.data, tolerance)
            for tensor in whole
            if tensor.data.dtype.kind in "fiub"
        }

    def first(
        self, answers: Sequence[Tensor], places: Sequence[int]
    ) -> _Difference | None:
        """Return the first difference; `answers` are of the rows at `places`."""
        if {tensor.name for tensor in answers} != self._whole.keys():
            # As answers of several batches are joined.
            others = rows_as_objects(answers)
            for place, other in zip(places, others, strict=True):
                if pair := self._unlike(self._objects[place], other):
                    return _Difference(place, *map(_shown, pair))
            return None
        for tensor in answers:
            found = self._of_output(tensor.name, tensor.data, places)
            if found is not None and len(answers) > 1:
                name = f" for {tensor.name!r}"
                return _Difference(found.row, found.in_batch + name, found.other + name)
            if found is not None:
                return found
        return None

    def _of_output(
        self, name: str, others: Array, places: Sequence[int]
    ) -> _Difference | None:
        given = self._whole[name][list(places)]
        allowed = self._allowed.get(name)
        if allowed is None or given.shape != others.shape or others.dtype.kind == "O":
            rows = zip(places, given.tolist(), others.tolist(), strict=True)
            for place, one, other in rows:
                if pair := self._unlike(one, other):
                    return _Difference(place, *map(_shown, pair))
            return None
        distances = _distances(given, others)
        # NaN compares as false, so it counts as different.
        unlike = ~(distances <= allowed)
        if not unlike.any():
            return None
        at = np.unravel_index(
            int(np.argmax(np.nan_to_num(distances, nan=np.inf))), unlike.shape
        )
        if not unlike[at]:
            at = np.unravel_index(int(np.argmax(unlike)), unlike.shape)
        pair = given[at].item(), others[at].item()
        return _Difference(places[int(at[0])], *map(_shown, pair))

    def _unlike(self, one: Any, other: Any) -> tuple[Any, Any] | None:
        """Return the first values inside two JSON values that differ, if any do."""
        one, other = with_nulls(one), with_nulls(other)
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return [*one], [*other]
            pairs = [(one[name], other[name]) for name in one]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return one, other
            pairs = [*zip(one, other, strict=True)]
        elif self._is_like(one, other):
            return None
        else:
            return one, other
        return next(filter(None, (self._unlike(*pair) for pair in pairs)), None)

    def _is_like(self, one: Any, other: Any) -> bool:
        kinds = {type(one), type(other)}
        if float not in kinds or not kinds <= {float, int}:
            return bool(one == other) and (bool in kinds) == (kinds == {bool})
        allowed = max(
            self._tolerance.relative * max(abs(one), abs(other)) + _AT_LEAST_OTHERS,
            self._tolerance.absolute,
        )
        if one == int(one):
            allowed = min(allowed, _WHOLE)
        return bool(abs(one - other) <= allowed)


def _allowed(whole: Any, tolerance: Tolerance) -> Any:
    """Return the allowed differences of an output, one or one per column."""
    if whole.dtype.kind != "f":
        return 0
    values = np.nan_to_num(np.abs(whole.astype(np.float64)), posinf=0.0)
    axis = 0 if whole.ndim == 2 else None
    noise = max(tolerance.relative, 8 * float(np.finfo(whole.dtype).eps))
    allowed = np.maximum(
        noise * values.max(axis, initial=0.0)
        + _OF_OUTPUT * values.max(initial=0.0)
        + _AT_LEAST.get(whole.dtype.name, _AT_LEAST_OTHERS),
        tolerance.absolute,
    )
    is_whole = (values == np.floor(values)).all(axis)
    return np.where(is_whole, np.minimum(allowed, _WHOLE), allowed)


def _distances(one: Any, other: Any) -> Any:
    """Return absolute differences; 0 for equal values, also infinite or missing."""
    same = one == other
    if "f" not in (one.dtype.kind, other.dtype.kind):
        return np.where(same, 0.0, np.inf)
    both_missing = np.isnan(one.astype(float)) & np.isnan(other.astype(float))
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return np.where(same | both_missing, 0.0, apart)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
