"""Let an ASGI application answer HTTP/1.1 requests."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import httptools
import structlog

from inference.gateway.http1.exchange import Channel, Exchange, HeadReading, Request

logger = structlog.get_logger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Message, Receive, Send], Awaitable[None]]

# Reading stops when more than this of a body waits for the application.
_MAX_HELD_BYTES = 64 * 1024


class ClientLeft(Exception):
    """The client has left, or its answer cannot be completed."""


def answered_by(application: AsgiApplication) -> Callable[[Request], HeadReading]:
    """Return the head reader for a listener that serves this application."""
    return lambda request: HeadReading(partial(AsgiExchange, application, request))


class AsgiExchange(Exchange):
    """One request, which the application answers in a task of its own."""

    def __init__(
        self, application: AsgiApplication, request: Request, connection: Channel
    ) -> None:
        self._application = application
        self._connection = connection
        self._request = request
        self._body = bytearray()
        self._more = True
        self._all_taken = False
        # Over: answered, or the client has left.
        self._over = self._left = False
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._begun = False
        # The client waits for "100 Continue" before it sends its body.
        self._expects = any(
            name == b"expect" and value.lower() == b"100-continue"
            for name, value in request.headers
        )

    # Exchange

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def body_received(self, data: bytes | bytearray) -> None:
        self._body += data
        if len(self._body) > _MAX_HELD_BYTES:
            self._connection.pause_body()
        self._arrived.set()

    def body_complete(self) -> None:
        self._more = False
        self._arrived.set()

    def client_left(self) -> None:
        self._over = self._left = True
        self._arrived.set()

    def sweep(self, now: float) -> None:
        """Do nothing: `relay.clients.SlowBodies` cuts slow bodies off."""

    # ASGI

    async def receive(self) -> Message:
        if self._expects and self._more and not self._body:
            self._expects = False
            self._connection.invite()
        while not self._over and (self._all_taken or (self._more and not self._body)):
            self._arrived.clear()
            await self._arrived.wait()
        if self._over:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self._connection.resume_body()
        self._all_taken = not self._more
        return {"type": "http.request", "body": body, "more_body": self._more}

    async def send(self, message: Message) -> None:
        """Send a part of the answer; raises ClientLeft."""
        if self._left:
            raise ClientLeft
        if self._over:
            return
        if message["type"] == "http.response.start":
            assert not self._begun, "an answer has one head"
            # ASGI asks for lower case, and the connection compares names in it.
            headers = [(name.lower(), value) for name, value in message["headers"]]
            self._head = (message["status"], headers)
            return
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if not self._begun:
            assert self._head is not None, "an answer begins with its head"
            self._begun = True
            self._connection.begin(*self._head, body)
        else:
            self._connection.write(body)
        if more:
            await self._connection.drained()
            return
        self._over = True
        self._arrived.set()
        self._connection.finish()

    async def _run(self) -> None:
        try:
            await self._application(self._scope(), self.receive, self.send)
        except ClientLeft:
            pass
        except Exception:
            # An application that fails must not stop the process.
            logger.exception("exchange_failed")
        if self._over:
            return
        self._over = True
        if self._begun:
            # The client must not take a part for the whole answer.
            self._connection.abort()
            return
        body = b"Internal Server Error"
        headers = [(b"content-length", b"%d" % len(body))]
        self._connection.answer_and_close(500, headers, body)

    def _scope(self) -> Message:
        request = self._request
        path, query = split_target(request.target)
        headers = request.headers
        if (host := _host(request.target)) is not None:
            headers = [(b"host", host), *(h for h in headers if h[0] != b"host")]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if request.http_1_0 else "1.1",
            "method": request.method.decode("ascii"),
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "headers": headers,
            "client": (self._connection.client, 0),
            "server": None,
            # Not part of ASGI: return whether the client has left.
            "has_left": lambda: self._left,
        }


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Split a request's target, of any form, into path and query (RFC 9112, 3.2)."""
    if target[:1] != b"/":
        try:
            url = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            return target, b""
        return url.path or b"/", url.query or b""
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return path, query


def _host(target: bytes) -> bytes | None:
    """Return the host of an absolute target; it overrides Host (RFC 9112, 3.2.2)."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or not scheme.isalnum():
        return None
    return re.split(rb"[/?#]", rest, maxsplit=1)[0].rpartition(b"@")[2]
