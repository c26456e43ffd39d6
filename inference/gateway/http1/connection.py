"""One client's HTTP/1.1 connection (RFC 9112), parsed by httptools.

Requests are answered in their order. Each request makes one object, the exchange that
answers it: no task, no timer, no event. One sweep over all connections ends those that
are too slow (`listener.py`). A head that is known (`known_heads.py`) is not parsed
again, and no parser copies the body behind it.
"""

import asyncio
import re
from collections import deque
from collections.abc import Hashable
from http import HTTPStatus
from typing import Any, Protocol

import httptools
import structlog

from inference.dialects import call_headers
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.http1.exchange import Exchange, Headers, HeadReading, Request
from inference.gateway.http1.known_heads import KnownHead, KnownHeads
from inference.gateway.http1.large_body import LargeBodies
from inference.installation.shares import Shares

logger = structlog.get_logger(__name__)

# For a request's target and headers together.
_MAX_HEADER_BYTES = 64 * 1024
# For a head that has not ended; bytes before it in its first read count too.
_MAX_UNFINISHED_HEADER_BYTES = _MAX_HEADER_BYTES + 256 * 1024
# A larger body is written apart from its head.
_LARGE_BYTES = 64 * 1024
# Reading stops when this many requests, or bytes of bodies, wait for their turn.
_MAX_PIPELINED = 16
_MAX_PIPELINED_BYTES = 64 * 1024
# How long the rest of a body is read and dropped, so that the client sees the answer.
_LINGER_S = 2.0
# A client for which answers wait must read this much in this time: 1 KiB a second.
_WINDOW_S = 60.0
_WINDOW_BYTES = 60 * 1024
# The parser accepts RTSP requests as HTTP; we refuse them.
_RTSP_METHODS = frozenset(
    (
        b"ANNOUNCE DESCRIBE FLUSH GET_PARAMETER PAUSE PLAY RECORD REDIRECT SETUP "
        b"SET_PARAMETER SOURCE TEARDOWN"
    ).split()
)
# A host by RFC 3986, section 3.2.2, where names may hold any character in use.
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w:.%]+\])(?::\d*)?")
# Blanks around a header's value are not part of it (RFC 9112, section 5.1).
_BLANKS = b" \t"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = (b"connection", b"close")
_CHUNKED = (b"transfer-encoding", b"chunked")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
}
_BODILESS = frozenset({204, 304})
# After more unknown heads in a row, a connection stops looking for known ones.
_MAX_UNKNOWN_HEADS = 32


class Http1Listening(Protocol):
    """What connections need of their listener."""

    # The `date` line of an answer's head.
    date_line: bytes
    heads: KnownHeads
    large_bodies: LargeBodies

    def read(self, request: Request) -> HeadReading: ...

    def join(self, connection: "Http1Connection") -> bool:
        """Count a new connection; return False if there are too many."""

    def leave(self, connection: "Http1Connection") -> None: ...

    def note_cut_off(self) -> None:
        """Count a connection that was ended because its client read too slowly."""

    def now(self) -> float: ...

    def refusal(self, error: ApiError) -> tuple[int, Headers, bytes]:
        """Render an error for a request that could not be read."""


class Http1Connection(asyncio.Protocol):
    """Parse a client's requests, and write the answers of their exchanges."""

    def __init__(self, listener: Http1Listening) -> None:
        self._listener = listener
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self.client = "unknown"
        # Closing: nothing more is read or written. Lingering: closing, but what the
        # client still sends is read and dropped.
        self._closing = self._lingering = False
        # Paused: the kernel takes no more of what we write. Deaf: a request was
        # broken, and no more are read.
        self._paused = self._draining = self._deaf = self._advancing = False
        # The exchange wants no more of the body for now (`hold_body`).
        self._held = False
        # At most the bytes so far of the head that is parsed; 0 between heads.
        self._head_bytes = 0
        # The size of the data that the parser has now.
        self._fed_bytes = 0
        self._began_head = self._upgrading = False
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        # The exchange that takes the body.
        self._receiver: Exchange | None = None
        self._body_open = False
        self._parsing = False
        # Bytes still to come of a body behind a known head, which the parser skips.
        self._body_left = 0
        # The head that is parsed, if it came in one piece.
        self._whole_head = b""
        # Heads since the last known one.
        self._unknown_heads = 0
        # The client said that it sends no request after this one.
        self._said_last = False
        # The request that is answered, and the requests behind it.
        self._current: Exchange | None = None
        self._request: Request | None = None
        self._answer_begun = self._chunked = self._bodiless = False
        self._waiting: deque[tuple[Exchange, Request]] = deque()
        # Bytes of their bodies.
        self._waiting_bytes = 0
        self._drained: list[asyncio.Future[None]] = []
        # What `count_unread` counted: the bound, the owner, the bytes.
        self._unread: tuple[Shares, Hashable, int] | None = None
        # When the connection began to wait for its client.
        self._since = 0.0
        # Bytes written, and bytes the client had taken when the present window began.
        self._written_bytes = self._window_bytes = 0
        self._window_since = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._since = self._window_since = self._listener.now()
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and peer:
            self.client = str(peer[0])
        if not self._listener.join(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._listener.leave(self)
        self._count_read()
        self._let_writers_go()
        self._receiver = self._parser = None
        current, self._current = self._current, None
        waiting, self._waiting = self._waiting, deque()
        if current is not None:
            current.client_left()
        for exchange, _ in waiting:
            exchange.client_left()

    def eof_received(self) -> bool:
        # A client that closes its half has most often left. We cannot see which have
        # not, so no model runs for any of them.
        return False

    def data_received(self, data: bytes) -> None:
        while data and not (self._closing or self._deaf):
            if self._body_left:
                data = self._take_body(data)
                continue
            known = None
            if not self._parsing and not self._said_last:
                known = self._find_known(data)
            if known is None:
                self._parse(data)
                return
            data = self._take_known(known, data)

    def _find_known(self, data: bytes) -> KnownHead | None:
        if self._unknown_heads > _MAX_UNKNOWN_HEADS:
            return None
        known, self._whole_head = self._listener.heads.find(data)
        if known is None:
            self._unknown_heads += 1
        else:
            self._unknown_heads = 0
        return known

    def _take_known(self, known: KnownHead, data: bytes) -> bytes:
        """Open the exchange of a known head; return the data that is not used yet."""
        exchange = known.reading.open(self)
        if (
            self._current is not None
            or self._waiting
            or self._paused
            or len(data) < known.end
        ):
            length = self._body_left = known.end - known.start
            self._receive(exchange, known.request)
            body = data[known.start :]
            # An exchange that waits for its body has checked the length.
            waited_for = self._current is exchange and self._receiver is exchange
            apart = (
                waited_for
                and not self._held
                and self._listener.large_bodies.begin(self, length, body)
            )
            if not apart:
                return body
            self._transport.set_protocol(apart)
            return b""
        exchange.body_received(data[known.start : known.end])
        exchange.body_complete()
        self._begin(exchange, known.request)
        return data[known.end :]

    def take_large_body(self, body: bytearray) -> None:
        """Take a body that a LargeBody has read, and go on behind it."""
        self._transport.set_protocol(self)
        if self._closing:
            return
        self._body_left = 0
        self.on_body(body)
        self.on_message_complete()

    def _take_body(self, data: bytes) -> bytes:
        """Hand on the body behind a known head; return the data behind that body."""
        size = len(data)
        left = self._body_left
        if size < left:
            self._body_left = left - size
            self.on_body(data)
            return b""
        self._body_left = 0
        self.on_body(data if size == left else data[:left])
        self.on_message_complete()
        return data[left:]

    def _parse(self, data: bytes) -> None:
        self._began_head = False
        self._fed_bytes = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, ApiError):
                self._refuse(error.__context__)
                return
            logger.exception("connection_failed")
            self.abort()
            return
        except httptools.HttpParserError:
            self._refuse(_invalid("Invalid HTTP request received."))
            return
        if self._head_bytes and not self._began_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_UNFINISHED_HEADER_BYTES:
                self._refuse(_too_large())

    def pause_writing(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._count_read()
        self._let_writers_go()
        # Requests that came meanwhile have not begun.
        self._next()

    # httptools

    def on_message_begin(self) -> None:
        self._parsing = True
        self._head_bytes = self._fed_bytes
        self._began_head = True
        if self._current is None:
            self._since = self._listener.now()
        self._target = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers must not be merged into the head (RFC 9110, section 6.5.1), and their
        # size has no limit, so they are dropped.
        if not self._body_open:
            self._headers.append((name.lower(), value.strip(_BLANKS)))

    def on_headers_complete(self) -> None:
        most_bytes = self._head_bytes
        if not self._began_head:
            most_bytes += self._fed_bytes
        self._head_bytes = 0
        if self._closing:
            return
        if most_bytes > _MAX_HEADER_BYTES:
            self._check_size()
        parser = self._parser
        method, version = parser.get_method(), parser.get_http_version()
        http_1_0 = version == "1.0"
        if (version != "1.1" and not http_1_0) or method in _RTSP_METHODS:
            raise _invalid("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        self._check_fields(http_1_0=http_1_0)
        request = Request(
            method,
            self._target,
            self._headers,
            http_1_0,
            not http_1_0 and parser.should_keep_alive(),
        )
        self._said_last = not request.keep_alive
        self._upgrading = parser.should_upgrade()
        reading = self._listener.read(request)
        head, self._whole_head = self._whole_head, b""
        if head and not self._upgrading:
            self._listener.heads.remember(head, request, reading)
        self._receive(reading.open(self), request)

    def _check_size(self) -> None:
        size = len(self._target) + sum(len(n) + len(v) + 4 for n, v in self._headers)
        if size > _MAX_HEADER_BYTES:
            raise _too_large()

    def _check_fields(self, *, http_1_0: bool) -> None:
        """Raise ApiError for a bad Host or Transfer-Encoding (RFC 9112, 3.2 and 6.1).

        Two credentials are refused here and not in the plan, because the site must not
        get such a request either.
        """
        hosts = 0
        for name, value in self._headers:
            if name == b"host":
                hosts += 1
                if _HOST.fullmatch(value) is None:
                    raise _invalid("The Host header names no host.")
            elif name == b"transfer-encoding" and (
                http_1_0 or value.lower() != b"chunked"
            ):
                raise _invalid("Transfer-Encoding may be `chunked` in HTTP/1.1.")
        call_headers.require_one_credential(self._headers)
        if hosts > 1 or (not hosts and not http_1_0):
            raise _invalid("A request must have one Host header.")

    def _receive(self, exchange: Exchange, request: Request) -> None:
        """Let an exchange take the body that follows, and begin when it is its turn."""
        self._receiver = exchange
        self._body_open = True
        if self._current is None and not (self._waiting or self._paused):
            self._begin(exchange, request)
            return
        self._waiting.append((exchange, request))
        if len(self._waiting) >= _MAX_PIPELINED:
            self._transport.pause_reading()

    def on_body(self, data: bytes | bytearray) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        receiver.body_received(data)
        if receiver is not self._current:
            self._waiting_bytes += len(data)
            if self._waiting_bytes > _MAX_PIPELINED_BYTES:
                self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._parsing = self._body_open = False
        receiver = self._receiver
        if receiver is not None:
            self._receiver = None
            receiver.body_complete()
        elif self._current is None and not self._closing:
            # The rest of this body came after its request was answered.
            self._next()

    # For exchanges

    @property
    def left(self) -> bool:
        return self._closing

    def invite(self) -> None:
        """Write 100 Continue, for which the client waits (RFC 9110, section 10.1.1)."""
        if not self._closing and not self._answer_begun:
            self._write(_CONTINUE)

    def pause_body(self) -> None:
        if not self._closing:
            self._transport.pause_reading()

    def hold_body(self) -> None:
        """Read nothing until `release_body`, even if `resume_body` is called."""
        self._held = True
        self.pause_body()

    def release_body(self) -> None:
        self._held = False
        self.resume_body()

    def resume_body(self) -> None:
        if not (
            self._closing
            or self._held
            or self._paused
            or len(self._waiting) >= _MAX_PIPELINED
            or self._waiting_bytes > _MAX_PIPELINED_BYTES
        ):
            self._transport.resume_reading()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Write one whole answer, which has a content-length, and end the exchange."""
        request = self._request
        if self._closing or request is None:
            return
        if not request.keep_alive:
            headers = [*headers, _CLOSE]
        head = self._head(status, headers)
        if request.method == b"HEAD":
            body = b""
        self._written_bytes += len(head) + len(body)
        if len(body) > _LARGE_BYTES:
            # uvloop sends both together; joining them would copy the body.
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)
        self._end(keep_alive=request.keep_alive)

    def count_unread(self, unread: Shares, owner: Hashable) -> None:
        """Count the bytes that the client has not read, until it has read them.

        If the owner's share is used up, the client is cut off.
        """
        size = self._transport.get_write_buffer_size()
        if not self._paused or self._unread is not None or not size:
            return
        if unread.take(owner, size):
            self._unread = (unread, owner, size)
        else:
            self._cut_off()

    def answer_and_close(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer and close, without waiting for the rest of the request."""
        if self._request is not None:
            self._request = self._request._replace(keep_alive=False)
        self.answer(status, headers, body)

    def begin(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Write the head of an answer, and the first part of its body."""
        request = self._request
        if self._closing or request is None:
            return
        self._answer_begun = True
        self._chunked = False
        if any(n == b"connection" and b"close" in v.lower() for n, v in headers):
            request = self._request = request._replace(keep_alive=False)
        elif not request.keep_alive:
            headers = [*headers, _CLOSE]
        self._bodiless = request.method == b"HEAD" or status in _BODILESS
        if self._bodiless:
            body = b""
        if status in _BODILESS:
            # RFC 9110, section 8.6: a length here would be that of another answer.
            headers = [header for header in headers if header[0] != b"content-length"]
        elif not self._bodiless and not any(
            name == b"content-length" for name, _ in headers
        ):
            # In HTTP/1.0 the end of the connection is the end of the body.
            self._chunked = not request.http_1_0
            if self._chunked:
                headers = [*headers, _CHUNKED]
        self._write(self._head(status, headers) + self._framed(body))

    def write(self, body: bytes) -> None:
        """Write more of an answer's body; wait for `drained` before much more."""
        request = self._request
        if self._closing or request is None or self._bodiless or not body:
            return
        self._write(self._framed(body))

    def finish(self, *, keep_alive: bool = True) -> None:
        """End the answer; `keep_alive=False` if it was cut short."""
        request = self._request
        if self._closing or request is None:
            return
        if self._chunked and keep_alive:
            self._write(b"0\r\n\r\n")
        self._end(keep_alive=keep_alive and request.keep_alive)

    async def drained(self) -> None:
        """Wait until the kernel has taken what was written, or the client has left."""
        if self._paused and not self._closing:
            future = asyncio.get_running_loop().create_future()
            self._drained.append(future)
            await future

    def abort(self) -> None:
        """Hang up without another word."""
        self._closing = True
        self._transport.abort()

    # For the listener

    @property
    def idle(self) -> bool:
        """Return whether there is no request, not even the start of one."""
        return not (self._current or self._waiting or self._head_bytes)

    def drain(self) -> None:
        """Close after the last request received so far, or after the next one."""
        self._draining = True
        if not self._waiting and self._request is not None:
            self._request = self._request._replace(keep_alive=False)

    def close(self) -> None:
        """Close once what was written has left."""
        if self._closing:
            return
        self._closing = True
        if self._body_open and self._transport.can_write_eof():
            # Closing with unread bytes would reset the connection, and the client could
            # lose the answer (RFC 9112, section 9.6).
            self._lingering = True
            self._receiver = None
            self._since = self._listener.now()
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def sweep(
        self, now: float, *, header_timeout_s: float, idle_timeout_s: float
    ) -> None:
        """Close if the client takes too long: to send, to read, or to close."""
        if self._reads_too_slowly(now):
            self._cut_off()
            return
        current = self._current
        if current is not None:
            current.sweep(now)
            return
        if self._waiting:
            # They wait until the client has read an answer.
            return
        waited = now - self._since
        if self._lingering:
            if waited > _LINGER_S:
                self.abort()
        elif waited > (header_timeout_s if self._head_bytes else idle_timeout_s):
            self.close()

    def _reads_too_slowly(self, now: float) -> bool:
        """Return whether answers wait and the client reads too few bytes of them."""
        unread = self._transport.get_write_buffer_size()
        taken = self._written_bytes - unread
        if not unread or taken - self._window_bytes >= _WINDOW_BYTES:
            self._window_bytes, self._window_since = taken, now
        return now - self._window_since > _WINDOW_S

    # Between requests

    def _begin(self, exchange: Exchange, request: Request) -> None:
        if self._draining and not self._waiting:
            request = request._replace(keep_alive=False)
        self._current, self._request = exchange, request
        self._answer_begun = False
        exchange.start()

    def _end(self, *, keep_alive: bool) -> None:
        self._current = self._request = None
        self._since = self._listener.now()
        if not self._waiting:
            # Drop the rest of this body, if there is one.
            self._receiver = None
        if not keep_alive:
            self.close()
        elif not self._body_open or self._waiting:
            self._next()
        else:
            # The exchange may have paused reading; the rest must be read past.
            self.resume_body()

    def _next(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        # While an answer waits for the client, the next one does not begin.
        while (
            self._waiting
            and self._current is None
            and not (self._paused or self._closing)
        ):
            exchange, request = self._waiting.popleft()
            if not self._waiting:
                self._waiting_bytes = 0
            self._begin(exchange, request)
        self._advancing = False
        self.resume_body()

    def _decline_upgrade(self, rest: bytes) -> None:
        """Ignore a client's offer to upgrade, and go on (RFC 9110, section 7.8).

        The parser stops at the end of the head, but some clients send a body with the
        offer. A new parser reads it: it first gets a head that frames the body equally.
        """
        self._upgrading = False
        framing = [
            b"%b: %b\r\n" % header
            for header in self._headers
            if header[0] in (b"content-length", b"transfer-encoding")
        ]
        head = b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing)
        self._parser = httptools.HttpRequestParser(_Resumed(self))
        self.data_received(head)
        if rest:
            self.data_received(rest)

    def _refuse(self, error: ApiError) -> None:
        """Answer a broken request after those before it, and close."""
        self._deaf = True
        broken, self._receiver = self._receiver, None
        if broken is not None:
            broken.client_left()
            if broken is self._current:
                if self._answer_begun:
                    # The client would read the new head as a part of that answer.
                    self.abort()
                    return
                self._current = None
            else:
                self._waiting.pop()
        if self._current is not None or self._waiting:
            self.drain()
            return
        status, headers, body = self._listener.refusal(error)
        self._write(self._head(status, [*headers, _CLOSE]) + body)
        self._body_open = True
        self.close()

    def _cut_off(self) -> None:
        logger.info("client_cut_off", client=self.client)
        self._listener.note_cut_off()
        self.abort()

    def _count_read(self) -> None:
        if self._unread is not None:
            unread, owner, size = self._unread
            self._unread = None
            unread.give_back(owner, size)

    def _let_writers_go(self) -> None:
        waiting, self._drained = self._drained, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _write(self, data: bytes) -> None:
        self._written_bytes += len(data)
        self._transport.write(data)

    def _framed(self, body: bytes) -> bytes:
        if not self._chunked or not body:
            return body
        return b"%x\r\n%b\r\n" % (len(body), body)

    def _head(self, status: int, headers: Headers) -> bytes:
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        lines = list(map(b": ".join, headers))
        lines.append(b"\r\n")
        head = b"%b%b%b" % (line, self._listener.date_line, b"\r\n".join(lines))
        # A name from the database or a header from the site must not add a line.
        if head.count(b"\n") != len(lines) + 2:
            raise ValueError("a header holds a line break")
        return head


def _invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_HEADER, message)


def _too_large() -> ApiError:
    return ApiError(
        ErrorCode.HEADERS_TOO_LARGE,
        f"The target and headers may have at most {_MAX_HEADER_BYTES} bytes.",
    )


class _Resumed:
    """Pass on a parser's callbacks, except those of its first head."""

    def __init__(self, connection: Http1Connection) -> None:
        self._connection = connection
        self._in_first_head = True

    def on_message_begin(self) -> None:
        if not self._in_first_head:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._in_first_head:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_first_head:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._in_first_head:
            self._connection.on_headers_complete()
        self._in_first_head = False

    def on_body(self, data: bytes | bytearray) -> None:
        self._connection.on_body(data)

    def on_message_complete(self) -> None:
        self._connection.on_message_complete()
