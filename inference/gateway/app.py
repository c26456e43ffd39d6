"""The public port: predictions here, everything else from the site."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog

from inference import call_headers, refusals
from inference.engine.errors import EngineError
from inference.error_rendering import render
from inference.errors import ApiError, ErrorCode
from inference.gateway import routes
from inference.gateway.clients import (
    ClientLeft,
    Message,
    Receive,
    SlowBodies,
    read_body,
)
from inference.gateway.engines import Engines
from inference.gateway.http import WHOLE_MESSAGES, GatewayProtocol
from inference.gateway.leases import LeaseClient
from inference.gateway.recorder import Recorder
from inference.gateway.relay import Relay, Send, respond
from inference.gateway.routes import PredictionPath
from inference.metrics import Metrics
from inference.prediction import (
    Answer,
    Call,
    EngineCall,
    ExplainCall,
    NeedBody,
    NeedUnits,
    PredictionPlan,
)
from inference.spool import SpoolUnavailable

logger = structlog.get_logger(__name__)

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_TRUE = frozenset({b"explain=true", b"explain=1"})


class GatewayApp:
    """The ASGI application."""

    def __init__(
        self,
        *,
        plan: PredictionPlan,
        engines: Engines,
        leases: LeaseClient,
        recorder: Recorder,
        metrics: Metrics,
        relay: Relay,
        bodies: SlowBodies,
        body_timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._plan = plan
        self._engines = engines
        self._leases = leases
        self._recorder = recorder
        self._metrics = metrics
        self._relay = relay
        self._bodies = bodies
        self._body_timeout_s = body_timeout_s
        self._clock = clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        found = routes.find_prediction(path)
        try:
            if found is None:
                await self._serve_other(path, scope, receive, send)
            elif scope["method"] != "POST":
                message = "Send predictions by POST."
                error = ApiError(ErrorCode.METHOD_NOT_ALLOWED, message)
                await self._refuse(scope, send, error, (b"allow", b"POST"))
            else:
                answer = await self._predict(found, scope, receive)
                await _send(scope, send, answer)
        except ClientLeft:
            return
        except Exception:
            # The edge of the process: whatever it was, the caller gets our shape.
            request_id = self._request_id(scope)
            logger.exception("request_failed", request_id=request_id)
            message = "Something went wrong on our side."
            error = ApiError(ErrorCode.INTERNAL_ERROR, message)
            await self._refuse(scope, send, error)

    async def _predict(
        self, path: PredictionPath, scope: Message, receive: Receive
    ) -> Answer:
        """Carry out the plan's effects, record its event, and give its answer."""
        headers = call_headers.select(scope["headers"])
        query: bytes = scope["query_string"]
        explain = query != b"" and not _TRUE.isdisjoint(query.lower().split(b"&"))
        steps = self._plan.steps(
            Call(path.operation, headers, path.model, path.version, explain)
        )
        value: Any = None
        try:
            effect = next(steps)
            while True:
                try:
                    match effect:
                        case NeedBody():
                            value = _whole_body(scope, effect.max_bytes)
                            if value is None:
                                value = await read_body(
                                    receive,
                                    self._bodies,
                                    max_bytes=effect.max_bytes,
                                    timeout_s=self._body_timeout_s,
                                    content_length=headers.get(b"content-length"),
                                )
                        case EngineCall():
                            value = await self._engines.predict(effect)
                        case NeedUnits():
                            await self._leases.fetch(effect.request, effect.admission)
                            value = None
                        case ExplainCall():
                            value = await self._engines.explain(effect)
                except (ApiError, EngineError) as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(value)
        except StopIteration as stop:
            answer: Answer = stop.value
        finally:
            # Ends a call that was given up; what has ended does not mind.
            steps.close()
        event = answer.event
        if event is None:
            self._metrics.unauthenticated += 1
            return answer
        self._metrics.observe(event)
        try:
            await self._recorder.record(event)
        except SpoolUnavailable:
            self._metrics.unrecorded += 1
            return self._plan.unrecorded(answer)
        return answer

    async def _serve_other(
        self, path: str, scope: Message, receive: Receive, send: Send
    ) -> None:
        if routes.asks_alive(path):
            await _say(scope, send, 200, b"ok")
        elif routes.asks_ready(path):
            if self._engines.waiting_for(self._plan.tables):
                await _say(scope, send, 503, b"not ready")
            else:
                await _say(scope, send, 200, b"ready")
        elif routes.is_private(path):
            error = ApiError(ErrorCode.NOT_FOUND, "There is nothing here.")
            await self._refuse(scope, send, error)
        else:
            request_id = self._request_id(scope)
            await self._relay(scope, receive, send, request_id=request_id)

    async def _refuse(
        self, scope: Message, send: Send, error: ApiError, *extra: tuple[bytes, bytes]
    ) -> None:
        status, headers, body = render(
            error, request_id=self._request_id(scope), now=self._clock()
        )
        await respond(scope, send, status, [*headers, *extra], body)

    def _request_id(self, scope: Message) -> str:
        given = call_headers.request_id(call_headers.select(scope["headers"]))
        return given or self._plan.new_request_id()


def _whole_body(scope: Message, max_bytes: int) -> bytes | None:
    extensions = scope.get("extensions")
    if extensions is None or WHOLE_MESSAGES not in extensions:
        return None
    whole: GatewayProtocol = extensions[WHOLE_MESSAGES]
    body = whole.take_body(scope)
    if body is None:
        whole.collect_body(scope, max_bytes)
    elif len(body) > max_bytes:
        raise refusals.body_too_large(max_bytes)
    return body


async def _send(scope: Message, send: Send, answer: Answer) -> None:
    if answer.status == HTTPStatus.REQUEST_TIMEOUT:
        # The rest of the body is not waited for.
        headers = [*answer.headers, (b"connection", b"close")]
        await respond(scope, send, answer.status, headers, answer.body)
        return
    extensions = scope.get("extensions")
    if extensions is not None and WHOLE_MESSAGES in extensions:
        whole: GatewayProtocol = extensions[WHOLE_MESSAGES]
        if whole.send_answer(scope, answer.status, answer.headers, answer.body):
            return
    await respond(scope, send, answer.status, answer.headers, answer.body)


async def _say(scope: Message, send: Send, status: int, word: bytes) -> None:
    headers = [
        _TEXT,
        (b"content-length", b"%d" % len(word)),
        (b"cache-control", b"no-store"),
    ]
    await respond(scope, send, status, headers, word)
