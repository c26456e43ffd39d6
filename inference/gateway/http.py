"""HTTP on the public port: uvicorn's protocol, with one write per answer."""

import asyncio
import secrets
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from inference.error_rendering import render
from inference.errors import ApiError, ErrorCode

# Name of the ASGI extension that gives and takes whole messages: a GatewayProtocol.
WHOLE_MESSAGES = "modelyard.whole_messages"
_MAX_HEADER_BYTES = 64 * 1024


class OneWriteTransport:
    """Joins an answer's head with the first of its body.

    uvicorn writes them one after the other and uvloop sends each at once; a system call
    and a packet for the client to wake up for cost as much as reading a small request.
    A head waits for the next write, which may be empty, or for the end of its answer.
    """

    __slots__ = ("_held", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = b""

    def write(self, data: bytes) -> None:
        held = self._held
        if held:
            self._held = b""
            self._transport.write(held + data)
        elif data[:5] == b"HTTP/" and data[:12] != b"HTTP/1.1 100":
            self._held = data
        else:
            self._transport.write(data)

    def write_through(self, data: bytes) -> None:
        self._transport.write(data)

    def flush(self) -> None:
        held = self._held
        if held:
            self._held = b""
            self._transport.write(held)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


class GatewayProtocol(HttpToolsProtocol):
    """Bounds headers, which httptools does not, and renders its own refusals alike."""

    # Of the request whose headers are being read.
    _header_bytes = 0
    # The request whose body is read whole, and up to which size.
    _collected: Any = None
    _collected_bytes = 0

    def connection_made(self, transport: Any) -> None:
        self._one_write = OneWriteTransport(transport)
        self._extensions = {WHOLE_MESSAGES: self}
        # It has all of a transport that uvicorn uses.
        super().connection_made(self._one_write)  # type: ignore[arg-type]

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # The connection, not the request: what can be reached from its own scope is
        # garbage that only the collector can find.
        scope: Any = self.scope
        scope["extensions"] = self._extensions

    def take_body(self, scope: Any) -> bytes | None:
        """Give the request's body if all of it is here, which spares a wait."""
        cycle = self.cycle
        if cycle.scope is not scope or cycle.more_body:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    def collect_body(self, scope: Any, max_bytes: int) -> None:
        """Wake the reader up at the end of its body, not at every piece of it.

        Nor is reading paused, which is right for what is relayed piece by piece. A body
        that grows beyond `max_bytes` is given away as it comes.
        """
        cycle = self.cycle
        if cycle.scope is not scope or not cycle.more_body or cycle.disconnected:
            return
        self._collected, self._collected_bytes = scope, max_bytes
        if len(cycle.body) <= max_bytes:
            cycle.message_event.clear()
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if (
            cycle.scope is self._collected
            and len(cycle.body) + len(body) <= self._collected_bytes
            and not cycle.response_complete
        ):
            cycle.body += body
        else:
            super().on_body(body)

    def send_answer(
        self,
        scope: Any,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> bool:
        """Send what the two messages of ASGI would; False: send those.

        uvicorn checks each header by two regular expressions, which takes as long as
        decoding a row. These are our own; they have a content-length and no
        `connection`.
        """
        cycle = self.cycle
        if (
            # Another request is pipelined behind this one.
            cycle.scope is not scope
            or cycle.response_started
            or cycle.disconnected
            or cycle.flow.write_paused
        ):
            return False
        lines = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            lines += (name, b": ", value, b"\r\n")
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        # Each line adds four parts but for the first, the last and `connection`.
        if head.count(b"\n") != (len(lines) - 2) // 4 + 2 + (not cycle.keep_alive):
            # A line break in a name from the database: uvicorn refuses it.
            return False
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        self._one_write.flush()
        self._one_write.write_through(head + body)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def on_response_complete(self) -> None:
        # Answers without a body: to HEAD, and 204.
        self._one_write.flush()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.parser is None or not self._reads_headers():
            self._header_bytes = 0
            return
        self._header_bytes += len(data)
        if self._header_bytes > _MAX_HEADER_BYTES:
            self.send_400_response("The request's headers are too large.")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, which the application never sees, in our shape."""
        if self.transport.is_closing():
            return
        error = ApiError(ErrorCode.INVALID_HEADER, msg)
        request_id = f"req_{secrets.token_hex(12)}"
        _, headers, body = render(error, request_id=request_id, now=time.time())
        head = [b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"]
        head += [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join(head) + b"\r\n" + body)
        self.transport.close()

    def _reads_headers(self) -> bool:
        cycle = self.cycle
        return cycle is None or cycle.scope["headers"] is not self.headers
