"""Answer predictions and health on the public port; relay other paths to the site."""

from functools import partial
from urllib.parse import unquote

import structlog

from inference.dialects import call_headers
from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.rendering import render
from inference.gateway import routes
from inference.gateway.driver.driver import GatewayDriver
from inference.gateway.http1.asgi import (
    AsgiExchange,
    ClientLeft,
    Message,
    Receive,
    Send,
    split_target,
)
from inference.gateway.http1.exchange import HeadReading, Request
from inference.gateway.open_inference.app import OpenInferenceApp, is_open_inference
from inference.gateway.open_inference.facts import OpenInferenceFacts
from inference.gateway.prediction_exchange import PredictionExchange, PredictionHead
from inference.gateway.relay.relay import Relay, respond
from inference.gateway.routes import PredictionPath
from inference.prediction.callers import rate_headers

logger = structlog.get_logger(__name__)

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
# So many parsed paths are remembered; then all are forgotten.
_MAX_PATHS = 4096
# Longer paths are parsed each time: anybody can make up paths, also without a key.
_MAX_KEPT_PATH = 256


class GatewayApp:
    """Choose who answers a request. Predictions do without ASGI, for speed."""

    def __init__(self, driver: GatewayDriver, relay: Relay) -> None:
        self._driver = driver
        self._relay = relay
        self._paths: dict[bytes, PredictionPath | None] = {}
        self._open_inference = OpenInferenceApp(
            OpenInferenceFacts(
                driver.plan, driver.engines, driver.health, clock=driver.clock
            ),
            new_request_id=driver.plan.new_request_id,
            clock=driver.clock,
        )

    def read(self, request: Request) -> HeadReading:
        if request.method == b"POST":
            path, _, query = request.target.partition(b"?")
            found = self._paths.get(path)
            if found is None and path not in self._paths:
                found = self._find(path)
            if found is not None:
                head = PredictionHead.of(request, found, query)
                return HeadReading(
                    partial(PredictionExchange, self._driver, head), recurs=True
                )
        return HeadReading(partial(AsgiExchange, self, request))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        except ClientLeft:
            return
        except Exception:
            # The edge of the process: any failure is answered in the API's shape.
            logger.exception("request_failed", path_kind="other")
            message = "Something went wrong on our side."
            error = ApiError(ErrorCode.INTERNAL_ERROR, message)
            await self._refuse(scope, send, error)

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        method: str = scope["method"]
        if routes.has_dots(path):
            message = "A segment of the path is . or .., which clients resolve."
            error = ApiError(ErrorCode.INVALID_HEADER, message)
            await self._refuse(scope, send, error)
        elif (alive := routes.asks_alive(path)) or routes.asks_ready(path):
            if method not in ("GET", "HEAD"):
                await self._refuse_method(scope, send, "GET, HEAD")
            elif alive:
                await _say(scope, send, 200, b"ok")
            elif self._driver.health.ready:
                await _say(scope, send, 200, b"ready")
            else:
                await _say(scope, send, 503, b"not ready")
        elif is_open_inference(path):
            answer = self._open_inference.answer(
                method,
                path,
                scope["query_string"],
                scope["headers"],
                scope["client"][0],
            )
            await respond(scope, send, *answer)
        elif routes.find_prediction(path) is not None:
            message = "Send predictions by POST."
            error = ApiError(ErrorCode.METHOD_NOT_ALLOWED, message)
            driver, head = self._driver, call_headers.read(scope["headers"])
            limits = rate_headers(driver.plan.tables, head.token, driver.clock())
            await self._refuse(scope, send, error, (b"allow", b"POST"), *limits)
        elif method in ("CONNECT", "TRACE"):
            # TRACE would show a web page the keys that its browser sends.
            await self._refuse_method(scope, send, "GET, POST")
        elif routes.is_private(path):
            error = ApiError(ErrorCode.NOT_FOUND, "There is nothing here.")
            await self._refuse(scope, send, error)
        else:
            head = call_headers.read(scope["headers"])
            request_id = self._driver.request_id(head)
            await self._relay(scope, receive, send, head=head, request_id=request_id)

    async def _refuse_method(self, scope: Message, send: Send, allowed: str) -> None:
        message = f"This path is not for {scope['method']}."
        error = ApiError(ErrorCode.METHOD_NOT_ALLOWED, message)
        await self._refuse(scope, send, error, (b"allow", allowed.encode()))

    async def _refuse(
        self, scope: Message, send: Send, error: ApiError, *extra: tuple[bytes, bytes]
    ) -> None:
        driver, head = self._driver, call_headers.read(scope["headers"])
        status, headers, body = render(
            error, request_id=driver.request_id(head), now=driver.clock()
        )
        await respond(scope, send, status, [*headers, *extra], body)

    def _find(self, path: bytes) -> PredictionPath | None:
        """Parse a path, and remember what it means."""
        plain, _ = split_target(path)
        found = routes.find_prediction(unquote(plain.decode("latin-1")))
        if len(path) > _MAX_KEPT_PATH:
            return found
        if len(self._paths) >= _MAX_PATHS:
            self._paths.clear()
        self._paths[path] = found
        return found


async def _say(scope: Message, send: Send, status: int, word: bytes) -> None:
    headers = [
        _TEXT,
        (b"content-length", b"%d" % len(word)),
        (b"cache-control", b"no-store"),
    ]
    await respond(scope, send, status, headers, word)
