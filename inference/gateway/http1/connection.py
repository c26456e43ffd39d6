"""One client's connection: HTTP/1.1 (RFC 9112), parsed by httptools.

Requests are answered in their order. Nothing is made per request but the exchange that
answers it: no task, no timer, no event. Time-outs are looked after by one sweep over
all connections (`listener.py`). Clients that keep a connection send the same head again
and again: one that is known is not parsed, and its body is not copied by a parser.
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

_MAX_HEADER_BYTES = 64 * 1024
# Of one that has no end yet: what came before it in its first read counts, too.
_MAX_UNFINISHED_HEADER_BYTES = _MAX_HEADER_BYTES + 256 * 1024
_LARGE_BYTES = 64 * 1024
# Requests that wait behind the one that is answered; then reading stops.
_MAX_PIPELINED = 16
# Of their bodies; likewise.
_MAX_PIPELINED_BYTES = 64 * 1024
# For the rest of a body that nobody reads, so that the client sees the answer.
_LINGER_S = 2.0
# A client that lets answers wait must read so much in such a time: 1 KiB a second.
_WINDOW_S = 60.0
_WINDOW_BYTES = 60 * 1024
# The parser takes its requests for such of HTTP.
_OF_RTSP = frozenset(
    (
        b"ANNOUNCE DESCRIBE FLUSH GET_PARAMETER PAUSE PLAY RECORD REDIRECT SETUP "
        b"SET_PARAMETER SOURCE TEARDOWN"
    ).split()
)
# RFC 3986, section 3.2.2, as loosely as names are written.
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w:.%]+\])(?::\d*)?")
# Around a value they are no part of it (RFC 9112, section 5.1).
_BLANKS = b" \t"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = (b"connection", b"close")
_CHUNKED = (b"transfer-encoding", b"chunked")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
}
_BODILESS = frozenset({204, 304})
# Heads in a row that were not known; then a connection does not look any more.
_MAX_UNKNOWN_HEADS = 32


class Http1Listening(Protocol):
    """What connections share: their listener."""

    # The line of an answer's head that gives the time.
    date_line: bytes
    heads: KnownHeads
    large_bodies: LargeBodies

    def read(self, request: Request) -> HeadReading: ...

    def join(self, connection: "Http1Connection") -> bool:
        """Count one more connection; False: there are too many."""

    def leave(self, connection: "Http1Connection") -> None: ...

    def note_cut_off(self) -> None:
        """Count a client that read too slowly."""

    def now(self) -> float: ...

    def refusal(self, error: ApiError) -> tuple[int, Headers, bytes]:
        """Render an error for a request that could not be read."""


class Http1Connection(asyncio.Protocol):
    """Parses requests, and writes what their exchanges answer."""

    def __init__(self, place: Http1Listening) -> None:
        self._place = place
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self.client = "unknown"
        # Nothing is read or written any more, but for what a lingering one throws away.
        self._closing = self._lingering = False
        self._paused = self._draining = self._deaf = self._advancing = False
        # Who answers wants no more of the body for now.
        self._held = False
        # The request that is parsed: bytes of its head so far at most, 0 between
        # requests, and who takes its body.
        self._head_bytes = 0
        # Of what the parser is given now.
        self._fed_bytes = 0
        self._began_head = self._upgrading = False
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._receiver: Exchange | None = None
        self._body_open = False
        # The parser is in the middle of a request; what is left to come of a body that
        # it does not see.
        self._parsing = False
        self._body_left = 0
        # The head that is parsed, where it came whole; heads since a known one.
        self._whole_head = b""
        self._unknown_heads = 0
        # The client said that it sends no request after this one.
        self._said_last = False
        # The request that is answered, and those behind it.
        self._current: Exchange | None = None
        self._request: Request | None = None
        self._answer_begun = self._chunked = self._bodiless = False
        self._waiting: deque[tuple[Exchange, Request]] = deque()
        # Of the bodies of those behind it.
        self._waiting_bytes = 0
        self._drained: list[asyncio.Future[None]] = []
        # What counts for a customer of the answers that wait, and where.
        self._unread: tuple[Shares, Hashable, int] | None = None
        # Since when the client is waited for; it may not take for ever.
        self._since = 0.0
        # All that was written, and what had left of it when the present window began.
        self._written_bytes = self._window_bytes = 0
        self._window_since = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._since = self._window_since = self._place.now()
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and peer:
            self.client = str(peer[0])
        if not self._place.join(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._place.leave(self)
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
        # Whoever closes one half has most often left. As nothing tells these from the
        # others, no device works for either.
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
        known, self._whole_head = self._place.heads.find(data)
        if known is None:
            self._unknown_heads += 1
        else:
            self._unknown_heads = 0
        return known

    def _take_known(self, known: KnownHead, data: bytes) -> bytes:
        """Open the exchange of a known head; give the data behind what is used."""
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
            # Only for who waits for it, and so has found its length to be right.
            waited_for = self._current is exchange and self._receiver is exchange
            apart = (
                waited_for
                and not self._held
                and self._place.large_bodies.begin(self, length, body)
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
        """Go on behind a body that was read elsewhere."""
        self._transport.set_protocol(self)
        if self._closing:
            return
        self._body_left = 0
        self.on_body(body)
        self.on_message_complete()

    def _take_body(self, data: bytes) -> bytes:
        """Give the body that is awaited; return what comes behind it."""
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
        # What was not begun while an answer waited.
        self._next()

    # httptools

    def on_message_begin(self) -> None:
        self._parsing = True
        self._head_bytes = self._fed_bytes
        self._began_head = True
        if self._current is None:
            self._since = self._place.now()
        self._target = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes behind a body must not be merged into its head, and has no end
        # (RFC 9110, section 6.5.1).
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
        if (version != "1.1" and not http_1_0) or method in _OF_RTSP:
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
        reading = self._place.read(request)
        head, self._whole_head = self._whole_head, b""
        if head and not self._upgrading:
            self._place.heads.remember(head, request, reading)
        self._receive(reading.open(self), request)

    def _check_size(self) -> None:
        size = len(self._target) + sum(len(n) + len(v) + 4 for n, v in self._headers)
        if size > _MAX_HEADER_BYTES:
            raise _too_large()

    def _check_fields(self, *, http_1_0: bool) -> None:
        """Refuse requests for no host or with a coded body (RFC 9112, 3.2 and 6.1).

        Also two keys, here and not in the plan: the site gets no such request either.
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
        """Give the body that follows to an exchange, which begins in its turn."""
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
            # What was left of a body whose request is answered.
            self._next()

    # For exchanges

    @property
    def left(self) -> bool:
        return self._closing

    def invite(self) -> None:
        """Ask for a body that the client holds back (RFC 9110, section 10.1.1)."""
        if not self._closing and not self._answer_begun:
            self._write(_CONTINUE)

    def pause_body(self) -> None:
        if not self._closing:
            self._transport.pause_reading()

    def hold_body(self) -> None:
        """Read nothing until `release_body`, whatever else goes on."""
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
            # uvloop sends both at once; to join them would copy the body.
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)
        self._end(keep_alive=request.keep_alive)

    def count_unread(self, unread: Shares, owner: Hashable) -> None:
        """Count what the client has not taken of an answer until it has.

        It is cut off if its owner has its share of that.
        """
        size = self._transport.get_write_buffer_size()
        if not self._paused or self._unread is not None or not size:
            return
        if unread.take(owner, size):
            self._unread = (unread, owner, size)
        else:
            self._cut_off()

    def answer_and_close(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer, and take no more requests: the rest of this one is not waited for."""
        if self._request is not None:
            self._request = self._request._replace(keep_alive=False)
        self.answer(status, headers, body)

    def begin(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Write the head of an answer, and the first of its body."""
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
            # RFC 9110, section 8.6: a length would be that of another answer.
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
        """End an answer that `begin` began; without `keep_alive` it was cut short."""
        request = self._request
        if self._closing or request is None:
            return
        if self._chunked and keep_alive:
            self._write(b"0\r\n\r\n")
        self._end(keep_alive=keep_alive and request.keep_alive)

    async def drained(self) -> None:
        """Wait until what was written has left, or the client has."""
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
        """Tell whether nothing is being asked."""
        return not (self._current or self._waiting or self._head_bytes)

    def drain(self) -> None:
        """Answer what was asked, and what is asked next, but no more after it."""
        self._draining = True
        if not self._waiting and self._request is not None:
            self._request = self._request._replace(keep_alive=False)

    def close(self) -> None:
        """Close once what was written has left."""
        if self._closing:
            return
        self._closing = True
        if self._body_open and self._transport.can_write_eof():
            # To close with bytes unread would reset the connection, and the answer
            # with it (RFC 9112, section 9.6).
            self._lingering = True
            self._receiver = None
            self._since = self._place.now()
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def sweep(
        self, now: float, *, header_timeout_s: float, idle_timeout_s: float
    ) -> None:
        """Close if the client lets us wait: for a head, a request, its own end."""
        if self._reads_too_slowly(now):
            self._cut_off()
            return
        current = self._current
        if current is not None:
            current.sweep(now)
            return
        if self._waiting:
            # For the client to take an answer.
            return
        waited = now - self._since
        if self._lingering:
            if waited > _LINGER_S:
                self.abort()
        elif waited > (header_timeout_s if self._head_bytes else idle_timeout_s):
            self.close()

    def _reads_too_slowly(self, now: float) -> bool:
        """Tell whether answers wait for the client, and it takes too little of them."""
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
        self._since = self._place.now()
        if not self._waiting:
            # Nobody reads the rest of this body, if there is one.
            self._receiver = None
        if not keep_alive:
            self.close()
        elif not self._body_open or self._waiting:
            self._next()
        else:
            # Whoever did not want the rest of the body may have stopped reading.
            self.resume_body()

    def _next(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        # One answer at a time waits for the client.
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
        """Go on as HTTP/1.1 (RFC 9110, section 7.8).

        The parser stops at the end of the head. Another one reads the body, which some
        clients send along with the offer, after a head that says how it is framed.
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
        """Answer what is no request, after those before it, and hang up."""
        self._deaf = True
        broken, self._receiver = self._receiver, None
        if broken is not None:
            broken.client_left()
            if broken is self._current:
                if self._answer_begun:
                    # A head within its body would pass for a part of it.
                    self.abort()
                    return
                self._current = None
            else:
                self._waiting.pop()
        if self._current is not None or self._waiting:
            self.drain()
            return
        status, headers, body = self._place.refusal(error)
        self._write(self._head(status, [*headers, _CLOSE]) + body)
        self._body_open = True
        self.close()

    def _cut_off(self) -> None:
        logger.info("client_cut_off", client=self.client)
        self._place.note_cut_off()
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
        head = b"%b%b%b" % (line, self._place.date_line, b"\r\n".join(lines))
        # No name from a database and no answer of the site may add a line.
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
    """Passes a parser's callbacks on, but for those of a head that was read before."""

    def __init__(self, connection: Http1Connection) -> None:
        self._connection = connection
        self._read_before = True

    def on_message_begin(self) -> None:
        if not self._read_before:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._read_before:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._read_before:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._read_before:
            self._connection.on_headers_complete()
        self._read_before = False

    def on_body(self, data: bytes | bytearray) -> None:
        self._connection.on_body(data)

    def on_message_complete(self) -> None:
        self._connection.on_message_complete()
