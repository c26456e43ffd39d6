"""Write the frames of a connection, and queue DATA that must wait.

All frames of one turn of the event loop are written together at its end. DATA is
written as far as the client's windows allow (RFC 9113, section 5.2) and while the
kernel takes it. What does not fit waits here, and streams take turns.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any

from inference.gateway.http2 import frames
from inference.gateway.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    HEADERS,
    MAX_WINDOW,
    SMALLEST_MAX_FRAME_BYTES,
    Code,
    ConnectionFault,
    Setting,
    StreamFault,
)
from inference.gateway.http2.header_blocks import EMPTY_TABLE
from inference.gateway.http2.limits import TURN_BYTES
from inference.gateway.http2.stream import Stream

_END = END_HEADERS | END_STREAM


class Outbox:
    """Write to one transport; `waiting_bytes` are queued and not yet written."""

    def __init__(self, transport: asyncio.Transport, head: bytes) -> None:
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()
        # Frames of this turn of the loop.
        self._unsent: list[bytes | memoryview] = []
        self._unsent_bytes = 0
        # The header block that begins every answer with a message.
        self._head = head
        self._answer = struct.Struct(f">IBI{len(head)}sIBI")
        # The client's limits: for the connection, for each new stream, for a frame.
        self._window = self._stream_window = DEFAULT_WINDOW
        self._frame_bytes = SMALLEST_MAX_FRAME_BYTES
        # The client has set the size of our header table. We use none, and our next
        # block must say so (RFC 7541, section 4.2).
        self._must_empty_table = False
        self.paused = False
        self.waiting: dict[int, Stream] = {}
        self.waiting_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write frames, together with all others of this turn of the loop."""
        if not self._unsent:
            self._loop.call_soon(self.flush)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes > TURN_BYTES:
            self.flush()

    def flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        self._unsent_bytes = 0
        if unsent and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    # The client's settings

    def apply(
        self, settings: Iterable[tuple[int, int]], streams: dict[int, Stream]
    ) -> None:
        """Apply the client's settings; raises ConnectionFault."""
        for name, value in settings:
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._resize_streams(value, streams)
            elif name == Setting.MAX_FRAME_SIZE:
                self._frame_bytes = value
            elif name == Setting.HEADER_TABLE_SIZE:
                self._must_empty_table = True

    def _resize_streams(self, window: int, streams: dict[int, Stream]) -> None:
        if any(
            window + stream.extra_window > MAX_WINDOW for stream in streams.values()
        ):
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window is too large")
        self._stream_window = window

    def open_window(self, increment: int) -> bool:
        """Enlarge the connection's window; return whether this opened it."""
        was_shut = self._window <= 0
        self._window += increment
        if self._window > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the window is too large")
        return was_shut and self._window > 0

    def open_stream_window(self, stream: Stream, increment: int) -> None:
        stream.extra_window += increment
        if self._stream_window + stream.extra_window > MAX_WINDOW:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "a window is too large")

    # Answers

    def answer(
        self, stream: Stream, prefix: bytes, body: bytes, trailers: bytes
    ) -> bool:
        """Send a whole answer; return whether all of it was written."""
        size = len(prefix) + len(body)
        if (
            size > self._window
            or size > self._stream_window + stream.extra_window
            or size > self._frame_bytes
            or self.paused
            or self._must_empty_table
        ):
            self.begin(stream)
            self.send(stream, prefix, body)
            return self.end(stream, trailers)
        self._window -= size
        head, stream_id = self._head, stream.stream_id
        self.write(
            b"".join(
                (
                    self._answer.pack(
                        len(head) << 8 | HEADERS,
                        END_HEADERS,
                        stream_id,
                        head,
                        size << 8 | DATA,
                        0,
                        stream_id,
                    ),
                    prefix,
                    body,
                    FRAME_HEAD.pack(len(trailers) << 8 | HEADERS, _END, stream_id),
                    trailers,
                )
            )
        )
        return True

    def refuse(self, stream: Stream, block: bytes) -> None:
        """Send an answer that is only a header block."""
        self._write_block(stream, block, _END)

    def begin(self, stream: Stream) -> None:
        """Send the head of an answer."""
        stream.begun = True
        self._write_block(stream, self._head, END_HEADERS)

    def send(self, stream: Stream, *parts: bytes) -> bool:
        """Send more of a body; return whether all of it was written."""
        if stream.outgoing is None:
            stream.outgoing = deque()
        for part in filter(None, parts):
            stream.outgoing.append(memoryview(part))
            self.waiting_bytes += len(part)
        if stream.stream_id in self.waiting:
            return False
        return self._go_on(stream)

    def end(self, stream: Stream, trailers: bytes) -> bool:
        """Send trailers after the body that waits; return whether they are written."""
        if stream.outgoing:
            stream.trailers = trailers
            return False
        self._write_block(stream, trailers, _END)
        return True

    def drop(self, stream: Stream) -> None:
        """Drop what waits of a stream."""
        self.waiting.pop(stream.stream_id, None)
        if stream.outgoing:
            self.waiting_bytes -= sum(map(len, stream.outgoing))
        stream.outgoing = None

    def pump(self, now: float) -> list[Stream]:
        """Write what the windows allow now; return the streams that wait no more."""
        through = []
        # Streams that could write nothing: they must not hold up the others.
        stuck = 0
        while stuck < len(self.waiting) and not self.paused and self._window > 0:
            stream_id, stream = next(iter(self.waiting.items()))
            del self.waiting[stream_id]
            before = self.waiting_bytes
            if self._write_some(stream):
                through.append(stream)
                continue
            self.waiting[stream_id] = stream
            if self.waiting_bytes == before:
                stuck += 1
            else:
                stuck = 0
                stream.stuck_since = now
        return through

    def pump_stream(self, stream: Stream, now: float) -> bool:
        """Write what one stream's window allows; return whether nothing waits now."""
        while stream.stream_id in self.waiting:
            before = self.waiting_bytes
            if self._write_some(stream):
                del self.waiting[stream.stream_id]
                return True
            if self.waiting_bytes == before:
                break
            stream.stuck_since = now
        return False

    def _go_on(self, stream: Stream) -> bool:
        if not self.paused and self._write_some(stream):
            return True
        self.waiting[stream.stream_id] = stream
        return False

    def _write_some(self, stream: Stream) -> bool:
        """Write DATA of a stream for one turn; return whether none is left."""
        outgoing = stream.outgoing
        turn = TURN_BYTES
        while outgoing:
            part = outgoing[0]
            room = min(
                self._window,
                self._stream_window + stream.extra_window,
                self._frame_bytes,
                turn,
            )
            if room <= 0 or self.paused:
                return False
            cut = part[:room]
            size = len(cut)
            if size == len(part):
                outgoing.popleft()
            else:
                outgoing[0] = part[size:]
            self._window -= size
            stream.extra_window -= size
            self.waiting_bytes -= size
            turn -= size
            self.write(FRAME_HEAD.pack(size << 8 | DATA, 0, stream.stream_id))
            self.write(cut)
        return True

    def _write_block(self, stream: Stream, block: bytes, flags: int) -> None:
        if self._must_empty_table:
            self._must_empty_table = False
            block = EMPTY_TABLE + block
        self.write(b"".join(self._block_frames(block, flags, stream.stream_id)))

    def _block_frames(self, block: bytes, flags: int, stream_id: int) -> list[bytes]:
        """Cut a header block into HEADERS and CONTINUATION frames."""
        most = self._frame_bytes
        found = []
        for start in range(0, len(block), most):
            last = start + most >= len(block)
            found.append(
                frames.frame(
                    HEADERS if start == 0 else frames.CONTINUATION,
                    (flags & END_STREAM if start == 0 else 0)
                    | (END_HEADERS if last else 0),
                    stream_id,
                    block[start : start + most],
                )
            )
        return found
