"""Passing everything else on to the site, streaming both ways."""

import contextlib
from collections.abc import Callable
from http import HTTPStatus

import httpx
import structlog

from accounts.networks import Networks, client_address
from inference.error_rendering import render
from inference.errors import ApiError, ErrorCode
from inference.gateway.asgi import Message, Receive, Send
from inference.gateway.clients import ClientLeft, SlowBodies
from inference.gateway.uploads import MIN_BYTES_PER_S, Turns, Upload, too_large

logger = structlog.get_logger(__name__)

Headers = list[tuple[bytes, bytes]]

# RFC 9110, section 7.6.1, and what names the client, which only we may say.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Of a client, by name or by how the name begins.
_OURS = frozenset({b"expect", b"forwarded", b"x-real-ip", b"x-request-id"})
_FORWARDED = b"x-forwarded-"
# Who answers is this gateway, which says the date itself.
_OUR_SERVERS = frozenset({b"date", b"server"})
_CONNECT_TIMEOUT_S = 2.0
_UPLOAD_TIMEOUT_S = 120.0
_AWAY_RETRY_S = 5.0
_AWAY_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="refresh" content="5"><title>Modelyard</title>
<body style="font-family:system-ui;max-width:36rem;margin:4rem auto;padding:0 1rem">
<h1>The site is starting or away</h1>
<p>Predictions go on without it. This page tries again every five seconds.</p>
"""


class Relay:
    """Forwards requests to the site's socket."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        bodies: SlowBodies,
        *,
        max_bytes: int,
        idle_timeout_s: float,
        site_timeout_s: float,
        clock: Callable[[], float],
        trusted_proxies: Networks = Networks(()),  # noqa: B008  # It never changes.
        upload_timeout_s: float = _UPLOAD_TIMEOUT_S,
        min_bytes_per_s: float = MIN_BYTES_PER_S,
    ) -> None:
        """A site that is there but does nothing is given `site_timeout_s`.

        What takes long by its nature, a long body, has `upload_timeout_s`.
        """
        self._transport = transport
        self._bodies = bodies
        self._max_bytes = max_bytes
        self._idle_timeout_s = idle_timeout_s
        self._site_timeout_s = site_timeout_s
        self._upload_timeout_s = upload_timeout_s
        self._min_bytes_per_s = min_bytes_per_s
        self._clock = clock
        self._trusted_proxies = trusted_proxies
        self._turns = Turns()

    async def __call__(
        self, scope: Message, receive: Receive, send: Send, *, request_id: str
    ) -> None:
        length = next((v for n, v in scope["headers"] if n == b"content-length"), None)
        if length is not None and int(length) > self._max_bytes:
            await self._refuse(scope, send, too_large(self._max_bytes), request_id)
            return
        try:
            response = await self._ask(scope, receive, request_id)
        except ClientLeft:
            return
        except ApiError as error:
            await self._refuse(scope, send, error, request_id)
            return
        except (httpx.InvalidURL, httpx.LocalProtocolError):
            await self._refuse(scope, send, _not_passed_on(), request_id)
            return
        except httpx.HTTPError as error:
            logger.warning("site_away", reason=type(error).__name__)
            await self._say_away(scope, send, request_id)
            return
        try:
            await self._answer(scope, response, send, request_id)
        finally:
            await response.aclose()

    async def _ask(
        self, scope: Message, receive: Receive, request_id: str
    ) -> httpx.Response:
        names = {name for name, _ in scope["headers"]}
        if b"content-length" not in names and b"transfer-encoding" not in names:
            return await self._forward(scope, request_id, None)
        upload = Upload(
            receive,
            self._bodies,
            max_bytes=self._max_bytes,
            idle_timeout_s=self._idle_timeout_s,
            min_bytes_per_s=self._min_bytes_per_s,
        )
        await upload.hold()
        with self._turns if upload.more else contextlib.nullcontext():
            return await self._forward(scope, request_id, upload)

    async def _forward(
        self, scope: Message, request_id: str, upload: Upload | None
    ) -> httpx.Response:
        url = httpx.URL(scheme="http", host="site", raw_path=_target(scope))
        headers = _request_headers(scope, request_id, self._trusted_proxies)
        if upload is not None:
            # The site's server may answer before it has read a body, and then loses
            # what comes next on the connection while it reads the rest.
            headers.append((b"connection", b"close"))
        is_long = upload is not None and upload.more
        timeout_s = self._upload_timeout_s if is_long else self._site_timeout_s
        timeouts = {
            "connect": _CONNECT_TIMEOUT_S,
            "pool": timeout_s,
            "read": timeout_s,
            "write": timeout_s,
        }
        # A kept connection may be closed by the site just as we use it.
        attempts = 2 if upload is None else 1
        for attempt in range(1, attempts + 1):
            request = httpx.Request(
                scope["method"],
                url,
                headers=headers,
                stream=upload,
                extensions={"timeout": timeouts},
            )
            try:
                response = await self._transport.handle_async_request(request)
                # The site works: its answer may take its time.
                timeouts["read"] = self._upload_timeout_s
                return response
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # The body's own failure looks to the transport like a broken pipe.
                if upload is not None and upload.failure is not None:
                    raise upload.failure from None
                if attempt == attempts:
                    raise
        raise AssertionError("unreachable")

    async def _answer(
        self, scope: Message, response: httpx.Response, send: Send, request_id: str
    ) -> None:
        headers = _passed_on(response.headers.raw, _HOP_BY_HOP | _OUR_SERVERS)
        if not any(name == b"x-request-id" for name, _ in headers):
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                await self._refuse(scope, send, _unread(response), request_id)
                return
            headers.append((b"x-request-id", request_id.encode()))
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": headers,
            }
        )
        # Lets the head go before the first of the body is there.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(
        self, scope: Message, send: Send, error: ApiError, request_id: str
    ) -> None:
        status, headers, body = render(error, request_id=request_id, now=self._clock())
        # The rest of the body is of no interest.
        headers.append((b"connection", b"close"))
        await respond(scope, send, status, headers, body)

    async def _say_away(self, scope: Message, send: Send, request_id: str) -> None:
        error = ApiError(
            ErrorCode.OVERLOADED,
            "The site is starting or away. Predictions go on; try this again.",
            retry_after_s=_AWAY_RETRY_S,
        )
        status, headers, body = render(error, request_id=request_id, now=self._clock())
        accept = next((v for n, v in scope["headers"] if n == b"accept"), b"")
        if b"text/html" in accept:
            body = _AWAY_PAGE.encode()
            replaced = {
                b"content-type": b"text/html; charset=utf-8",
                b"content-length": b"%d" % len(body),
            }
            headers = [(name, replaced.get(name, value)) for name, value in headers]
        await respond(scope, send, status, headers, body)


async def respond(
    scope: Message, send: Send, status: int, headers: Headers, body: bytes
) -> None:
    """Send one whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.body", "body": body})


def _unread(response: httpx.Response) -> ApiError:
    """Put an error of the site's server, of which Django knows nothing, in our words.

    Every answer of Django has a request id.
    """
    logger.warning("site_refused", status=response.status_code)
    if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _not_passed_on()
    message = "Something went wrong on our side."
    return ApiError(ErrorCode.INTERNAL_ERROR, message)


def _not_passed_on() -> ApiError:
    message = "The request's target or its headers cannot be passed on."
    return ApiError(ErrorCode.INVALID_HEADER, message)


def _target(scope: Message) -> bytes:
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return raw_path + b"?" + query if query else raw_path


def _request_headers(
    scope: Message, request_id: str, trusted_proxies: Networks
) -> Headers:
    # WSGI writes `-` as `_`: a name with `_` would pass for one of ours.
    headers = [
        (name, value)
        for name, value in _passed_on(scope["headers"], _HOP_BY_HOP | _OURS)
        if b"_" not in name and not name.startswith(_FORWARDED)
    ]
    if any(name == b"transfer-encoding" for name, _ in scope["headers"]):
        headers.append((b"transfer-encoding", b"chunked"))
    host = next((v for n, v in scope["headers"] if n == b"host"), b"")
    client = scope.get("client")
    peer = str(client[0]) if client else "unknown"
    address = client_address(peer, _joined(scope, b"x-forwarded-for"), trusted_proxies)
    scheme: str = scope["scheme"]
    if trusted_proxies.contain(peer):
        scheme = _forwarded_scheme(scope) or scheme
    return [
        *headers,
        (b"x-forwarded-for", address.encode("latin-1", "replace")),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scheme.encode()),
        (b"x-request-id", request_id.encode()),
    ]


def _forwarded_scheme(scope: Message) -> str | None:
    """Return the scheme that a trusted proxy was called by; None: it does not say."""
    given = _joined(scope, b"x-forwarded-proto")
    if given is None:
        return None
    # Of several proxies, the first heard the client.
    first = given.partition(b",")[0].strip().lower()
    return "https" if first == b"https" else "http"


def _joined(scope: Message, wanted: bytes) -> bytes | None:
    """Join the values of one header (RFC 9110, section 5.3); None: there is none."""
    given = [value for name, value in scope["headers"] if name == wanted]
    return b",".join(given) if given else None


def _passed_on(headers: Headers, dropped: frozenset[bytes]) -> Headers:
    """Drop what concerns one hop only, also what `Connection` names.

    Names come in lower case, whatever case the site's server writes.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        token.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for token in value.split(b",")
    }
    # These frame the message, whatever a client says about its connection.
    named -= {b"content-length", b"host", b"authorization", b"cookie"}
    return [
        (name, value)
        for name, value in lowered
        if name not in dropped and name not in named
    ]
