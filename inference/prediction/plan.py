"""The one plan of a prediction, without I/O. Pure.

A generator that yields what it needs from the outside and returns an Answer. A driver
carries the effects out: asynchronously in the gateway, synchronously in Django. An
effect that fails is thrown into the generator, as ApiError or EngineError.

    key → scope and model → concurrency and rate → route → body → decode → units →
    cache → engine (or its fallback) → answer and event

Every call with a valid key ends in exactly one UsageEvent, refusals included. The
driver records it before the answer leaves.
"""

import itertools
import time
from collections.abc import Callable, Generator
from typing import Any, Literal

from accounts.admission.limits import LeaseRequest
from accounts.admission.networks import Networks
from inference.codecs.decoding import DecodedRequest
from inference.codecs.options import Options
from inference.dialects import call_headers
from inference.dialects.dialect import AnswersFixed, Call, Finished, Headers, ReadsFiles
from inference.engine.signatures.signature import UnsupportedSignature
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import Explained, ExplainOptions
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.prediction import (
    cache,
    callers,
    fallbacks,
    row_sources,
    rows_apart,
    version_choice,
)
from inference.prediction.cache import PredictionCache
from inference.prediction.effects import (
    Answer,
    Effect,
    EngineCall,
    ExplainCall,
    NeedBody,
    NeedUnits,
)
from inference.prediction.progress import CallProgress, log_failure, usage_event
from inference.prediction.streamed_plan import StreamedPrediction, StreamLimits
from inference.snapshot.keys import KeyEntry
from inference.snapshot.tables import Tables
from inference.snapshot.targets import Target, fallback_json

DEFAULT_TIMEOUT_S = 30.0
# Of a refusal, for the page that explains it.
_MOST_KEPT_OF_A_MESSAGE = 300
# To find the rows of one request that a model fails on: about three of a thousand.
MAX_CALLS_APART = 64
MAX_BODY_BYTES = 2 * 1024 * 1024
# A lease may be spent by others before its asker spends it.
_MAX_LEASES_PER_CALL = 64

Steps = Generator[Effect, Any, Answer]


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
        """Carry one call out."""
        sequence = next(self._sequence)
        request_id = call.head.request_id
        if request_id is None:
            request_id = f"req_{self._boot_id}{sequence:08x}"
        progress = CallProgress(self._clock(), self._timer(), sequence, request_id)
        try:
            entry = self._admit(call, progress)
        except ApiError as error:
            return self._refuse(call, progress, error)
        try:
            return (yield from self._predict(call, progress, entry))
        except ApiError as error:
            return self._refuse(call, progress, error)
        except EngineError as error:
            log_failure(progress, error)
            return self._refuse(call, progress, refusals.of_engine(error))
        finally:
            # Also when the driver gives the call up.
            admission = entry.admission
            if progress.spent:
                admission.refund(progress.rows, progress.now, progress.reserved)
            elif progress.reserved:
                admission.settle(
                    progress.reserved,
                    rows=progress.rows,
                    compute_us=progress.compute_us,
                    samples=progress.samples,
                    now=progress.now,
                )
            admission.leave()

    def unrecorded(self, call: Call, answer: Answer) -> Answer:
        """Refuse what was answered, because its event could not be written."""
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

    def _predict(self, call: Call, progress: CallProgress, entry: KeyEntry) -> Steps:
        streams = call.operation == "stream"
        timeout_s = self.streams.max_stream_s if streams else self._max_timeout_s
        deadline_s = call.head.deadline_s
        if deadline_s is not None:
            timeout_s = min(timeout_s, call_headers.require_deadline(deadline_s))
        target = None
        if progress.model is not None:
            target = version_choice.choose_target(call, progress.model)
            progress.target = target
        dialect = call.dialect
        max_bytes = dialect.prepare(call) or self._max_body_bytes
        own_bytes = entry.admission.limits.max_body_bytes
        if own_bytes is not None and own_bytes < max_bytes:
            max_bytes = own_bytes
        body: bytes = yield NeedBody(max_bytes, entry.key.customer_id)

        if target is None:
            model = version_choice.model_of_body(self.tables, call, body, entry)
            progress.model = model
            target = progress.target = version_choice.choose_target(call, model)
        admission = entry.admission
        try:
            decoded = dialect.decode(call, target, body, admission.limits)
        except UnsupportedSignature as error:
            raise refusals.broken() from error
        except ApiError:
            # What names a file holds no instances, so nobody else pays for the look.
            asked = dialect.find_file(body) if isinstance(dialect, ReadsFiles) else None
            if asked is None:
                raise
            decoded = yield from row_sources.read_file(call, progress, target, asked)
        if decoded.images is not None:
            remaining_s = timeout_s - (self._timer() - progress.started)
            decoded = yield from row_sources.read_images(decoded, progress, remaining_s)
        options = decoded.options
        rows = progress.rows = decoded.rows
        explains = call.explain is True or call.operation == "explain"
        for _ in range(_MAX_LEASES_PER_CALL):
            # A call belongs to the day in which it is admitted, also in the ledger.
            progress.now = self._clock()
            needed = admission.spend(rows, progress.now, explains=explains)
            if needed is None:
                progress.spent = True
                progress.reserved = admission.reserved
                break
            if not isinstance(needed, LeaseRequest):
                if entry.back_off is not None:
                    entry.back_off.note(needed, progress.now)
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
        if streams:
            return (
                yield from self._streamed.steps(
                    call, progress, target, body, decoded, timeout_s
                )
            )
        result: Prediction | None = None
        cache_key = None
        if target.cache is not None and rows and not explains:
            cache_key, result = self._look_up(call, progress, target, decoded)
        if rows and result is None:
            try:
                result = yield _engine_call(
                    progress, target, decoded, decoded.tensors, timeout_s - elapsed
                )
            except EngineError as error:
                apart = None
                if options.return_errors == "individual" and call.operation == "batch":
                    apart = yield from self._rows_apart(
                        call, progress, target, decoded, error, timeout_s
                    )
                if apart is None and explains:
                    raise
                log_failure(progress, error)
                if apart is None:
                    return (
                        yield from self._fall_back(
                            call,
                            progress,
                            body,
                            decoded,
                            refusals.of_engine(error),
                            timeout_s,
                        )
                    )
                # Others get what the whole request asked for, not what is left of it.
                cache_key = None
                decoded, result = apart
            progress.compute_us += result.compute_us
            progress.queue_us = result.queue_us
            if cache_key is not None:
                self.cache.put(
                    cache_key,
                    result,
                    customer_id=entry.key.customer_id,
                    now_s=self._timer(),
                )
        explained = None
        if rows and explains:
            elapsed = self._timer() - progress.started
            if elapsed >= timeout_s:
                raise refusals.too_late()
            explained = yield ExplainCall(
                progress.model.model.engines,  # type: ignore[union-attr]
                target.key,
                decoded.tensors,
                timeout_s - elapsed,
                _explain_options(call, options),
                entry.key.customer_id,
            )
            progress.compute_us += explained.compute_us
            progress.queue_us += explained.queue_us
            progress.samples = explained.samples
        return self._answer(call, progress, target, decoded, result, explained)

    def _rows_apart(
        self,
        call: Call,
        progress: CallProgress,
        target: Target,
        decoded: DecodedRequest,
        error: EngineError,
        timeout_s: float,
    ) -> Generator[Effect, Any, tuple[DecodedRequest, Prediction] | None]:
        """Predict the rows that the model does not fail on; None if that is vain.

        Costs at most `MAX_CALLS_APART` further calls, within the deadline.
        """
        steps = rows_apart.by_halves(decoded.tensors, fails=rows_apart.FAILS_ON_ROWS)
        next(steps)
        outcome: rows_apart.Outcome = error
        found = None
        try:
            for calls in itertools.count():
                piece = steps.send(outcome)
                remaining_s = timeout_s - (self._timer() - progress.started)
                if remaining_s <= 0:
                    raise refusals.too_late()
                if calls == MAX_CALLS_APART:
                    return None
                try:
                    outcome = yield _engine_call(
                        progress, target, decoded, piece, remaining_s
                    )
                except EngineError as failed:
                    outcome = failed
        except StopIteration as finished:
            found = rows_apart.put_together(decoded, finished.value)
        except EngineError:
            return None
        if found is not None:
            # A row without an answer costs nothing.
            failed_rows = decoded.rows - found[0].rows
            progress.entry.admission.give_back(  # type: ignore[union-attr]
                failed_rows, progress.now
            )
            progress.rows = found[0].rows
        return found

    def _look_up(
        self,
        call: Call,
        progress: CallProgress,
        target: Target,
        decoded: DecodedRequest,
    ) -> tuple[cache.Key | None, Prediction | None]:
        """Give the key to store the prediction under, and the one that is there."""
        policy = target.cache
        assert policy is not None
        progress.cached = b"miss"
        head = call.head
        digest = None
        if head.may_be_stored:
            digest = cache.digest(decoded.tensors, decoded.params)
        if digest is None:
            return None, None
        scope = 0
        if policy.scope == "customer":
            scope = progress.entry.key.customer_id  # type: ignore[union-attr]
        key = (target.cache_key, scope, digest)
        if not head.may_be_cached:
            return key, None
        found = self.cache.get(key, now_s=progress.started, ttl_s=policy.ttl_s)
        if found is not None:
            progress.cached = b"hit"
        return key, found

    def _fall_back(
        self,
        call: Call,
        progress: CallProgress,
        body: bytes,
        decoded: DecodedRequest,
        error: ApiError,
        timeout_s: float,
    ) -> Steps:
        """Answer by what stands in for the version; raise `error` if nothing can."""
        fallback, target = fallbacks.of_route(call, progress, error)
        model = progress.model.model  # type: ignore[union-attr]
        remaining_s = timeout_s - (self._timer() - progress.started)
        if target is not None and remaining_s > 0:
            try:
                decoded = yield from row_sources.decode_for(
                    target, call, progress, body, decoded, remaining_s
                )
                result: Prediction = yield _engine_call(
                    progress, target, decoded, decoded.tensors, remaining_s
                )
            except (ApiError, EngineError, UnsupportedSignature):
                # What the version in charge said is the better reason.
                pass
            else:
                progress.target, progress.fallback = target, "version"
                progress.compute_us = result.compute_us
                progress.queue_us = result.queue_us
                self._fallback_log.note(progress, error)
                return self._answer(call, progress, target, decoded, result, None)
        encoded = None
        if fallback.answer is not None and isinstance(call.dialect, AnswersFixed):
            encoded = call.dialect.encode_fixed(
                progress.request_id,
                fallback_json(model.name, None, reason=error.code),
                decoded,
                fallback.answer.prediction,
            )
        if encoded is None:
            raise error
        progress.target, progress.fallback = None, "fixed"
        self._fallback_log.note(progress, error)
        return self._wrap_up(call, progress, *encoded)

    def _admit(self, call: Call, progress: CallProgress) -> KeyEntry:
        """Check key, scope, model, concurrency and rate; the caller must leave."""
        try:
            entry = callers.find_caller(self.tables, call.head.token, progress.now)
        except ApiError:
            if call.key_in_query:
                raise refusals.key_in_query() from None
            raise
        progress.entry = entry
        progress.network = entry.seen_networks.note(
            call.peer,
            call.head.forwarded_for,
            self.trusted_proxies,
            progress.now,
        )
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
            progress.model = version_choice.find_model(self.tables, call.model, entry)
        refusal = entry.enter(progress.now)
        if refusal is not None:
            raise refusals.of_limits(refusal)
        return entry

    def _answer(
        self,
        call: Call,
        progress: CallProgress,
        target: Target,
        decoded: DecodedRequest,
        prediction: Prediction | None,
        explained: Explained | None,
    ) -> Answer:
        return self._wrap_up(
            call,
            progress,
            *call.dialect.encode(
                Finished(
                    call, progress.request_id, target, decoded, prediction, explained
                )
            ),
        )

    def _wrap_up(
        self,
        call: Call,
        progress: CallProgress,
        content_type: bytes,
        body: bytes,
        extra: Headers,
    ) -> Answer:
        total_us = int((self._timer() - progress.started) * 1e6)
        # What is charged leaves nothing to give back.
        charged = progress.is_charged()
        if progress.spent and not charged:
            progress.entry.admission.refund(  # type: ignore[union-attr]
                progress.rows, progress.now, progress.reserved
            )
            progress.reserved = ()
        progress.spent = False
        event = usage_event(
            call,
            progress,
            boot_id=self._boot_id,
            status=200,
            code="",
            charged=charged,
            total_us=total_us,
        )
        target = progress.target
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", progress.request_id.encode()),
            (
                b"server-timing",
                b"queue;dur=%.2f, model;dur=%.2f, total;dur=%.2f"
                % (progress.queue_us / 1e3, progress.compute_us / 1e3, total_us / 1e3),
            ),
        ]
        headers += progress.entry.admission.headers(progress.now)  # type: ignore[union-attr]
        if target is not None:
            headers.append(target.version_header)
        if extra:
            headers += extra
        if progress.cached:
            headers.append((b"x-cache", progress.cached))
        if progress.fallback:
            headers.append((b"x-fallback", progress.fallback.encode()))
        return Answer(200, headers, body, event)

    def _refuse(self, call: Call, progress: CallProgress, error: ApiError) -> Answer:
        entry = progress.entry
        if entry is not None:
            if error.limit is None:
                error.limit = refusals.size_limit(error, entry.admission.limits)
            progress.limit = error.limit
            progress.message = error.message[:_MOST_KEPT_OF_A_MESSAGE]
        status, headers, body = call.dialect.render(
            call, error, request_id=progress.request_id, now=progress.now
        )
        if entry is None:
            return Answer(status, headers, body, None)
        if progress.spent:
            entry.admission.refund(progress.rows, progress.now, progress.reserved)
            progress.spent = False
            progress.reserved = ()
        if progress.target is not None:
            headers.append(progress.target.version_header)
        headers += refusals.rate_headers(entry.admission, progress.limit, progress.now)
        total_us = int((self._timer() - progress.started) * 1e6)
        event = usage_event(
            call,
            progress,
            boot_id=self._boot_id,
            status=status,
            code=error.code,
            charged=False,
            total_us=total_us,
        )
        return Answer(status, headers, body, event)


def _engine_call(
    progress: CallProgress,
    target: Target,
    decoded: DecodedRequest,
    tensors: tuple[Tensor, ...],
    timeout_s: float,
) -> EngineCall:
    """Ask for the prediction of some of a request's rows."""
    return EngineCall(
        progress.model.model.engines,  # type: ignore[union-attr]
        target.key,
        tensors,
        timeout_s,
        decoded.options.batch_size or 0,
        decoded.params,
        progress.entry.key.customer_id,  # type: ignore[union-attr]
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
