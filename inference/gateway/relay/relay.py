"""Passing everything else on to the site, and its answers back.

A thread of the site must be free again whatever a client does. So the site is asked
once the whole body is here, and its answer is taken as fast as it comes; what a client
has not sent or read waits in this process, and then in a file (`buffers.py`).
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import NamedTuple

import httpx
import msgspec
import structlog

from accounts.admission.networks import Networks, client_address
from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.rendering import render
from inference.gateway import owners
from inference.gateway.bounds import UploadSlots
from inference.gateway.http1.asgi import ClientLeft, Message, Receive, Send
from inference.gateway.owners import Owner
from inference.gateway.relay.buffers import MEMORY_BYTES, Buffer, Buffers
from inference.gateway.relay.clients import Clients, SlowBodies

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
# What a client must send on average, from a while after it began.
MIN_BYTES_PER_S = 16 * 1024
# Of a body without a valid key: forms, and small files of people who have signed in.
MAX_STRANGERS_BYTES = 4 * 1024 * 1024
# The address in POST /api/v1/uploads' answer is good without a key.
_UPLOAD = re.compile(r"/api/v1/uploads/(\w+)/content")
# The site has more time for a longer body.
_LONG_BYTES = 256 * 1024
_CONNECT_TIMEOUT_S = 2.0
_UPLOAD_TIMEOUT_S = 120.0
_AWAY_RETRY_S = 5.0
_AWAY_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="refresh" content="5"><title>Modelyard</title>
<body style="font-family:system-ui;max-width:36rem;margin:4rem auto;padding:0 1rem">
<h1>The site is starting or away</h1>
<p>Predictions go on without it. This page tries again every five seconds.</p>
"""


class _Head(NamedTuple):
    """How the site's answer begins."""

    status: int
    headers: Headers


class _UploadOwner(msgspec.Struct):
    """Whose an announced upload is."""

    customer_id: int


_owner_decoder = msgspec.json.Decoder(_UploadOwner)


class Relay:
    """Forwards requests to the site's socket."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        bodies: SlowBodies,
        *,
        clients: Clients,
        buffers: Buffers,
        turns: UploadSlots,
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
        self.turns = turns
        self.buffers = buffers
        self._transport = transport
        self._bodies = bodies
        self._clients = clients
        self._max_bytes = max_bytes
        self._idle_timeout_s = idle_timeout_s
        self._site_timeout_s = site_timeout_s
        self._upload_timeout_s = upload_timeout_s
        self._min_bytes_per_s = min_bytes_per_s
        self._clock = clock
        self._trusted_proxies = trusted_proxies

    async def __call__(
        self, scope: Message, receive: Receive, send: Send, *, request_id: str
    ) -> None:
        try:
            await self._pass_on(scope, receive, send, request_id)
        except ApiError as error:
            await self._refuse(scope, send, error, request_id)
        except (httpx.InvalidURL, httpx.LocalProtocolError):
            await self._refuse(scope, send, _not_passed_on(), request_id)
        except httpx.HTTPError as error:
            logger.warning("site_away", reason=type(error).__name__)
            await self._say_away(scope, send, request_id)

    async def _pass_on(
        self, scope: Message, receive: Receive, send: Send, request_id: str
    ) -> None:
        if not _host(scope):
            # Only HTTP/1.0 may leave it out.
            message = "A request for the site must name it in a Host header."
            raise ApiError(ErrorCode.INVALID_HEADER, message)
        client = self._clients.find(scope["headers"], _peer(scope))
        length = _content_length(scope)
        is_large = length is None or length > MAX_STRANGERS_BYTES
        if is_large and not client.is_customer:
            client = await self._owner(scope, client)
        with contextlib.closing(self.buffers.open(client)) as body:
            if length != 0:
                await self._receive_body(scope, receive, body, client, length)
            body.end()
            opened = self.buffers.open(client, answers=body)
            with contextlib.closing(opened) as answer:
                # A client whose share is used up does not cost the site anything.
                answer.reserve(MEMORY_BYTES)
                await self._exchange(scope, send, request_id, client, body, answer)

    async def _receive_body(
        self,
        scope: Message,
        receive: Receive,
        body: Buffer,
        client: Owner,
        length: int | None,
    ) -> None:
        """Take all of a body; raises ApiError, ClientLeft."""
        most = self._max_bytes
        if not client.is_customer:
            most = min(most, MAX_STRANGERS_BYTES)
        if length is not None:
            if length > most:
                raise _too_large(most, client)
            body.reserve(length)
        began = self._bodies.deadline(0)
        more = True
        while more:
            deadline = self._bodies.deadline(self._idle_timeout_s)
            if self._min_bytes_per_s:
                # A byte now and then is no progress.
                earned_s = body.size / self._min_bytes_per_s
                deadline = min(deadline, began + self._idle_timeout_s + earned_s)
            message = await self._bodies.receive(receive, deadline)
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk: bytes = message.get("body", b"")
            if body.size + len(chunk) > most:
                raise _too_large(most, client)
            if chunk:
                await body.put(chunk)
            more = message.get("more_body", False)

    async def _exchange(
        self,
        scope: Message,
        send: Send,
        request_id: str,
        client: Owner,
        body: Buffer,
        answer: Buffer,
    ) -> None:
        """Send the site's answer at the client's pace, and take it at the site's."""
        begun: asyncio.Future[_Head] = asyncio.get_running_loop().create_future()
        taking = asyncio.create_task(
            self._take_answer(scope, request_id, client, body, answer, begun)
        )
        try:
            # Lets the head go before the first of the body is there.
            start = await begun
            await send(
                {
                    "type": "http.response.start",
                    "status": start.status,
                    "headers": start.headers,
                }
            )
            part = {"type": "http.response.body", "more_body": True}
            await send(part | {"body": b""})
            async for chunk in answer:
                await send(part | {"body": chunk})
            await send({"type": "http.response.body", "body": b""})
        finally:
            taking.cancel()
            await asyncio.wait((taking,))

    async def _take_answer(
        self,
        scope: Message,
        request_id: str,
        client: Owner,
        body: Buffer,
        answer: Buffer,
        begun: "asyncio.Future[_Head]",
    ) -> None:
        """Take the site's answer, and hold its thread no longer than that takes."""
        try:
            async with self._turns(scope, client):
                response = await self._forward(scope, request_id, body)
                body.close()
                async with contextlib.aclosing(response):
                    start = _head(response, request_id)
                    answer.reserve(_length_to_come(scope, response))
                    begun.set_result(start)
                    assert isinstance(response.stream, httpx.AsyncByteStream)
                    async for chunk in response.stream:
                        await answer.put(chunk)
            answer.end()
        except Exception as error:
            if not begun.done():
                begun.set_exception(error)
                return
            # The client must not take a part for the whole.
            logger.warning("answer_cut_off", reason=type(error).__name__)
            answer.end(ClientLeft())

    def _turns(
        self, scope: Message, client: Owner
    ) -> contextlib.AbstractAsyncContextManager[None]:
        return self.turns.turn(
            client, timeout_s=self._site_timeout_s, has_left=scope["has_left"]
        )

    async def _owner(self, scope: Message, client: Owner) -> Owner:
        """Find whose announced upload a large body is; otherwise a stranger's."""
        found = _UPLOAD.fullmatch(scope["path"])
        if found is None or scope["method"] != "PUT":
            return client
        request = httpx.Request(
            "GET",
            f"http://site/internal/uploads/{found[1]}/owner",
            params=scope["query_string"].decode("latin-1"),
            headers={"host": "localhost"},
            extensions={"timeout": self._timeouts(self._site_timeout_s)},
        )
        async with self._turns(scope, client):
            response = await self._transport.handle_async_request(request)
            content = await response.aread()
        if response.status_code != HTTPStatus.OK:
            return client
        return owners.customer(_owner_decoder.decode(content).customer_id)

    async def _forward(
        self, scope: Message, request_id: str, body: Buffer
    ) -> httpx.Response:
        url = httpx.URL(scheme="http", host="site", raw_path=_target(scope))
        headers = _request_headers(scope, request_id, self._trusted_proxies)
        if _content_length(scope) != 0:
            headers += [
                (b"content-length", b"%d" % body.size),
                # The site's server may answer before it has read a body, and then
                # loses what comes next on the connection while it reads the rest.
                (b"connection", b"close"),
            ]
        is_long = body.size > _LONG_BYTES
        timeouts = self._timeouts(
            self._upload_timeout_s if is_long else self._site_timeout_s
        )
        # A kept connection may be closed by the site just as we use it.
        attempts = 1 if body.size else 2
        for attempt in range(1, attempts + 1):
            request = httpx.Request(
                scope["method"],
                url,
                headers=headers,
                stream=_Body(body),
                extensions={"timeout": timeouts},
            )
            try:
                response = await self._transport.handle_async_request(request)
                # The site works: its answer may take its time.
                timeouts["read"] = self._upload_timeout_s
                return response
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                if attempt == attempts:
                    raise
        raise AssertionError("unreachable")

    def _timeouts(self, timeout_s: float) -> dict[str, float]:
        return {
            "connect": _CONNECT_TIMEOUT_S,
            "pool": timeout_s,
            "read": timeout_s,
            "write": timeout_s,
        }

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
        if b"text/html" in (_joined(scope, b"accept") or b""):
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


class _Body(httpx.AsyncByteStream):
    """A body as httpx takes it."""

    def __init__(self, body: Buffer) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            yield chunk


def _head(response: httpx.Response, request_id: str) -> _Head:
    """Write the head of the site's answer for the client; raises ApiError."""
    headers = _passed_on(response.headers.raw, _HOP_BY_HOP | _OUR_SERVERS)
    if "transfer-encoding" in response.headers:
        # It says how long the body is, whatever else does (RFC 9112, section 6.3).
        headers = [header for header in headers if header[0] != b"content-length"]
    if "x-request-id" not in response.headers:
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            raise _unread(response)
        headers.append((b"x-request-id", request_id.encode()))
    return _Head(response.status_code, headers)


def _length_to_come(scope: Message, response: httpx.Response) -> int:
    """Return how long the answer's body will be; 0 where nothing says so."""
    bodiless = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    if scope["method"] == "HEAD" or response.status_code in bodiless:
        return 0
    return int(response.headers.get("content-length", 0))


def _content_length(scope: Message) -> int | None:
    """Return the length of the request's body; None: it has one, but does not say."""
    length = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value)
    return length


def _peer(scope: Message) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _too_large(max_bytes: int, client: Owner) -> ApiError:
    whose = "The body" if client.is_customer else "A body without a valid key"
    return ApiError(
        ErrorCode.TOO_LARGE,
        f"{whose} may have at most {max_bytes} bytes.",
        facts={"limit": "upload_bytes", "maximum": max_bytes},
    )


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
        if b"_" not in name
        and name != b"content-length"
        and not name.startswith(_FORWARDED)
    ]
    peer = _peer(scope)
    address = client_address(peer, _joined(scope, b"x-forwarded-for"), trusted_proxies)
    scheme: str = scope["scheme"]
    if trusted_proxies.contain(peer):
        scheme = _forwarded_scheme(scope) or scheme
    return [
        *headers,
        (b"x-forwarded-for", address.encode("latin-1", "replace")),
        (b"x-forwarded-host", _host(scope)),
        (b"x-forwarded-proto", scheme.encode()),
        (b"x-request-id", request_id.encode()),
    ]


def _host(scope: Message) -> bytes:
    return next((v for n, v in scope["headers"] if n == b"host"), b"")


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
