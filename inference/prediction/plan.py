"""Plan a call from its head to its answer, without I/O.

The plan is a generator that yields effects and returns an Answer. A driver carries the
effects out: asynchronously in the gateway, synchronously in Django. If an effect fails,
the driver throws its ApiError or EngineError into the generator.

    key → scope and model → concurrency and rate → route → body → decode → units →
    cache → engine (or its fallback) → answer and event

Every call with a valid key, also a refused one, ends in exactly one UsageEvent. The
driver records it before the answer leaves.
"""

import itertools
import time
from collections.abc import Callable, Generator
from typing import Any, Literal

import msgspec
import structlog

from accounts.admission.limits import LeaseRequest
from accounts.admission.networks import Networks
from inference.codecs.decoding import DecodedRequest
from inference.codecs.options import Options
from inference.dialects import call_headers
from inference.dialects.dialect import AnswersFixed, Call, Finished, Headers, ReadsFiles
from inference.engine.signatures.signature import UnsupportedSignature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Explained, ExplainOptions
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.prediction import (
    cache,
    callers,
    fallbacks,
    first_prediction,
    refused,
    row_sources,
    rows_apart,
    shadow,
    version_choice,
)
from inference.prediction.cache import PredictionCache
from inference.prediction.effects import (
    Answer,
    CallAbandoned,
    Effect,
    EngineCall,
    ExplainCall,
    NeedBody,
    NeedUnits,
)
from inference.prediction.stages import (
    CLIENT_LEFT_CODE,
    CLIENT_LEFT_STATUS,
    KnownCall,
    PreparedCall,
    ReceivedCall,
    log_failure,
    quarantined,
    usage_event,
)
from inference.prediction.streamed_plan import StreamedPrediction, StreamLimits
from inference.snapshot.contents import CachePolicy
from inference.snapshot.tables import Tables
from inference.snapshot.targets import Target, fallback_json

DEFAULT_TIMEOUT_S = 30.0
# Characters of an error's message that are kept for the page of refusals.
_MOST_KEPT_OF_A_MESSAGE = 300
# Calls to find the rows that a model fails on: enough for about three in a thousand.
MAX_CALLS_APART = 64
MAX_BODY_BYTES = 2 * 1024 * 1024
# Other calls may spend a lease before the call that asked for it.
_MAX_LEASES_PER_CALL = 64

# What encoding may raise for an output that no format can hold.
_NOT_ENCODED = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)

Steps = Generator[Effect, Any, Answer]

logger = structlog.get_logger(__name__)


class PredictionPlan:
    """Make the steps of calls. `tables` may be replaced between any two steps."""

    def __init__(
        self,
        tables: Tables,
        *,
        boot_id: str,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_timeout_s: float = DEFAULT_TIMEOUT_S,
        predictions: PredictionCache | None = None,
        streams: StreamLimits | None = None,
        trusted_proxies: Networks = Networks(()),  # noqa: B008  # It never changes.
    ) -> None:
        self.tables = tables
        self.trusted_proxies = trusted_proxies
        self.cache = predictions or PredictionCache()
        self.streams = streams or StreamLimits()
        self._fallback_log = fallbacks.FallbackLog(timer)
        self._streamed = StreamedPrediction(
            self.streams, boot_id=boot_id, timer=timer, fallback_log=self._fallback_log
        )
        self._boot_id = boot_id
        self._clock = clock
        self._timer = timer
        self._max_body_bytes = max_body_bytes
        self._max_timeout_s = max_timeout_s
        self._sequence = itertools.count(1)

    def steps(self, call: Call) -> Steps:
        """Yield the effects of one call, and return its answer."""
        sequence = next(self._sequence)
        request_id = call.head.request_id
        if request_id is None:
            request_id = f"req_{self._boot_id}{sequence:08x}"
        received = ReceivedCall(
            call, request_id, sequence, self._timer(), self._clock()
        )
        try:
            known = self._recognise(received)
        except ApiError as error:
            return _refuse_stranger(received, error)
        try:
            self._admit(known)
        except ApiError as error:
            return self._refuse(known, error)
        try:
            return (yield from self._predict(known))
        except ApiError as error:
            return self._refuse(known, error)
        except EngineError as error:
            log_failure(known, error)
            return self._refuse(known, refusals.of_engine(error))
        except CallAbandoned:
            return self._given_up(known)
        finally:
            # This also runs when the driver closes the generator early.
            admission = known.entry.admission
            if known.spent:
                admission.refund(known.rows, known.now, known.reserved)
            elif known.reserved:
                admission.settle(
                    known.reserved,
                    rows=known.rows,
                    compute_us=known.compute_us,
                    samples=known.samples,
                    now=known.now,
                )
            admission.leave()

    def unrecorded(self, call: Call, answer: Answer) -> Answer:
        """Turn an answer into a refusal, because its event could not be written."""
        event = answer.event
        if event is None:
            return answer
        if event.charged:
            self.tables.admissions.refund(
                customer_id=event.customer_id,
                key_id=event.key_id,
                rows=event.rows,
                now=event.at,
            )
        status, headers, body = call.dialect.render(
            call,
            refusals.not_recorded(),
            request_id=event.request_id,
            now=event.at,
        )
        return Answer(status, headers, body, None)

    def new_request_id(self) -> str:
        return f"req_{self._boot_id}{next(self._sequence):08x}"

    def _recognise(self, received: ReceivedCall) -> KnownCall:
        """Find the caller's key; raises ApiError UNAUTHENTICATED."""
        call = received.call
        try:
            entry = callers.find_caller(self.tables, call.head.token, received.now)
        except ApiError:
            if call.key_in_query:
                raise refusals.key_in_query() from None
            raise
        return KnownCall(
            call,
            received.request_id,
            received.sequence,
            received.started,
            received.now,
            entry,
            entry.seen_networks.note(
                call.peer, call.head.forwarded_for, self.trusted_proxies, received.now
            ),
        )

    def _admit(self, known: KnownCall) -> None:
        """Check network, scope, model, concurrency and rate; raises ApiError.

        If nothing is raised, `admission.leave()` must follow.
        """
        call, entry = known.call, known.entry
        if call.key_in_query:
            raise refusals.key_in_query()
        if call.explain is None:
            raise refusals.unclear_flag("explain")
        if entry.networks is not None:
            callers.require_network(
                entry, call.peer, call.head.forwarded_for, self.trusted_proxies
            )
        scopes = entry.scopes
        if call.operation == "explain":
            refusals.require_scope("explain", scopes)
        elif call.explain:
            refusals.require_scope("predict", scopes)
            refusals.require_scope("explain", scopes)
        elif "predict" not in scopes:
            raise refusals.lacks_scope("predict")
        if call.model is not None:
            known.model = version_choice.find_model(self.tables, call.model, entry)
        refusal = entry.enter(known.now)
        if refusal is not None:
            raise refusals.of_limits(refusal)

    def _predict(self, known: KnownCall) -> Steps:
        call = yield from self._prepare(known)
        admission = known.entry.admission
        for _ in range(_MAX_LEASES_PER_CALL):
            needed = self._spend(known, explains=call.explains)
            if needed is None:
                break
            grant = yield NeedUnits(needed, admission)
            if grant is not None:
                admission.accept(needed, grant, known.now)
        else:
            raise ApiError(
                ErrorCode.OVERLOADED,
                "Your quota could not be checked in time. Try again.",
                retry_after_s=1.0,
            )
        if known.call.operation == "stream":
            self._remaining_s(call)
            return (yield from self._streamed.steps(call))
        try:
            return (yield from self._compute(call))
        except EngineError as error:
            if not refused.by_engine(known, error):
                raise
            return (yield from self._compute_by_default(call, error))

    def _compute_by_default(self, call: PreparedCall, error: EngineError) -> Steps:
        """Let the default answer; raise the canary's error if it cannot."""
        known, canary, default = call.known, call.target, call.model.default
        if default is None:
            raise error
        known.target, known.fault = default, refused.INPUT_REFUSED
        try:
            decoded = yield from self._read(known, default, call.body, call.timeout_s)
            if decoded.rows == call.decoded.rows:
                other = msgspec.structs.replace(call, target=default, decoded=decoded)
                return (yield from self._compute(other))
        except (ApiError, EngineError):
            # The error of the version in charge says more.
            pass
        known.target, known.fault = canary, ""
        raise error

    def _compute(self, call: PreparedCall) -> Steps:
        """Predict and explain the rows, by the engine or from the cache."""
        known, decoded, explains = call.known, call.decoded, call.explains
        remaining_s = self._remaining_s(call)
        result: Prediction | None = None
        cache_key = new_key = None
        rows = decoded.rows
        if call.target.cache is not None and rows and not explains:
            cache_key, result = self._look_up(call, call.target.cache)
        if rows and result is None:
            try:
                result = yield _engine_call(call, decoded.tensors, remaining_s)
            except EngineError as error:
                if refused.by_engine(known, error):
                    raise
                if known.fault and error.code in refused.BY_ENGINE:
                    # The default does not take all rows either.
                    known.fault = ""
                apart = yield from self._rows_apart(call, error)
                if apart is None and explains:
                    raise
                log_failure(known, error)
                if apart is None:
                    error_told = refusals.of_engine(error)
                    return (yield from self._fall_back(call, error_told))
                if error.code is EngineErrorCode.MODEL_ERROR:
                    known.fault = known.fault or ErrorCode.MODEL_ERROR
                # The key is of the whole request, and some of its rows failed.
                cache_key = None
                call, result = apart
            known.compute_us += result.compute_us
            known.queue_us = result.queue_us
            new_key = cache_key
        explained = None
        if rows and explains:
            explained = yield ExplainCall(
                call.target.key,
                # Some rows may have no prediction.
                call.decoded.tensors,
                self._remaining_s(call),
                _explain_options(known.call, call.decoded.options),
                known.customer_id,
                request_id=known.request_id,
                engines=call.target.engines,
            )
            known.compute_us += explained.compute_us
            known.queue_us += explained.queue_us
            known.samples = explained.samples
        try:
            answer = self._answer(call, result, explained)
        except EngineError as error:
            if explains:
                raise
            log_failure(known, error)
            return (yield from self._fall_back(call, refusals.of_engine(error)))
        if new_key is not None and result is not None:
            # Only what can be sent; else every hit would fail.
            self.cache.put(
                new_key, result, customer_id=known.customer_id, now_s=self._timer()
            )
        if call.model.shadow is not None and result is not None:
            return shadow.with_copy(answer, call.model.shadow, call, result)
        return answer

    def _prepare(self, known: KnownCall) -> Generator[Effect, Any, PreparedCall]:
        """Choose the version, wait for the body, and decode it for that version."""
        call, entry, dialect = known.call, known.entry, known.call.dialect
        timeout_s = self._max_timeout_s
        if call.operation == "stream":
            timeout_s = self.streams.max_stream_s
        deadline_s = call.head.deadline_s
        if deadline_s is not None:
            timeout_s = min(timeout_s, call_headers.require_deadline(deadline_s))
        model = known.model
        if model is not None:
            version_choice.choose_target(known, model)
        max_bytes = dialect.prepare(call) or self._max_body_bytes
        limits = entry.admission.limits
        own_bytes = limits.max_body_bytes
        if own_bytes is not None and own_bytes < max_bytes:
            max_bytes = own_bytes
        body: bytes = yield NeedBody(max_bytes, entry.key.customer_id)

        if model is None:
            model = version_choice.model_of_body(self.tables, call, body, entry)
            known.model = model
        target = known.target
        if target is None:
            target = version_choice.choose_target(known, model)
        default = model.default if model.canary and known.is_on_canary else None
        if default is None:
            decoded = yield from self._read(known, target, body, timeout_s)
        else:
            target, decoded = yield from self._read_by_either(
                known, target, default, body, timeout_s
            )
        known.rows = decoded.rows
        wanted_ms = decoded.options.timeout_ms
        if wanted_ms is not None:
            timeout_s = min(timeout_s, wanted_ms / 1000)
        explains = call.explain is True or call.operation == "explain"
        return PreparedCall(known, model, target, body, decoded, timeout_s, explains)

    def _read_by_either(
        self,
        known: KnownCall,
        canary: Target,
        default: Target,
        body: bytes,
        timeout_s: float,
    ) -> Generator[Effect, Any, tuple[Target, DecodedRequest]]:
        """Read a body for the canary, or for the default if only the canary refuses it.

        The same holds if only the canary refuses some of its rows. Raises ApiError.
        """
        decoded, refusal = None, None
        try:
            decoded = yield from self._read(known, canary, body, timeout_s)
        except ApiError as error:
            if error.code not in refused.BY_DECODER:
                raise
            refusal = error
        if decoded is not None and not decoded.problems:
            return canary, decoded
        try:
            others = yield from self._read(known, default, body, timeout_s)
        except ApiError:
            others = None
        if others is not None and (decoded is None or others.rows > decoded.rows):
            known.target, known.fault = default, refused.INPUT_REFUSED
            return default, others
        if decoded is not None:
            return canary, decoded
        assert refusal is not None
        raise refusal

    def _read(
        self, known: KnownCall, target: Target, body: bytes, timeout_s: float
    ) -> Generator[Effect, Any, DecodedRequest]:
        """Read a body for one version, with the files and images that it names."""
        call, limits = known.call, known.entry.admission.limits
        dialect = call.dialect
        try:
            decoded = dialect.decode(call, target, body, limits)
        except UnsupportedSignature as error:
            raise refusals.broken() from error
        except ApiError:
            # Only a body without instances can name a file, so look only now.
            asked = dialect.find_file(body) if isinstance(dialect, ReadsFiles) else None
            if asked is None:
                raise
            decoded = yield from row_sources.read_file(known, target, asked)
        if decoded.images is not None:
            remaining_s = timeout_s - (self._timer() - known.started)
            decoded = yield from row_sources.read_images(
                decoded, known.customer_id, remaining_s
            )
        return decoded

    def _spend(self, known: KnownCall, *, explains: bool) -> LeaseRequest | None:
        """Spend units for the rows, or return the lease that is needed first.

        Raises ApiError if a quota is used up.
        """
        admission = known.entry.admission
        # A call belongs to the day of its admission, also in the ledger.
        known.now = self._clock()
        needed = admission.spend(known.rows, known.now, explains=explains)
        if needed is None:
            known.spent = True
            known.reserved = admission.reserved
            return None
        if isinstance(needed, LeaseRequest):
            return needed
        if known.entry.back_off is not None:
            known.entry.back_off.note(needed, known.now)
        raise refusals.of_limits(needed)

    def _remaining_s(self, call: PreparedCall) -> float:
        """Return how long the call may still take; raises ApiError when it is over."""
        remaining_s = call.remaining_s(self._timer())
        if remaining_s <= 0:
            raise refusals.too_late()
        return remaining_s

    def _rows_apart(
        self, call: PreparedCall, error: EngineError
    ) -> Generator[Effect, Any, tuple[PreparedCall, Prediction] | None]:
        """Predict the rows on which the model does not fail; None if there are none.

        This is only for batches that want errors of single rows. It costs at most
        `MAX_CALLS_APART` further calls, within the deadline.
        """
        known, decoded = call.known, call.decoded
        if (
            decoded.options.return_errors != "individual"
            or known.call.operation != "batch"
        ):
            return None
        steps = rows_apart.by_halves(decoded.tensors, fails=rows_apart.FAILS_ON_ROWS)
        next(steps)
        outcome: rows_apart.Outcome = error
        found = None
        try:
            for calls in itertools.count():
                piece = steps.send(outcome)
                remaining_s = self._remaining_s(call)
                if calls == MAX_CALLS_APART:
                    return None
                try:
                    outcome = yield _engine_call(call, piece, remaining_s)
                except EngineError as failed:
                    outcome = failed
        except StopIteration as finished:
            found = rows_apart.put_together(decoded, finished.value)
        except EngineError:
            return None
        if found is None:
            return None
        good, result = found
        # A row without a prediction costs nothing.
        known.entry.admission.give_back(decoded.rows - good.rows, known.now)
        known.rows = good.rows
        return msgspec.structs.replace(call, decoded=good), result

    def _look_up(
        self, call: PreparedCall, policy: CachePolicy
    ) -> tuple[cache.Key | None, Prediction | None]:
        """Return the key for the prediction in the cache, and the one stored there."""
        known, decoded, head = call.known, call.decoded, call.known.call.head
        known.cached = b"miss"
        digest = None
        if head.may_be_stored:
            digest = cache.digest(decoded.tensors, decoded.params)
        if digest is None:
            return None, None
        scope = known.customer_id if policy.scope == "customer" else 0
        key = (call.target.cache_key, scope, digest)
        if not head.may_be_cached:
            return key, None
        found = self.cache.get(key, now_s=known.started, ttl_s=policy.ttl_s)
        if found is not None:
            known.cached = b"hit"
        return key, found

    def _fall_back(self, call: PreparedCall, error: ApiError) -> Steps:
        """Answer with the route's fallback; raise `error` if that cannot answer."""
        known = call.known
        fallback, target = fallbacks.of_route(call, error)
        remaining_s = call.remaining_s(self._timer())
        if target is not None and remaining_s > 0:
            try:
                other = yield from row_sources.decode_for(target, call, remaining_s)
                result: Prediction = yield _engine_call(
                    other, other.decoded.tensors, remaining_s
                )
            except (ApiError, EngineError, UnsupportedSignature):
                # The error of the version in charge says more.
                pass
            else:
                before = known.target, known.fault, known.compute_us, known.queue_us
                known.fault = known.fault or error.code
                known.target, known.fallback = target, "version"
                known.compute_us = result.compute_us
                known.queue_us = result.queue_us
                try:
                    answer = self._answer(other, result, None)
                except EngineError:
                    known.target, known.fault = before[:2]
                    known.compute_us, known.queue_us = before[2:]
                    known.fallback = ""
                else:
                    self._fallback_log.note(known, error)
                    return answer
        encoded = None
        dialect = known.call.dialect
        if fallback.answer is not None and isinstance(dialect, AnswersFixed):
            encoded = dialect.encode_fixed(
                known.request_id,
                fallback_json(call.model.model.name, None, reason=error.code),
                call.decoded,
                fallback.answer.prediction,
            )
        if encoded is None:
            raise error
        known.fault = known.fault or error.code
        known.target, known.fallback = None, "fixed"
        self._fallback_log.note(known, error)
        return self._wrap_up(known, *encoded)

    def _answer(
        self,
        call: PreparedCall,
        prediction: Prediction | None,
        explained: Explained | None,
    ) -> Answer:
        known, optional = call.known, call.target.optional
        finished = Finished(
            known.call,
            known.request_id,
            call.target,
            call.decoded,
            prediction,
            explained,
        )
        try:
            encoded = known.call.dialect.encode(finished)
        except _NOT_ENCODED as error:
            # A model may return anything; its owner finds the rest in the log.
            logger.exception("output_not_encoded", request_id=known.request_id)
            message = f"its output cannot be encoded: {error}"
            raise EngineError(EngineErrorCode.MODEL_ERROR, message) from error
        if optional is not None:
            known.used = optional.used(call.decoded)
        if known.is_compared and prediction is not None:
            known.predicted = first_prediction.code_of(prediction)
        return self._wrap_up(known, *encoded)

    def _wrap_up(
        self,
        known: KnownCall,
        content_type: bytes,
        body: bytes,
        extra: Headers,
    ) -> Answer:
        total_us = int((self._timer() - known.started) * 1e6)
        charged = known.is_charged()
        if known.spent and not charged:
            known.entry.admission.refund(known.rows, known.now, known.reserved)
            known.reserved = ()
        # If the call is charged, there is nothing to refund at its end.
        known.spent = False
        event = usage_event(
            known,
            boot_id=self._boot_id,
            status=200,
            code="",
            charged=charged,
            total_us=total_us,
        )
        target = known.target
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", known.request_id.encode()),
            (
                b"server-timing",
                b"queue;dur=%.2f, model;dur=%.2f, total;dur=%.2f"
                % (known.queue_us / 1e3, known.compute_us / 1e3, total_us / 1e3),
            ),
        ]
        headers += known.entry.admission.headers(known.now)
        if target is not None:
            headers += target.headers
        elif known.model is not None:
            headers += known.model.headers
        if extra:
            headers += extra
        if known.cached:
            headers.append((b"x-cache", known.cached))
        if known.fallback:
            headers.append((b"x-fallback", known.fallback.encode()))
        return Answer(200, headers, body, event, known.queue_us)

    def _refuse(self, known: KnownCall, error: ApiError) -> Answer:
        entry = known.entry
        if error.limit is None:
            error.limit = refusals.size_limit(error, entry.admission.limits)
        known.limit = error.limit
        known.message = error.message[:_MOST_KEPT_OF_A_MESSAGE]
        status, headers, body = known.call.dialect.render(
            known.call, error, request_id=known.request_id, now=known.now
        )
        if known.spent:
            entry.admission.refund(known.rows, known.now, known.reserved)
            known.spent = False
            known.reserved = ()
        if known.target is not None:
            headers += known.target.headers
        elif known.model is not None:
            headers += known.model.headers
        headers += refusals.rate_headers(entry.admission, known.limit, known.now)
        total_us = int((self._timer() - known.started) * 1e6)
        event = usage_event(
            known,
            boot_id=self._boot_id,
            status=status,
            code=error.code,
            charged=False,
            total_us=total_us,
        )
        return Answer(status, headers, body, event)

    def _given_up(self, known: KnownCall) -> Answer:
        """Tell a rollout of a call whose caller left before the version answered.

        Else a version that hangs looks well: only those who wait for it would count.
        """
        event = None
        if known.canary and known.asked:
            event = usage_event(
                known,
                boot_id=self._boot_id,
                status=CLIENT_LEFT_STATUS,
                code=CLIENT_LEFT_CODE,
                charged=False,
                total_us=int((self._timer() - known.started) * 1e6),
            )
        return Answer(CLIENT_LEFT_STATUS, [], b"", event)


def _refuse_stranger(received: ReceivedCall, error: ApiError) -> Answer:
    """Refuse a call without a valid key, which has no customer and no usage event."""
    call = received.call
    status, headers, body = call.dialect.render(
        call, error, request_id=received.request_id, now=received.now
    )
    return Answer(status, headers, body, None)


def _engine_call(
    call: PreparedCall, tensors: tuple[Tensor, ...], timeout_s: float
) -> EngineCall:
    """Make the effect that predicts some of a request's rows; raises EngineError."""
    target = call.target
    if target.quarantined:
        raise quarantined(target.key)
    call.known.asked = True
    return EngineCall(
        target.key,
        tensors,
        timeout_s,
        call.decoded.options.batch_size or 0,
        call.decoded.params,
        call.known.customer_id,
        request_id=call.known.request_id,
        engines=target.engines,
    )


def _explain_options(call: Call, options: Options) -> ExplainOptions:
    default: Literal["simple", "full"] = (
        "full" if call.operation == "explain" else "simple"
    )
    return ExplainOptions(
        method=options.method,
        level=options.level or default,
        samples=options.samples or 0,
        target=options.target,
        seed=options.seed,
        plot=call.head.accepted.svg,
    )
