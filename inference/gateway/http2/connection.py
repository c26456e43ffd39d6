"""One client's HTTP/2 connection (RFC 9113), as far as gRPC needs it.

Each request makes one object, the stream that answers it: no task, no timer, no event.
One sweep over all connections ends those that are too slow. `limits.py` defines every
limit on what a client may do.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

import structlog

from inference.gateway.http2 import frames, limits
from inference.gateway.http2.closed_streams import Leftovers
from inference.gateway.http2.frame_reader import Intake
from inference.gateway.http2.frame_writer import Outbox
from inference.gateway.http2.frames import Code, ConnectionFault, Setting, StreamFault
from inference.gateway.http2.header_blocks import Fields, HeaderReader
from inference.gateway.http2.heartbeat import Heartbeat, Pulse
from inference.gateway.http2.large_messages import Grants, LargeMessages
from inference.gateway.http2.reading_turns import ReadingTurns
from inference.gateway.http2.stream import Stream

logger = structlog.get_logger(__name__)

_GREETING = frames.settings(
    {
        Setting.MAX_CONCURRENT_STREAMS: limits.MAX_STREAMS,
        Setting.MAX_HEADER_LIST_SIZE: limits.MAX_HEADER_LIST_BYTES,
    }
) + frames.window_update(0, limits.CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
_DRAIN_PING = b"draining"
_ALIVE_PING = b"alive???"
_ANY_STREAM = 2**31 - 1


class Http2Listening(Protocol):
    """What connections need of their listener."""

    # The header block that begins every answer with a message.
    answer_head: bytes
    turns: ReadingTurns
    large_messages: LargeMessages

    def join(self, connection: "Http2Connection") -> bool:
        """Count a new connection; return False if there are too many."""

    def leave(self, connection: "Http2Connection") -> None: ...

    def now(self) -> float: ...

    def interpret(self, fields: Fields) -> Any:
        """Read the head of a request; raises StreamFault if it is malformed."""

    def open(
        self, connection: "Http2Connection", stream_id: int, head: Any
    ) -> Stream: ...

    def close(self, stream: Stream) -> None:
        """Release what a stream held, which is over."""


class Http2Connection(asyncio.Protocol):
    """Act on a client's frames, and write the answers of its streams."""

    def __init__(self, listener: Http2Listening) -> None:
        self._listener = listener
        self._transport: Any = None
        self._outbox: Outbox
        self.client = "unknown"
        self._closing = False
        self._intake = Intake(self, listener.now)
        self._header_reader: HeaderReader[Any] = HeaderReader(
            listener.interpret, self._spend_header_bytes
        )
        self.streams: dict[int, Stream] = {}
        self._last_stream_id = 0
        self._leftovers = Leftovers()
        # Bytes of DATA read since the connection's window was last opened.
        self._unreturned_bytes = 0
        self.grants = Grants(self.open_window, listener.large_messages)
        self._allowances = limits.Allowances()
        # Draining: the client was told to leave. Final: streams that it opens from now
        # on are refused.
        self._draining = self._final = False
        # When the connection began to wait for its client; when the last sweep was.
        self._since = self._swept = listener.now()
        self._heartbeat = Heartbeat(self._since)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._outbox = Outbox(self._transport, self._listener.answer_head)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and peer:
            self.client = str(peer[0])
        if not self._listener.join(self):
            self.abort()
            return
        self._outbox.write(_GREETING)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self._intake.stopped = True
        self._listener.leave(self)
        self._abandon_streams()

    def eof_received(self) -> bool:
        # A gRPC client closes its half only when it leaves.
        return False

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._heartbeat.heard = True
        self._read(data)

    def pause_writing(self) -> None:
        # Read nothing from a client that does not read our answers, not even control
        # frames: they are answered too.
        self._outbox.paused = True
        if not self._closing:
            self._since = self._listener.now()
            self._stop_reading()

    def resume_writing(self) -> None:
        self._outbox.paused = False
        if not self._closing:
            self._pump()
            # Do not read here: the transport may call this while a frame is handled.
            self._await_turn()

    # Reading

    def _read(self, data: bytes) -> None:
        waits = self._intake.stopped
        try:
            self._intake.read(data)
        except ConnectionFault as fault:
            self._break_off(fault)
        except Exception:
            # A fault of one connection must not stop the others.
            logger.exception("connection_failed")
            self.abort()
        if self._intake.stopped and not waits and not self._closing:
            self._transport.pause_reading()
            self._await_turn()

    def _await_turn(self) -> None:
        """Wait for a turn to read on, unless there is another reason to stop.

        `resume_writing` and the sweep call this again when that reason may be over.
        """
        if self._may_read_on():
            self._listener.turns.wait(self._read_on)

    def _may_read_on(self) -> bool:
        return (
            self._intake.stopped
            and not self._closing
            and not self._outbox.paused
            and not self._allowances.overdrawn
        )

    def _read_on(self) -> None:
        if not self._may_read_on():
            return
        self._intake.stopped = False
        self._read(b"")
        if not self._intake.stopped:
            self._transport.resume_reading()

    def _spend(self, allowance: limits.Allowance, count: int, text: str) -> None:
        """Take from an allowance; raises ConnectionFault if it is used up.

        A trusted connection is not read until the allowance has refilled instead.
        """
        if allowance.spend(count):
            return
        if not self._allowances.trusted:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, text)
        self._stop_reading()

    def _stop_reading(self) -> None:
        self._intake.stopped = True
        self._transport.pause_reading()

    # Taker

    def take_data(
        self, stream_id: int, payload: bytes, *, padded: bool, ended: bool
    ) -> None:
        length = len(payload)
        self._unreturned_bytes += length
        # The connection's window needs no check: it is opened as bytes are read, so
        # more than a frame is always left.
        if self._unreturned_bytes >= limits.CONNECTION_UPDATE:
            self._outbox.write(frames.window_update(0, self._unreturned_bytes))
            self._unreturned_bytes = 0
        stream = self.streams.get(stream_id)
        if stream is None:
            self._require_opened(stream_id)
            # It may have been under way when we ended the stream.
            if not self._leftovers.take(stream_id, length, ended=ended):
                self.take_noise()
            return
        if stream.ended:
            raise StreamFault(Code.STREAM_CLOSED, "DATA after the end")
        stream.window -= length
        if stream.window < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "more than its window")
        if padded:
            payload = frames.unpadded(payload)
        if ended:
            stream.ended = True
        elif not payload:
            self.take_noise()
        if stream.body_left is not None:
            stream.count_body(len(payload))
        stream.received(payload)

    def take_block(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        if stream_id <= self._last_stream_id:
            self._take_trailers(stream_id, block, ended=ended)
            return
        self._last_stream_id = stream_id
        head, unseen_bytes = self._header_reader.kept.get(block), 0
        if head is None:
            head = self._header_reader.read(block)
            unseen_bytes = self._header_reader.cost_bytes
        if (
            self._final
            or len(self.streams) >= limits.MAX_STREAMS
            or self._outbox.waiting_bytes > limits.MAX_UNREAD_BYTES
        ):
            raise StreamFault(Code.REFUSED_STREAM, "too much at once")
        stream = self.streams[stream_id] = self._listener.open(self, stream_id, head)
        stream.ended = ended
        stream.unseen_bytes = unseen_bytes
        if ended:
            stream.count_body(0)
        stream.opened()

    def _take_trailers(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        fields = self._header_reader.fields(block)
        if any(name.startswith(b":") for name, _ in fields):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream is opened again")
        stream = self.streams.get(stream_id)
        if stream is None and ended and self._leftovers.end(stream_id):
            return
        self.take_noise()
        if stream is None:
            return
        if stream.ended:
            raise StreamFault(Code.STREAM_CLOSED, "HEADERS after the end")
        if not ended:
            raise StreamFault(Code.PROTOCOL_ERROR, "trailers end a stream")
        stream.ended = True
        stream.count_body(0)
        stream.received(b"")

    def take_settings(self, settings: Iterable[tuple[int, int]]) -> None:
        self._outbox.apply(settings, self.streams)
        self._outbox.write(frames.SETTINGS_ACK)
        self._pump()

    def take_ping(self, payload: bytes) -> None:
        self._outbox.write(frames.ping(payload, ack=True))

    def take_pong(self, payload: bytes) -> None:
        if payload == _DRAIN_PING and self._draining:
            self.finish_draining()

    def take_window_update(self, stream_id: int, increment: int) -> None:
        if stream_id == 0:
            self._open_all_windows(increment)
            return
        stream, before = self.streams.get(stream_id), self._outbox.waiting_bytes
        if stream is None:
            self._require_opened(stream_id)
            self.take_noise()
        elif not increment:
            self.take_noise()
            raise StreamFault(Code.PROTOCOL_ERROR, "a window opened by 0")
        else:
            self._outbox.open_stream_window(stream, increment)
            self._pump_stream(stream)
            if self._outbox.waiting_bytes == before:
                self._opened_for_nothing(increment)

    def _open_all_windows(self, increment: int) -> None:
        if not increment:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a window opened by 0")
        was_shut = self._outbox.open_window(increment)
        if not was_shut or increment < limits.SMALL_UPDATE_BYTES:
            # Looking at all that waits costs more than so few bytes are worth.
            self._opened_for_nothing(increment)
        if was_shut:
            # If it was open, what waits does so for another window.
            self._pump()

    def _opened_for_nothing(self, increment: int) -> None:
        if not self._outbox.waiting or increment < limits.SMALL_UPDATE_BYTES:
            self.take_noise()

    def take_reset(self, stream_id: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._require_opened(stream_id)
            if not self._leftovers.end(stream_id):
                self.take_noise()
            return
        self._forget(stream)
        stream.client_left()
        self._spend(self._allowances.resets, 1, "too many streams given up")
        self._close_if_drained()

    def take_noise(self) -> None:
        self._spend(self._allowances.noise, 1, "too many empty frames")

    def take_fault(self, stream_id: int, fault: StreamFault) -> None:
        self._reset(stream_id, fault.code)

    def _require_opened(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id > self._last_stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a frame of no stream")

    def _spend_header_bytes(self, count: int) -> None:
        self._spend(self._allowances.header_bytes, count, "too many headers")

    # For streams

    def answer(
        self, stream: Stream, prefix: bytes, body: bytes, trailers: bytes
    ) -> None:
        """Send a whole answer, and end the stream."""
        if stream.closed or self._closing:
            return
        self._credit(stream)
        if self._outbox.answer(stream, prefix, body, trailers):
            self._complete(stream)
        else:
            stream.stuck_since = self._listener.now()
            self._pump_stream(stream)

    def refuse(self, stream: Stream, block: bytes) -> None:
        """Answer with a header block only, and end the stream."""
        if stream.closed or self._closing:
            return
        if stream.known:
            self._credit(stream)
        self._outbox.refuse(stream, block)
        self._complete(stream)

    def send(self, stream: Stream, prefix: bytes, body: bytes) -> None:
        """Send a part of an answer; calls `stream.sent` once it has been written."""
        if stream.closed or self._closing:
            return
        if not stream.begun:
            self._outbox.begin(stream)
        self._credit(stream)
        if self._outbox.send(stream, prefix, body):
            stream.sent()
        else:
            stream.stuck_since = self._listener.now()
            self._pump_stream(stream)

    def end(self, stream: Stream, trailers: bytes) -> None:
        """End an answer that was sent in parts."""
        if stream.closed or self._closing:
            return
        if not stream.begun:
            self._outbox.begin(stream)
        if stream.known:
            self._credit(stream)
        if self._outbox.end(stream, trailers):
            self._complete(stream)

    def _credit(self, stream: Stream) -> None:
        """Refill the allowances for a stream that is answered."""
        self._allowances.answered(stream.unseen_bytes, known=stream.known)
        stream.unseen_bytes = 0

    def open_window(self, stream: Stream, count: int) -> None:
        """Let the client send `count` more bytes on a stream."""
        stream.window += count
        self._outbox.write(frames.window_update(stream.stream_id, count))

    def abort(self) -> None:
        """Hang up without another word."""
        self._closing = self._intake.stopped = True
        self._transport.abort()

    # For the listener

    def drain(self) -> None:
        """Tell the client to leave; answer what it has asked, also what is under way.

        RFC 9113, section 6.8: GOAWAY goes out with a ping. When the client answers the
        ping, all that it asked before it read GOAWAY has come.
        """
        if self._draining or self._closing:
            return
        self._draining = True
        self._heartbeat.asked(self._listener.now())
        self._outbox.write(
            frames.goaway(_ANY_STREAM, Code.NO_ERROR) + frames.ping(_DRAIN_PING)
        )
        for stream in list(self.streams.values()):
            stream.drain()

    def finish_draining(self) -> None:
        """Refuse all streams opened from now on, and close after the last answer."""
        if not self._closing and not self._final:
            self._final = True
            last = self._last_stream_id
            self._outbox.write(frames.goaway(last, Code.NO_ERROR))
            # Streams that were opened since `drain` do not know yet.
            for stream in list(self.streams.values()):
                stream.drain()
            self._close_if_drained()

    def cut_off(self) -> None:
        """End all streams with a last answer, and close."""
        self.finish_draining()
        for stream in list(self.streams.values()):
            stream.cut_off()
        if not self._closing:
            # Streams that are left wait for a client that does not read.
            self._close()

    def sweep(self, now: float) -> None:
        """Close if the client takes too long: to send, to read, or to close."""
        self._allowances.pass_time(now - self._swept)
        self._swept = now
        self._await_turn()
        if self._closing:
            # The last answers may not have left yet.
            unsent = self._transport.get_write_buffer_size()
            if now - self._since > (limits.STALL_S if unsent else limits.LINGER_S):
                self._transport.abort()
        elif self._outbox.paused:
            if now - self._since > limits.STALL_S:
                self.abort()
        elif self._intake.waits:
            if now - self._intake.since > limits.GREETING_S:
                self._break_off(ConnectionFault(Code.SETTINGS_TIMEOUT, "too slow"))
        else:
            self._look_for_life(now)
            self._sweep_streams(now)

    def _look_for_life(self, now: float) -> None:
        sign = self._heartbeat.look(now, busy=bool(self.streams))
        if sign is Pulse.GONE:
            self.abort()
        elif sign is Pulse.IDLE:
            self.drain()
        elif sign is Pulse.SILENT:
            self._heartbeat.asked(now)
            self._outbox.write(frames.ping(_ALIVE_PING))

    def _sweep_streams(self, now: float) -> None:
        for stream in list(self.streams.values()):
            stuck = stream.stream_id in self._outbox.waiting
            if stuck and now - stream.stuck_since > limits.STALL_S:
                self._reset(stream.stream_id, Code.CANCEL)
            elif not stream.closed:
                stream.sweep(now)

    # Ends

    def _pump(self) -> None:
        if not self._outbox.waiting:
            return
        for stream in self._outbox.pump(self._listener.now()):
            self._sent(stream)

    def _pump_stream(self, stream: Stream) -> None:
        """Write what waits of one stream, whose own window was opened."""
        if self._outbox.pump_stream(stream, self._listener.now()):
            self._sent(stream)

    def _sent(self, stream: Stream) -> None:
        if stream.closed:
            return
        if stream.trailers is not None:
            self._outbox.end(stream, stream.trailers)
            self._complete(stream)
        else:
            stream.sent()

    def give_up(self, stream: Stream) -> None:
        """Reset a stream in the middle of its answer, for which there is no room."""
        self._reset(stream.stream_id, Code.CANCEL)

    def _complete(self, stream: Stream) -> None:
        """End a stream that is answered, even if its client has more to send."""
        self._forget(stream)
        if not stream.ended:
            self._leftovers.add(stream.stream_id, stream.window)
            self._outbox.write(frames.rst_stream(stream.stream_id, Code.NO_ERROR))
        if self._draining:
            self._close_if_drained()

    def _reset(self, stream_id: int, code: Code) -> None:
        """Reset a stream, and abandon the work for it."""
        if self._closing:
            return
        self._outbox.write(frames.rst_stream(stream_id, code))
        stream = self.streams.get(stream_id)
        if stream is None:
            # It was refused before it was opened.
            self._leftovers.add(stream_id, limits.STREAM_WINDOW)
        else:
            if not stream.ended:
                self._leftovers.add(stream_id, stream.window)
            self._forget(stream)
            stream.client_left()
        try:
            self._spend(self._allowances.resets, 1, "too many streams given up")
        except ConnectionFault as fault:
            self._break_off(fault)
        self._close_if_drained()

    def _forget(self, stream: Stream) -> None:
        stream.closed = True
        del self.streams[stream.stream_id]
        if stream.outgoing is not None:
            self._outbox.drop(stream)
        self.grants.forget(stream)
        self._listener.close(stream)

    def _close_if_drained(self) -> None:
        if self._final and not self.streams and not self._closing:
            self._close()

    def _break_off(self, fault: ConnectionFault) -> None:
        if not self._closing:
            self._leave(fault.code, str(fault))

    def _leave(self, code: Code, text: str) -> None:
        self._outbox.write(frames.goaway(self._last_stream_id, code, text))
        self._close()

    def _close(self) -> None:
        """Close once what was written has left."""
        self._closing = self._intake.stopped = True
        self._since = self._listener.now()
        self._abandon_streams()
        self._outbox.flush()
        if not self._outbox.paused:
            # To notice when the client closes.
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            # Closing with unread bytes would reset the connection, and the client could
            # lose what was written last.
            self._transport.write_eof()
        else:
            self._transport.close()

    def _abandon_streams(self) -> None:
        for stream in list(self.streams.values()):
            self._forget(stream)
            stream.client_left()
