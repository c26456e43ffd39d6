"""The one plan of a prediction, without I/O. Pure.

A generator that yields what it needs from the outside and returns an Answer. A driver
carries the effects out: asynchronously in the gateway, synchronously in Django. An
effect that fails is thrown into the generator, as ApiError or EngineError.

    key → scope and model → concurrency and rate → route → body → decode → units →
    engine → answer and event

Every call with a valid key ends in exactly one UsageEvent, refusals included. The
driver records it before the answer leaves.
"""

import itertools
import time
from collections.abc import Callable, Generator
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from accounts import key_format
from accounts.admission import Admission
from accounts.limits import LeaseRequest
from accounts.usage_event import UsageEvent
from inference import call_headers, refusals
from inference.answers import Warned
from inference.call_headers import ACCEPT_ANYTHING, Accepted
from inference.decoding import DecodedRequest, parse_object
from inference.engine.client import Prediction, Tensor
from inference.engine.errors import EngineError
from inference.engine.messages import Explained, ExplainOptions, VersionKey
from inference.engine.signature import UnsupportedSignature
from inference.error_rendering import render
from inference.errors import ApiError, ErrorCode, Problem
from inference.options import Options
from inference.tables import KeyEntry, ModelEntry, Tables, Target

Operation = Literal["predict", "batch", "explain"]
Headers = list[tuple[bytes, bytes]]

DEFAULT_TIMEOUT_S = 30.0
MAX_BODY_BYTES = 2 * 1024 * 1024
# A lease may be spent by others before its asker spends it.
_MAX_LEASES_PER_CALL = 64
_SVG = b"image/svg+xml"


class Call(msgspec.Struct, gc=False):
    """What a front knows before the body."""

    operation: Operation
    # Of call_headers.NAMES, in lower case.
    headers: dict[bytes, bytes]
    # None: the site's default model, or the one that the body names.
    model: str | None = None
    version: str | None = None
    # ?explain=true
    explain: bool = False


class NeedBody(msgspec.Struct, frozen=True, gc=False):
    """Read the whole body; throw TOO_LARGE or REQUEST_TIMEOUT. Answered by bytes."""

    max_bytes: int


class NeedUnits(msgspec.Struct, frozen=True):
    """Fetch a lease. Answered by a LeaseGrant; None: `admission` has it."""

    request: LeaseRequest
    admission: Admission


class EngineCall(msgspec.Struct, frozen=True, gc=False):
    """Run the version on one of the engines. Answered by a Prediction."""

    engines: tuple[str, ...]
    key: VersionKey
    tensors: tuple[Tensor, ...]
    timeout_s: float
    max_batch_rows: int = 0


class ExplainCall(msgspec.Struct, frozen=True):
    """Explain on one of the engines. Answered by Explained."""

    engines: tuple[str, ...]
    key: VersionKey
    tensors: tuple[Tensor, ...]
    timeout_s: float
    options: ExplainOptions


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What goes to the caller, once the event is recorded; None: nobody to charge."""

    status: int
    headers: Headers
    body: bytes
    event: UsageEvent | None


Effect = NeedBody | NeedUnits | EngineCall | ExplainCall
Steps = Generator[Effect, Any, Answer]


class _Body(msgspec.Struct, gc=False, omit_defaults=True):
    predictions: list[Any] | UnsetType
    prediction: Any
    model: Raw
    request_id: str
    warnings: tuple[Warned, ...] = ()
    errors: tuple[Problem, ...] = ()
    explanations: Any = UNSET


class _Progress(msgspec.Struct, gc=False):
    """What is known about a call so far; the event is made from it."""

    now: float
    started: float
    sequence: int
    request_id: str
    accepted: Accepted = ACCEPT_ANYTHING
    entry: KeyEntry | None = None
    model: ModelEntry | None = None
    target: Target | None = None
    rows: int = 0
    spent: bool = False
    compute_us: int = 0
    queue_us: int = 0
    samples: int = 0


_encoder = msgspec.json.Encoder()
_NO_MODEL = "There is no such model or version, or this API key may not call it."


class PredictionPlan:
    """Makes the steps of calls. `tables` may be replaced between any two steps."""

    def __init__(
        self,
        tables: Tables,
        *,
        boot_id: str,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self.tables = tables
        self._boot_id = boot_id
        self._clock = clock
        self._timer = timer
        self._max_body_bytes = max_body_bytes
        self._max_timeout_s = max_timeout_s
        self._sequence = itertools.count(1)

    def steps(self, call: Call) -> Steps:
        """Carry one call out."""
        sequence = next(self._sequence)
        request_id = call_headers.request_id(call.headers)
        if request_id is None:
            request_id = f"req_{self._boot_id}{sequence:08x}"
        progress = _Progress(self._clock(), self._timer(), sequence, request_id)
        try:
            entry = self._admit(call, progress)
        except ApiError as error:
            return self._refuse(call, progress, error)
        try:
            return (yield from self._predict(call, progress, entry))
        except ApiError as error:
            return self._refuse(call, progress, error)
        except EngineError as error:
            return self._refuse(call, progress, refusals.of_engine(error))
        finally:
            # Also when the driver gives the call up.
            if progress.spent:
                entry.admission.refund(progress.rows, progress.now)
            entry.admission.leave()

    def unrecorded(self, answer: Answer) -> Answer:
        """Refuse what was answered, because its event could not be written."""
        event = answer.event
        if event is None:
            return answer
        if event.charged:
            self.tables.refund(event.customer_id, rows=event.rows, now=event.at)
        status, headers, body = render(
            refusals.not_recorded(), request_id=event.request_id, now=event.at
        )
        return Answer(status, headers, body, None)

    def new_request_id(self) -> str:
        return f"req_{self._boot_id}{next(self._sequence):08x}"

    def _predict(self, call: Call, progress: _Progress, entry: KeyEntry) -> Steps:
        headers = call.headers
        timeout_s = self._max_timeout_s
        if b"x-deadline-ms" in headers:
            timeout_s = min(timeout_s, call_headers.deadline_s(headers))
        target = None
        if progress.model is not None:
            target = self._route(call, progress, progress.model)
        accepted = progress.accepted = call_headers.accepted(headers)
        explaining = call.explain or call.operation == "explain"
        if not (accepted.json or (accepted.svg and explaining)):
            raise ApiError(ErrorCode.NOT_ACCEPTABLE, "Answers are application/json.")
        call_headers.require_json_body(headers)
        body: bytes = yield NeedBody(self._max_body_bytes)

        if target is None:
            model = self._model_of_body(body, entry)
            target = self._route(call, progress, model)
        decoded, encode = self._decode(call, target, body, entry)
        options = decoded.options
        rows = progress.rows = decoded.rows
        admission = entry.admission
        for _ in range(_MAX_LEASES_PER_CALL):
            needed = admission.spend(rows, progress.now)
            if needed is None:
                progress.spent = True
                break
            if not isinstance(needed, LeaseRequest):
                raise refusals.of_limits(needed)
            grant = yield NeedUnits(needed, admission)
            if grant is not None:
                admission.accept(needed, grant, progress.now)
        else:
            raise ApiError(
                ErrorCode.OVERLOADED,
                "Your quota could not be checked in time. Try again.",
                retry_after_s=1.0,
            )

        if options.timeout_ms is not None:
            timeout_s = min(timeout_s, options.timeout_ms / 1000)
        elapsed = self._timer() - progress.started
        if elapsed >= timeout_s:
            raise refusals.too_late()
        engines = progress.model.model.engines  # type: ignore[union-attr]
        predictions: list[Any] = []
        if rows:
            result: Prediction = yield EngineCall(
                engines,
                target.key,
                decoded.tensors,
                timeout_s - elapsed,
                options.batch_size or 0,
            )
            progress.compute_us = result.compute_us
            progress.queue_us = result.queue_us
            predictions = encode(result.tensors, options)
        explained = None
        if explaining and rows:
            elapsed = self._timer() - progress.started
            if elapsed >= timeout_s:
                raise refusals.too_late()
            explained = yield ExplainCall(
                engines,
                target.key,
                decoded.tensors,
                timeout_s - elapsed,
                _explain_options(call, options, plot=accepted.svg),
            )
            progress.compute_us += explained.compute_us
            progress.samples = explained.samples
        return self._answer(call, progress, target, decoded, predictions, explained)

    def _admit(self, call: Call, progress: _Progress) -> KeyEntry:
        """Check key, scope, model, concurrency and rate; the caller must leave."""
        token = call_headers.token(call.headers)
        parsed = None if token is None else key_format.parse(token)
        entry = None if parsed is None else self.tables.find_key(parsed.digest)
        if entry is None:
            raise refusals.unauthenticated()
        expires_at = entry.key.expires_at
        if expires_at is not None and expires_at <= progress.now:
            raise refusals.unauthenticated()
        progress.entry = entry
        scopes = entry.scopes
        if call.operation == "explain":
            refusals.require_scope("explain", scopes)
        elif call.explain:
            refusals.require_scope("predict", scopes)
            refusals.require_scope("explain", scopes)
        elif "predict" not in scopes:
            raise refusals.lacks_scope("predict")
        if call.model is not None:
            progress.model = self._find_model(call.model, entry)
        refusal = entry.admission.enter(progress.now)
        if refusal is not None:
            raise refusals.of_limits(refusal)
        return entry

    def _find_model(self, name: str, entry: KeyEntry) -> ModelEntry:
        model = self.tables.models.get(name)
        if model is None or (entry.models is not None and name not in entry.models):
            raise ApiError(ErrorCode.NOT_FOUND, _NO_MODEL)
        return model

    def _model_of_body(self, body: bytes, entry: KeyEntry) -> ModelEntry:
        """Find the model that the body names, or the site's default."""
        try:
            name = _named_model.decode(body).model
        except (ValueError, RecursionError):
            name = parse_object(body).get("model")
        name = name or self.tables.snapshot.site_default_model
        if not isinstance(name, str):
            message = "This site has no default model. Name one as `model`."
            raise ApiError(ErrorCode.NOT_FOUND, message)
        return self._find_model(name, entry)

    def _route(self, call: Call, progress: _Progress, model: ModelEntry) -> Target:
        progress.model = model
        headers = call.headers
        version = call.version
        if version is None and b"x-model-version" in headers:
            version = call_headers.text(headers[b"x-model-version"])
        if version is None and b"accept" in headers:
            version = call_headers.accepted(headers).version
        if version is not None:
            target = model.named(version)
            if target is None:
                raise ApiError(ErrorCode.NOT_FOUND, _NO_MODEL)
        elif b"x-sticky-key" in headers:
            target = model.pinned(call_headers.text(headers[b"x-sticky-key"]))
        else:
            target = model.next()
        if target is None:
            raise refusals.not_served()
        progress.target = target
        return target

    def _decode(
        self, call: Call, target: Target, body: bytes, entry: KeyEntry
    ) -> tuple[DecodedRequest, Callable[..., list[Any]]]:
        try:
            decoder, encoder = target.tools()
        except UnsupportedSignature as error:
            raise refusals.not_served() from error
        limits = entry.admission.limits
        if call.operation == "batch":
            decoded = decoder.decode_request(
                body,
                max_rows=limits.max_batch_rows,
                limit_name="max_batch_rows",
                individual=True,
            )
        else:
            decoded = decoder.decode_request(body, max_rows=limits.max_predict_rows)
        if decoded.model is not None and decoded.model != target.key.model:
            message = "`model` in the body is not the model of the path."
            raise ApiError(ErrorCode.INVALID_INPUT, message)
        return decoded, encoder.predictions

    def _answer(
        self,
        call: Call,
        progress: _Progress,
        target: Target,
        decoded: DecodedRequest,
        predictions: list[Any],
        explained: Explained | None,
    ) -> Answer:
        content_type = b"application/json"
        if explained is not None and progress.accepted.svg and explained.svg:
            content_type, body = _SVG, explained.svg.encode()
        else:
            body = _encode_body(progress, target, decoded, predictions, explained)
        total_us = int((self._timer() - progress.started) * 1e6)
        # Charged: nothing to give back.
        progress.spent = False
        event = self._event(call, progress, 200, "", True, total_us)
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", progress.request_id.encode()),
            (b"x-model-version", target.version.encode()),
            (
                b"server-timing",
                b"queue;dur=%.2f, model;dur=%.2f, total;dur=%.2f"
                % (progress.queue_us / 1e3, progress.compute_us / 1e3, total_us / 1e3),
            ),
        ]
        headers += progress.entry.admission.headers(progress.now)  # type: ignore[union-attr]
        return Answer(200, headers, body, event)

    def _refuse(self, call: Call, progress: _Progress, error: ApiError) -> Answer:
        status, headers, body = render(
            error,
            request_id=progress.request_id,
            now=progress.now,
            problem_json=call_headers.accepted(call.headers).problem_json,
        )
        entry = progress.entry
        if entry is None:
            return Answer(status, headers, body, None)
        if progress.spent:
            entry.admission.refund(progress.rows, progress.now)
            progress.spent = False
        if progress.target is not None:
            headers.append((b"x-model-version", progress.target.version.encode()))
        headers += entry.admission.headers(progress.now)
        total_us = int((self._timer() - progress.started) * 1e6)
        event = self._event(call, progress, status, error.code, False, total_us)
        return Answer(status, headers, body, event)

    def _event(
        self,
        call: Call,
        progress: _Progress,
        status: int,
        code: str,
        charged: bool,
        total_us: int,
    ) -> UsageEvent:
        key = progress.entry.key  # type: ignore[union-attr]
        model, target = progress.model, progress.target
        return UsageEvent(
            f"{self._boot_id}-{progress.sequence}",
            progress.now,
            key.customer_id,
            key.key_id,
            call.operation,
            "" if model is None else model.model.name,
            "" if target is None else target.version,
            "" if target is None else target.variant,
            status,
            str(code),
            progress.rows,
            charged,
            progress.compute_us,
            total_us,
            progress.samples,
            progress.request_id,
        )


class _NamedModel(msgspec.Struct):
    model: str | None = None


_named_model = msgspec.json.Decoder(_NamedModel)


def _encode_body(
    progress: _Progress,
    target: Target,
    decoded: DecodedRequest,
    predictions: list[Any],
    explained: Explained | None,
) -> bytes:
    if decoded.indexes is not None:
        placed: list[Any] = [None] * decoded.total
        for index, prediction in zip(decoded.indexes, predictions, strict=True):
            placed[index] = prediction
    else:
        placed = predictions
    single = decoded.single
    answer = _Body(
        UNSET if single else placed,
        placed[0] if single else UNSET,
        target.model_json,
        progress.request_id,
        errors=decoded.problems,
    )
    if explained is not None:
        answer.explanations = explained.explanations
    body = _encoder.encode(answer)
    # NaN and infinity are null by now; to search bytes is cheaper than to check rows.
    if b"null" in body:
        warnings = target.tools()[1].warnings(predictions)
        if warnings and decoded.indexes is not None:
            warnings = tuple(
                Warned(decoded.indexes[warned.index]) for warned in warnings
            )
        if warnings:
            answer.warnings = warnings
            body = _encoder.encode(answer)
    return body


def _explain_options(call: Call, options: Options, *, plot: bool) -> ExplainOptions:
    default: Literal["simple", "full"] = (
        "full" if call.operation == "explain" else "simple"
    )
    return ExplainOptions(
        method=options.method,
        level=options.level or default,
        samples=options.samples or 0,
        target=options.target,
        seed=options.seed,
        plot=plot,
    )
