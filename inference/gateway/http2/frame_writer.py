"""What a connection sends: answers, and those parts of them that must wait.

All that one turn of the loop brings leaves in one piece at its end. DATA does so as far
as the windows of the client go (RFC 9113, section 5.2) and while the kernel takes it;
what does not fit waits here and has its turns.
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
    """Writes to one transport; `waiting_bytes` have been given but not written."""

    def __init__(self, transport: asyncio.Transport, head: bytes) -> None:
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()
        # Of this turn.
        self._unsent: list[bytes | memoryview] = []
        self._unsent_bytes = 0
        # The header block that every answer with a message begins with.
        self._head = head
        self._answer = struct.Struct(f">IBI{len(head)}sIBI")
        # Of the connection, of each of its streams, and of a frame; the client's.
        self._window = self._stream_window = DEFAULT_WINDOW
        self._frame_bytes = SMALLEST_MAX_FRAME_BYTES
        # The client wants a smaller table than the one that both begin with; we have
        # none, and the next block must say so (RFC 7541, section 4.2).
        self._must_empty_table = False
        self.paused = False
        self.waiting: dict[int, Stream] = {}
        self.waiting_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write frames, with whatever else this turn brings."""
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
        """Keep to the client's settings from now on; raises ConnectionFault."""
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
        """Let more be sent of all streams; tells whether nothing could be before."""
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
        """Send a whole answer; tells whether all of it was written."""
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
        """Send an answer that is a header block only."""
        self._write_block(stream, block, _END)

    def begin(self, stream: Stream) -> None:
        """Send the head of an answer."""
        stream.begun = True
        self._write_block(stream, self._head, END_HEADERS)

    def send(self, stream: Stream, *parts: bytes) -> bool:
        """Send more of a body; tells whether all of it was written."""
        if stream.outgoing is None:
            stream.outgoing = deque()
        for part in filter(None, parts):
            stream.outgoing.append(memoryview(part))
            self.waiting_bytes += len(part)
        if stream.stream_id in self.waiting:
            return False
        return self._go_on(stream)

    def end(self, stream: Stream, trailers: bytes) -> bool:
        """Send the end of an answer, after what waits of it; tells whether it left."""
        if stream.outgoing:
            stream.trailers = trailers
            return False
        self._write_block(stream, trailers, _END)
        return True

    def drop(self, stream: Stream) -> None:
        """Forget what waits of a stream."""
        self.waiting.pop(stream.stream_id, None)
        if stream.outgoing:
            self.waiting_bytes -= sum(map(len, stream.outgoing))
        stream.outgoing = None

    def pump(self, now: float) -> list[Stream]:
        """Send what may leave by now; gives the streams of which nothing waits."""
        through = []
        # A stream without a window must not keep the others from their turns.
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
        """Send what may leave of one stream; tells whether nothing waits any more."""
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
        """Write DATA for one turn; tells whether nothing is left of it."""
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
        """Cut a header block into a frame and its continuations."""
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
