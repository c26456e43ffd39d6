"""Convert output tensors to the predictions that callers read.

An encoder is compiled once per version. Few rows are handled as Python lists, which is
faster than numpy for them.
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson

from inference.codecs.options import NO_OPTIONS, Options
from inference.engine.signatures.signature import Signature, Task
from inference.engine.wire.joined_outputs import with_nulls
from inference.engine.wire.tensors import Array, Tensor, object_array

# Types that cannot be scores: a row of such a value is a class.
_LABEL_TYPES = {str, int, bool, type(None)}
# Scores beyond this many are ranked by numpy.
_MANY_SCORES = 64
_PROBABILITY_DIGITS = 9
_DEFAULT_THRESHOLD = 0.5
_SURE = b',"low_confidence":false},'
_UNSURE = b',"low_confidence":true},'

Label = str | int
Compile = Callable[[Any, Options], list[Any]]


class LabelScore(msgspec.Struct, frozen=True, gc=False):
    label: Label | None
    score: float | None


class ClassPrediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The best class of one instance; null where the model returned NaN or infinity."""

    label: Label | None
    score: float | None
    low_confidence: bool
    scores: list[LabelScore] | None = None


class Warned(msgspec.Struct, frozen=True):
    """A warning about one prediction: it holds null where a number is not finite."""

    index: int
    code: str = "NON_FINITE_OUTPUT"


class AnswerEncoder:
    """Converts the outputs of one model version to predictions."""

    def __init__(
        self, signature: Signature, *, low_confidence_below: float | None = None
    ) -> None:
        """Compile; `low_confidence_below` of a route overrides the version's own."""
        if low_confidence_below is None:
            low_confidence_below = signature.low_confidence_below
        self._labels: tuple[Label, ...] = signature.labels
        self._threshold = signature.decision_threshold
        # No score is below minus infinity.
        self._low = -np.inf if low_confidence_below is None else low_confidence_below
        self._classifies = signature.task is Task.CLASSIFICATION
        # JSON before the score of each class, for `many_as_json`.
        self._beginnings = [
            b'{"label":%b,"score":' % msgspec.json.encode(label)
            for label in self._labels
        ]

    def many_as_json(
        self, outputs: tuple[Tensor, ...], options: Options = NO_OPTIONS
    ) -> bytes | None:
        """Write the predictions of many rows as one JSON array, without Python objects.

        None: use `predictions`, because the rows are few, the caller asks for more than
        the best class, or a score is not finite.
        """
        data: Any = outputs[0].data
        if (
            not self._classifies
            or len(outputs) > 1
            or data.dtype.kind != "f"
            or data.ndim != 2
            or data.size <= _MANY_SCORES
            or not 1 < data.shape[1] == len(self._beginnings)
            or options.top_k is not None
            or (self._threshold is not None and data.shape[1] == 2)
            or not np.isfinite(data).all()
        ):
            return None
        rows = len(data)
        best = data.argmax(axis=1)
        scores = _dump(data[np.arange(rows), best])
        endings = [_SURE] * rows
        if self._low > -np.inf:
            endings = [
                _UNSURE if score < self._low else _SURE
                for score in orjson.loads(scores)
            ]
        parts = [b""] * (3 * rows)
        parts[0::3] = map(self._beginnings.__getitem__, best.tolist())
        parts[1::3] = scores[1:-1].split(b",")
        parts[2::3] = endings
        # Without the comma after the last.
        return b"[%b]" % b"".join(parts)[:-1]

    def predictions(
        self, outputs: tuple[Tensor, ...], options: Options = NO_OPTIONS
    ) -> list[Any]:
        """Return one prediction per row, ready to be encoded as JSON."""
        if not self._classifies:
            return _plain(outputs)
        if len(outputs) > 1:
            return self._named(outputs)
        data = outputs[0].data
        if data.dtype == object and data.ndim == 1:
            values = data.tolist()
            if set(map(type, values)) <= _LABEL_TYPES:
                return self._chosen(data)
            return [self._of_one(value, options) for value in values]
        if data.dtype.kind != "f":
            # With several labels per row, none of them is the class.
            is_one = math.prod(data.shape) == len(data)
            return self._chosen(data) if is_one else to_json_values(data)
        if data.ndim == 1 or data.shape[1:] == (1,):
            return self._binary(data.reshape(-1), options)
        if data.ndim != 2:
            return to_json_values(data)
        if data.size > _MANY_SCORES and options.top_k is None:
            return self._best_of_many(data)
        return self._best(to_json_values(data), options.top_k)

    def warnings(
        self, predictions: list[Any], outputs: tuple[Tensor, ...] = ()
    ) -> tuple[Warned, ...]:
        """Return a warning for each prediction that has null in place of a number.

        `outputs` are the tensors behind the predictions: if they hold objects, a null
        may be the model's own.
        """
        own_nulls = {
            tensor.name for tensor in outputs if tensor.data.dtype.kind in "OM"
        }
        if own_nulls and len(outputs) == 1:
            # A class that was read from an object does not show a number that was lost.
            given = outputs[0].data.tolist()
            return tuple(
                Warned(index)
                for index, value in enumerate(given)
                if _is_not_finite(value)
            )
        if own_nulls:
            return tuple(
                Warned(index)
                for index, prediction in enumerate(predictions)
                if _lost_number(prediction, own_nulls)
            )
        return tuple(
            Warned(index)
            for index, prediction in enumerate(predictions)
            if _has_null(prediction)
        )

    def _best(self, rows: list[list[float | None]], top_k: int | None) -> list[Any]:
        low, threshold = self._low, self._threshold
        labels: Any = self._labels
        if not labels or len(labels) != len(rows[0]):
            labels = range(len(rows[0]))
        by_threshold = threshold is not None and len(labels) == 2
        answers = []
        for row in rows:
            if None in row:
                answers.append(_unknown(row, labels, top_k))
                continue
            scores: Any = row
            if by_threshold:
                best = 1 if scores[1] >= threshold else 0
                score = scores[best]
            else:
                score = max(scores)
                best = scores.index(score)
            ranked = None if top_k is None else _ranked(scores, labels, top_k)
            answers.append(ClassPrediction(labels[best], score, score < low, ranked))
        return answers

    def _best_of_many(self, data: Array) -> list[Any]:
        if self._threshold is not None and data.shape[1] == 2:
            return self._best(to_json_values(data), None)
        # argmax takes a NaN for the greatest; such a row has no known class.
        numbers: Any = data
        best = numbers.argmax(axis=1)
        scores = to_json_values(numbers[np.arange(len(numbers)), best])
        finite = np.isfinite(numbers).all(axis=1).tolist()
        labels: Any = self._labels
        if not labels or len(labels) != numbers.shape[1]:
            labels = range(numbers.shape[1])
        return [
            ClassPrediction(labels[index], score, score < self._low)
            if known
            else ClassPrediction(None, None, True)
            for index, score, known in zip(best.tolist(), scores, finite, strict=True)
        ]

    def _binary(self, data: Array, options: Options) -> list[Any]:
        """Read one probability per row: the probability of the second label."""
        rows: list[list[float | None]] = [
            [None, None]
            if positive is None
            else [round(1.0 - positive, _PROBABILITY_DIGITS), positive]
            for positive in to_json_values(data)
        ]
        threshold = self._threshold
        if threshold is None:
            threshold = _DEFAULT_THRESHOLD
        labels: Any = self._labels if len(self._labels) == 2 else (0, 1)
        answers = []
        for row in rows:
            scores: Any = row
            if scores[1] is None:
                answers.append(_unknown(row, labels, options.top_k))
                continue
            best = 1 if scores[1] >= threshold else 0
            top_k = options.top_k
            ranked = None if top_k is None else _ranked(scores, labels, top_k)
            score = scores[best]
            answers.append(
                ClassPrediction(labels[best], score, score < self._low, ranked)
            )
        return answers

    def _chosen(self, data: Array) -> list[Any]:
        """Read class indexes or labels from a model without scores."""
        labels = self._labels
        return [
            ClassPrediction(
                labels[value]
                if isinstance(value, int) and 0 <= value < len(labels)
                else value,
                None,
                False,
            )
            for value in to_json_values(data.reshape(-1))
        ]

    def _of_one(self, value: Any, options: Options) -> Any:
        """Read the output of a Python model for one row, by the form of this row alone.

        Rows of one batch may come from several callers and have several forms.
        """
        match value:
            case {"label": label, "score": int() | float() | None as score, **further}:
                if further or isinstance(score, bool):
                    return value
                [chosen] = self._chosen(object_array([label]))
                score = with_nulls(score)
                unsure = score is None or score < self._low
                return ClassPrediction(chosen.label, score, unsure)
            case dict():
                return value
            case float():
                return self._binary(np.array([value]), options)[0]
            case [float()]:
                return self._binary(np.array(value), options)[0]
            case list():
                kinds = set(map(type, value))
                if float not in kinds or not kinds <= {float, int, type(None)}:
                    return value
                return self._best([with_nulls(value)], options.top_k)[0]
        return self._chosen(object_array([value]))[0]

    def _named(self, outputs: tuple[Tensor, ...]) -> list[Any]:
        """Read outputs called `label` and `score`; pass others on as they are."""
        by_name = {tensor.name: tensor.data for tensor in outputs}
        if set(by_name) != {"label", "score"}:
            return _plain(outputs)
        labels = [answer.label for answer in self._chosen(by_name["label"])]
        scores = to_json_values(by_name["score"].reshape(-1))
        return [
            ClassPrediction(label, score, score is None or score < self._low)
            for label, score in zip(labels, scores, strict=True)
        ]


def to_json_values(data: Array) -> list[Any]:
    """Return an array as nested lists, with None for NaN and infinity.

    A float32 becomes the shortest decimal that means the same float32 (0.98, not
    0.9800000190734863), because orjson writes it that way.
    """
    if data.dtype == object:
        objects: list[Any] = data.tolist()
        return objects
    if data.dtype.kind == "M":
        return _times(data)
    values: list[Any] = orjson.loads(_dump(data))
    return values


def _dump(data: Array) -> bytes:
    if not data.flags.c_contiguous or not data.dtype.isnative:
        data = np.ascontiguousarray(data, data.dtype.newbyteorder("="))
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)


def _times(data: Array) -> list[Any]:
    """Write times in ISO 8601; a missing time is None."""
    texts: Any = np.datetime_as_string(data.astype("datetime64[us]")).astype(object)
    texts[np.isnat(data)] = None
    times: list[Any] = texts.tolist()
    return times


def _plain(outputs: tuple[Tensor, ...]) -> list[Any]:
    if len(outputs) == 1:
        return _column(outputs[0].data)
    names = [tensor.name for tensor in outputs]
    columns = [_column(tensor.data) for tensor in outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(data: Array) -> list[Any]:
    """Return one value per row: a number, not a list, if the row has only one."""
    if data.ndim == 2 and data.shape[1] == 1:
        data = data.reshape(-1)
    return to_json_values(data)


def _ranked(scores: list[float], labels: Any, top_k: int) -> list[LabelScore]:
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return [LabelScore(labels[index], scores[index]) for index in order[:top_k]]


def _unknown(
    row: list[float | None], labels: Any, top_k: int | None
) -> ClassPrediction:
    """Answer a row with scores that are not finite: its best class is unknown."""
    if top_k is None:
        return ClassPrediction(None, None, True)
    known = [index for index, score in enumerate(row) if score is not None]
    known.sort(key=lambda index: row[index] or 0.0, reverse=True)
    unknown = [index for index, score in enumerate(row) if score is None]
    ranked = [LabelScore(labels[index], row[index]) for index in known + unknown]
    return ClassPrediction(None, None, True, ranked[:top_k])


def _lost_number(prediction: Any, own_nulls: set[str]) -> bool:
    if type(prediction) is ClassPrediction:
        # The label is an object; a score beside it is a number.
        return prediction.score is None
    if not isinstance(prediction, dict):
        return _is_not_finite(prediction)
    return any(
        _is_not_finite(value) if name in own_nulls else _has_null(value)
        for name, value in prediction.items()
    )


def _is_not_finite(value: Any) -> bool:
    """Return whether a value holds NaN or infinity, which JSON writes as null."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, list):
        return any(map(_is_not_finite, value))
    if isinstance(value, dict):
        return any(map(_is_not_finite, value.values()))
    return False


def _has_null(prediction: Any) -> bool:
    if type(prediction) is ClassPrediction:
        return prediction.label is None
    if isinstance(prediction, list):
        return any(_has_null(item) for item in prediction)
    if isinstance(prediction, dict):
        return any(_has_null(item) for item in prediction.values())
    return prediction is None
