"""Relay requests to the site, and its answers back.

No client may hold up a thread of the site. So the site gets a request once its whole
body is here, and its answer is read as fast as it comes. What a client has not yet sent
or read waits in this process, in memory and then in a file (`buffers.py`).
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
from inference.dialects.call_headers import Head
from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.rendering import Headers, render
from inference.gateway import owners
from inference.gateway.bounds import UploadSlots
from inference.gateway.http1.asgi import ClientLeft, Message, Receive, Send
from inference.gateway.owners import Owner
from inference.gateway.relay.buffers import MEMORY_BYTES, Buffer, Buffers
from inference.gateway.relay.clients import Clients, SlowBodies
from inference.gateway.relay.forwarders import Forwarders

logger = structlog.get_logger(__name__)

# Headers that are not forwarded (RFC 9110, section 7.6.1).
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
# A client's headers that are dropped, by name or prefix: some name the client, and only
# we may do that.
_OURS = frozenset({b"expect", b"forwarded", b"x-real-ip", b"x-request-id"})
_FORWARDED = b"x-forwarded-"
# The site's headers that are dropped: the gateway writes the date itself.
_OUR_SERVERS = frozenset({b"date", b"server"})
# A client must send this much on average; idle_timeout_s passes before it counts.
MIN_BYTES_PER_S = 16 * 1024
# Limit for a body without a valid key: forms, and small files of signed-in people.
MAX_STRANGERS_BYTES = 4 * 1024 * 1024
# POST /api/v1/uploads answers with this address, which works without a key.
_UPLOAD = re.compile(r"/api/v1/uploads/(\w+)/content")
# For a longer body the site may take upload_timeout_s.
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
    """The head of the site's answer."""

    status: int
    headers: Headers


class _UploadOwner(msgspec.Struct):
    """The site's answer to the question who owns an announced upload."""

    customer_id: int


_owner_decoder = msgspec.json.Decoder(_UploadOwner)


class Relay:
    """Forward requests to the site's socket."""

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
        """Wait `site_timeout_s` for the site, or `upload_timeout_s` for a long body."""
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
        self.forwarders = Forwarders(trusted_proxies)

    async def __call__(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        *,
        head: Head,
        request_id: str,
    ) -> None:
        try:
            await self._pass_on(scope, receive, send, head, request_id)
        except ApiError as error:
            await self._refuse(scope, send, error, request_id)
        except (httpx.InvalidURL, httpx.LocalProtocolError):
            await self._refuse(scope, send, _not_passed_on(), request_id)
        except httpx.HTTPError as error:
            logger.warning(
                "site_away", outage="site", reason=error, request_id=request_id
            )
            await self._say_away(scope, send, request_id)

    async def _pass_on(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        head: Head,
        request_id: str,
    ) -> None:
        if not _host(scope):
            # HTTP/1.0 may leave it out; HTTP/1.1 was refused before.
            message = "A request for the site must name it in a Host header."
            raise ApiError(ErrorCode.INVALID_HEADER, message)
        owner = self._clients.find(head, _peer(scope))
        length = _content_length(scope)
        is_large = length is None or length > MAX_STRANGERS_BYTES
        if is_large and not owner.is_customer:
            owner = await self._upload_owner(scope, owner)
        with contextlib.closing(self.buffers.open(owner)) as body:
            if length != 0:
                await self._receive_body(scope, receive, body, owner, length)
            body.end()
            opened = self.buffers.open(owner, answers=body)
            with contextlib.closing(opened) as answer:
                # If the owner's share is used up, the site is not even asked.
                answer.reserve(MEMORY_BYTES)
                await self._exchange(scope, send, request_id, owner, body, answer)

    async def _receive_body(
        self,
        scope: Message,
        receive: Receive,
        body: Buffer,
        owner: Owner,
        length: int | None,
    ) -> None:
        """Read a whole body; raises ApiError and ClientLeft."""
        most = self._max_bytes
        if not owner.is_customer:
            most = min(most, MAX_STRANGERS_BYTES)
        if length is not None:
            if length > most:
                raise _too_large(most, owner)
            body.reserve(length)
        began = self._bodies.deadline(0)
        more = True
        while more:
            deadline = self._bodies.deadline(self._idle_timeout_s)
            if self._min_bytes_per_s:
                # A byte now and then is not progress.
                earned_s = body.size / self._min_bytes_per_s
                deadline = min(deadline, began + self._idle_timeout_s + earned_s)
            message = await self._bodies.receive(receive, deadline)
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk: bytes = message.get("body", b"")
            if body.size + len(chunk) > most:
                raise _too_large(most, owner)
            if chunk:
                await body.put(chunk)
            more = message.get("more_body", False)

    async def _exchange(
        self,
        scope: Message,
        send: Send,
        request_id: str,
        owner: Owner,
        body: Buffer,
        answer: Buffer,
    ) -> None:
        """Read the site's answer at its pace, and send it at the client's."""
        begun: asyncio.Future[_Head] = asyncio.get_running_loop().create_future()
        taking = asyncio.create_task(
            self._take_answer(scope, request_id, owner, body, answer, begun)
        )
        try:
            # The head is sent before any of the body is here.
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
        owner: Owner,
        body: Buffer,
        answer: Buffer,
        begun: "asyncio.Future[_Head]",
    ) -> None:
        """Read the site's answer, and hold its thread only for that time."""
        try:
            async with self._turns(scope, owner):
                response = await self._forward(scope, request_id, body)
                logger.info("site_answers", outage_over="site")
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
            # The client must not take a part for the whole answer.
            logger.warning("answer_cut_off", reason=error, request_id=request_id)
            answer.end(ClientLeft())

    def _turns(
        self, scope: Message, owner: Owner
    ) -> contextlib.AbstractAsyncContextManager[None]:
        return self.turns.turn(
            owner, timeout_s=self._site_timeout_s, has_left=scope["has_left"]
        )

    async def _upload_owner(self, scope: Message, owner: Owner) -> Owner:
        """Return the owner of the upload that a body belongs to, otherwise `owner`."""
        found = _UPLOAD.fullmatch(scope["path"])
        if found is None or scope["method"] != "PUT":
            return owner
        request = httpx.Request(
            "GET",
            f"http://site/internal/uploads/{found[1]}/owner",
            params=scope["query_string"].decode("latin-1"),
            headers={"host": "localhost"},
            extensions={"timeout": self._timeouts(self._site_timeout_s)},
        )
        async with self._turns(scope, owner):
            response = await self._transport.handle_async_request(request)
            content = await response.aread()
        if response.status_code != HTTPStatus.OK:
            return owner
        return owners.customer(_owner_decoder.decode(content).customer_id)

    async def _forward(
        self, scope: Message, request_id: str, body: Buffer
    ) -> httpx.Response:
        url = httpx.URL(scheme="http", host="site", raw_path=_target(scope))
        headers = _request_headers(scope, request_id, self._trusted_proxies)
        self.forwarders.note(_peer(scope), _joined(scope, b"x-forwarded-for"))
        if _content_length(scope) != 0:
            headers += [
                (b"content-length", b"%d" % body.size),
                # The site's server may answer before it has read a body. It then loses
                # the next request on the connection while it reads the rest.
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
                # The site works, so its answer may take longer.
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
        # The rest of the body is not read.
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
    """A buffered body in the form that httpx needs."""

    def __init__(self, body: Buffer) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            yield chunk


def _head(response: httpx.Response, request_id: str) -> _Head:
    """Return the head of the site's answer for the client; raises ApiError."""
    headers = _passed_on(response.headers.raw, _HOP_BY_HOP | _OUR_SERVERS)
    if "transfer-encoding" in response.headers:
        # Transfer-Encoding overrides Content-Length (RFC 9112, section 6.3).
        headers = [header for header in headers if header[0] != b"content-length"]
    if "x-request-id" not in response.headers:
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            raise _unread(response, request_id)
        headers.append((b"x-request-id", request_id.encode()))
    return _Head(response.status_code, headers)


def _length_to_come(scope: Message, response: httpx.Response) -> int:
    """Return the length of the answer's body, 0 if unknown."""
    bodiless = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    if scope["method"] == "HEAD" or response.status_code in bodiless:
        return 0
    return int(response.headers.get("content-length", 0))


def _content_length(scope: Message) -> int | None:
    """Return the length of the request's body; None if it has one and it is unknown."""
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


def _too_large(max_bytes: int, owner: Owner) -> ApiError:
    whose = "The body" if owner.is_customer else "A body without a valid key"
    return ApiError(
        ErrorCode.TOO_LARGE,
        f"{whose} may have at most {max_bytes} bytes.",
        facts={"limit": "upload_bytes", "maximum": max_bytes},
    )


def _unread(response: httpx.Response, request_id: str) -> ApiError:
    """Return our error for an answer of the site's HTTP server.

    Django has not seen the request: all its answers have a request id.
    """
    logger.warning("site_refused", status=response.status_code, request_id=request_id)
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
    # WSGI writes `-` as `_`, so a name with `_` could pass for one of ours.
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
    """Return the scheme that a trusted proxy received; None if it does not say."""
    given = _joined(scope, b"x-forwarded-proto")
    if given is None:
        return None
    # Of several proxies, the first one talked to the client.
    first = given.partition(b",")[0].strip().lower()
    return "https" if first == b"https" else "http"


def _joined(scope: Message, wanted: bytes) -> bytes | None:
    """Join the values of one header (RFC 9110, section 5.3); None without any."""
    given = [value for name, value in scope["headers"] if name == wanted]
    return b",".join(given) if given else None


def _passed_on(headers: Headers, dropped: frozenset[bytes]) -> Headers:
    """Drop headers in `dropped` and those named in `Connection`; lower-case names."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        token.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for token in value.split(b",")
    }
    # These must pass even if a client names them in `Connection`.
    named -= {b"content-length", b"host", b"authorization", b"cookie"}
    return [
        (name, value)
        for name, value in lowered
        if name not in dropped and name not in named
    ]
