"""Predict the rows of a job, and handle failures and absence of engines."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from inference.codecs.answers import AnswerEncoder
from inference.codecs.decoding import InstanceDecoder
from inference.codecs.files.lines import Row
from inference.codecs.options import Options
from inference.engine.signatures.signature import Signature
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.joined_outputs import with_nulls
from inference.engine.wire.messages import EngineStatus, VersionKey
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.prediction import rows_apart
from registry.mlflow.model_file import storable

CALL_TIMEOUT_S = 60.0
# The most rows of one call, and the most device time that it should take.
CALL_ROWS = 100
CALL_US = 50_000
# If a model fails on more rows of a chunk, the data as a whole does not fit it.
MAX_MODEL_FAILURES = 20
# Waits for an engine that is away or full, before the job is released.
DELAYS_S = (0.1, 0.2, 0.4, 0.8, 1.6)

_FAILS_ON_ROWS = rows_apart.FAILS_ON_ROWS | {
    EngineErrorCode.DEADLINE_EXCEEDED: Problem(
        f"the model took longer than {CALL_TIMEOUT_S:.0f} s on this row",
        code=ErrorCode.INFERENCE_TIMEOUT,
    ),
}


_NOT_TEXT = Problem(
    "the model's answer holds a NUL character or half of a character",
    code=ErrorCode.MODEL_ERROR,
)
_json_encoder = msgspec.json.Encoder()


class EngineDied(Exception):
    """The engine died after it got rows of this job."""


class NoEngine(Exception):
    """No engine accepts rows now; the job waits for its next turn."""


class JobEngine(Protocol):
    """The client of an engine, as jobs need it; calls block and raise EngineError."""

    def predict(self, call: PredictionCall) -> Prediction: ...

    def status(self) -> EngineStatus: ...


class JobEngines(Protocol):
    def find(self, key: VersionKey) -> JobEngine | None:
        """Return an engine that has the version; None if there is none."""
        ...


class PredictedRows(NamedTuple):
    """Predictions, one per row or None; the problems of the bad rows; and positions of
    predictions with null instead of a number that is not finite.
    """

    predictions: list[Any]
    problems: list[Problem]
    warned: list[int]


class RowPredictor:
    """Predict rows; each gets a prediction or problems.

    `on_wait` is called with the error before each wait for an engine, and may raise.
    """

    def __init__(
        self,
        key: VersionKey,
        *,
        signature: Signature,
        options: Options,
        engines: JobEngines,
        sleep: Callable[[float], None],
        on_wait: Callable[[EngineError], None],
        customer_id: int = 0,
        request_id: str = "",
    ) -> None:
        self._key = key
        self._decoder = InstanceDecoder(signature)
        self._encoder = AnswerEncoder(signature)
        self._options = options
        self._engines = engines
        self._sleep = sleep
        self._on_wait = on_wait
        self._customer_id = customer_id
        self._request_id = request_id
        # Whether the engine has answered: one that hangs must not cost rows.
        self._engine_seen = False
        self._model_failures = 0
        self.compute_us = 0
        # Half the rows of the last call that took too long; None before that.
        self._max_rows: int | None = None
        # Device time per row in the last call.
        self._row_us = 0.0

    @property
    def call_rows(self) -> int:
        """Rows for the next call, few because other requests may wait for it."""
        rows = self._max_rows or CALL_ROWS
        if self._row_us:
            rows = min(rows, int(CALL_US / self._row_us))
        return max(rows, 1)

    def start_chunk(self) -> None:
        self.compute_us = self._model_failures = 0

    def predict(self, rows: Sequence[Row | Problem]) -> PredictedRows:
        """Predict rows; indexes of problems and warnings are positions in `rows`."""
        problems = [
            msgspec.structs.replace(row, index=position)
            for position, row in enumerate(rows)
            if isinstance(row, Problem)
        ]
        readable = [
            position
            for position, row in enumerate(rows)
            if not isinstance(row, Problem)
        ]
        decoded = self._decoder.decode_rows([rows[position] for position in readable])
        problems += (
            msgspec.structs.replace(problem, index=readable[problem.index or 0])
            for problem in decoded.problems
        )
        predictions: list[Any] = [None] * len(rows)
        warned = []
        if decoded.indexes:
            results, odd = self._predict(decoded.tensors)
            for number, result in enumerate(results):
                position = readable[decoded.indexes[number]]
                if isinstance(result, Problem):
                    problems.append(msgspec.structs.replace(result, index=position))
                else:
                    predictions[position] = result
                    if number in odd:
                        warned.append(position)
        return PredictedRows(predictions, [_cleaned(one) for one in problems], warned)

    def _predict(
        self, tensors: tuple[Tensor, ...]
    ) -> tuple[list[Any | Problem], set[int]]:
        """Predict; if the model fails, halve the rows until the bad rows are alone.

        Also returns the positions of predictions with null for non-finite numbers.
        """
        steps = rows_apart.by_halves(tensors, fails=_FAILS_ON_ROWS)
        piece = next(steps)
        try:
            while True:
                piece = steps.send(self._outcome(piece))
        except StopIteration as finished:
            pieces: list[tuple[int, rows_apart.Outcome]] = finished.value
        except EngineError as error:
            raise ApiError(
                ErrorCode.MODEL_ERROR, "The model cannot take the rows of this job."
            ) from error
        results: list[Any | Problem] = []
        odd: set[int] = set()
        for _, outcome in pieces:
            if isinstance(outcome, EngineError):
                results.append(_FAILS_ON_ROWS[outcome.code])
                continue
            found = self._encoder.predictions(outcome.tensors, self._options)
            warnings = self._encoder.warnings(found, outcome.tensors)
            odd.update(len(results) + warned.index for warned in warnings)
            if warnings:
                # JSON columns cannot store such numbers either.
                found = with_nulls(msgspec.to_builtins(found))
            results += _storable(found)
        return results, odd

    def _outcome(self, tensors: tuple[Tensor, ...]) -> rows_apart.Outcome:
        """Call the engine; record times and failures."""
        rows = len(tensors[0].data)
        try:
            prediction = self._call(tensors)
        except EngineError as error:
            if rows == 1 and error.code in _FAILS_ON_ROWS:
                self._count_model_failure(_FAILS_ON_ROWS[error.code])
            elif error.code is EngineErrorCode.DEADLINE_EXCEEDED:
                self._max_rows = rows // 2
            return error
        self.compute_us += prediction.compute_us
        self._row_us = prediction.compute_us / max(prediction.batch_rows, 1)
        return prediction

    def _count_model_failure(self, problem: Problem) -> None:
        self._model_failures += 1
        if self._model_failures > MAX_MODEL_FAILURES:
            raise ApiError(
                problem.code or ErrorCode.MODEL_ERROR,
                f"The model failed on more than {MAX_MODEL_FAILURES} rows of one "
                "chunk: the data does not seem to be meant for it.",
            )

    def _call(self, tensors: tuple[Tensor, ...]) -> Prediction:
        """Call an engine; wait a little if it is away or full."""
        delays = iter(DELAYS_S)
        while True:
            try:
                return self._call_once(tensors)
            except EngineError as error:
                if error.code is EngineErrorCode.DIED:
                    raise EngineDied from error
                # Not retryable by itself, but people may load the version again.
                if not error.retryable and error.code != EngineErrorCode.LOAD_FAILED:
                    raise
                self._engine_seen = False
                self._on_wait(error)
                delay = next(delays, None)
                if delay is None:
                    raise NoEngine from error
            self._sleep(delay)

    def _call_once(self, tensors: tuple[Tensor, ...]) -> Prediction:
        engine = self._engines.find(self._key)
        if engine is None:
            raise EngineError(EngineErrorCode.NOT_LOADED, f"no engine has {self._key}")
        if not self._engine_seen:
            _greet(engine)
            self._engine_seen = True
        return engine.predict(
            PredictionCall(
                self._key,
                tensors,
                timeout_s=CALL_TIMEOUT_S,
                max_batch_rows=self._options.batch_size or 0,
                priority="job",
                customer_id=self._customer_id,
                request_id=self._request_id,
            )
        )


def _storable(predictions: list[Any]) -> list[Any | Problem]:
    """Replace predictions that a database cannot store by a problem."""
    try:
        suspect = b"\\u0000" in _json_encoder.encode(predictions)
    except UnicodeEncodeError:
        suspect = True
    if not suspect:
        return predictions
    return [
        prediction
        if all(text == storable(text) for text in _texts(prediction))
        else _NOT_TEXT
        for prediction in msgspec.to_builtins(predictions)
    ]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _texts(name)
            yield from _texts(member)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _cleaned(problem: Problem) -> Problem:
    """Remove characters that cannot be stored from a problem, which may quote rows."""
    texts = {name: getattr(problem, name) for name in ("issue", "field", "received")}
    clean = {name: storable(text) for name, text in texts.items() if text is not None}
    return msgspec.structs.replace(problem, **clean)


def _greet(engine: JobEngine) -> None:
    """Check that the engine answers; a timeout counts as a lost connection."""
    try:
        engine.status()
    except EngineError as error:
        if error.code is not EngineErrorCode.DEADLINE_EXCEEDED:
            raise
        raise EngineError(
            EngineErrorCode.CONNECTION_LOST, "the engine does not answer"
        ) from error
