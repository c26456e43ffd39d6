"""Read a client's preface and frames, and check what RFC 9113 demands of them.

Checked here are single frames and their order. What frames do to streams and windows
is up to the connection.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from inference.gateway.http2 import frames, limits
from inference.gateway.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    FRAME_HEAD_BYTES,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITIZED,
    SETTINGS,
    STREAM_MASK,
    Code,
    ConnectionFault,
    StreamFault,
)
from inference.gateway.http2.header_blocks import BlockParts


class Taker(Protocol):
    """Acts on frames; its methods may raise ConnectionFault and StreamFault."""

    def abort(self) -> None:
        """Hang up: the client speaks another protocol."""

    def take_block(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        """Take the whole header block of a request, or its trailers."""

    def take_data(
        self, stream_id: int, payload: bytes, *, padded: bool, ended: bool
    ) -> None: ...

    def take_reset(self, stream_id: int) -> None: ...

    def take_window_update(self, stream_id: int, increment: int) -> None: ...

    def take_settings(self, settings: Iterable[tuple[int, int]]) -> None: ...

    def take_ping(self, payload: bytes) -> None: ...

    def take_pong(self, payload: bytes) -> None: ...

    def take_noise(self) -> None:
        """Count a frame that carries nothing; called before the frame is acted on."""

    def take_fault(self, stream_id: int, fault: StreamFault) -> None:
        """Reset a stream because one of its frames broke a rule."""


class Intake:
    """Cut received bytes into frames, and hand them to a `Taker`."""

    __slots__ = (
        "_greeted",
        "_now",
        "_parts",
        "_rest",
        "_settled",
        "_taker",
        "since",
        "stopped",
    )

    def __init__(self, taker: Taker, now: Callable[[], float]) -> None:
        self._taker = taker
        self._now = now
        # The bytes so far of the next frame, or of the preface.
        self._rest = b""
        # The preface has come; the first SETTINGS have come.
        self._greeted = self._settled = False
        # A header block that is not complete.
        self._parts: BlockParts | None = None
        # When the client began to send its greeting, or that block.
        self.since = now()
        # No frame is handed on, until it is our turn again or for ever.
        self.stopped = False

    @property
    def waits(self) -> bool:
        """Return whether the greeting or a header block is not complete."""
        return not self._settled or self._parts is not None

    def read(self, data: bytes) -> None:
        """Hand on all complete frames; raises ConnectionFault."""
        if self._rest:
            data = self._rest + data
        self._rest = data if self.stopped else self._hand_on(data)

    def _hand_on(self, data: bytes) -> bytes:
        """Hand on complete frames; return the rest of the data."""
        position, size = 0, len(data)
        turn_ends = self._now() + limits.TURN_S
        if not self._greeted:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                self._taker.abort()
                return b""
            if size < len(PREFACE):
                return data
            self._greeted = True
            position = len(PREFACE)
        while size - position >= FRAME_HEAD_BYTES:
            head, flags, stream_id = FRAME_HEAD.unpack_from(data, position)
            start = position + FRAME_HEAD_BYTES
            length = head >> 8
            if length > limits.MAX_FRAME_BYTES:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame is too large")
            end = start + length
            if end > size:
                break
            position = end
            stream_id &= STREAM_MASK
            try:
                self._take(head & 0xFF, flags, stream_id, data[start:end])
            except StreamFault as fault:
                self._taker.take_fault(stream_id, fault)
            if self.stopped or self._now() > turn_ends:
                self.stopped = True
                break
        return data[position:]

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._parts is not None and kind != frames.CONTINUATION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block is not complete")
        if kind == DATA:
            self._taker.take_data(
                stream_id,
                payload,
                padded=bool(flags & PADDED),
                ended=bool(flags & END_STREAM),
            )
        elif kind == HEADERS:
            self._take_headers(flags, stream_id, payload)
        elif not self._settled and kind != SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "settings come first")
        elif kind == frames.WINDOW_UPDATE:
            increment = frames.read_number(payload) & STREAM_MASK
            self._taker.take_window_update(stream_id, increment)
        elif kind == frames.RST_STREAM:
            frames.read_number(payload)
            self._taker.take_reset(stream_id)
        elif kind == frames.CONTINUATION:
            self._take_continuation(flags, stream_id, payload)
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "clients do not push")
        else:
            self._taker.take_noise()
            if kind == SETTINGS:
                self._take_settings(flags, stream_id, payload)
            elif kind == frames.PING:
                self._take_ping(flags, stream_id, payload)
            elif kind == frames.PRIORITY and len(payload) != 5:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PRIORITY has 5 bytes")
            elif (kind == frames.PRIORITY and not stream_id) or (
                kind == frames.GOAWAY and stream_id
            ):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "not of this stream")

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1 or not self._settled:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "HEADERS where none belong")
        if flags & (PADDED | PRIORITIZED):
            if flags & PADDED:
                payload = frames.unpadded(payload)
            if flags & PRIORITIZED:
                payload = frames.unprioritized(payload)
        ended = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._taker.take_block(stream_id, payload, ended=ended)
        else:
            self._parts = BlockParts(stream_id, payload, ended=ended)
            self.since = self._now()

    def _take_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        parts = self._parts
        if parts is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a CONTINUATION of nothing")
        parts.add(stream_id, payload)
        if flags & END_HEADERS:
            self._parts = None
            self._taker.take_block(stream_id, parts.joined(), ended=parts.ended)

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "settings are of no stream")
        if flags & ACK:
            if payload or not self._settled:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "an ACK says nothing")
            return
        self._taker.take_settings(
            frames.read_settings(payload, most=limits.MAX_SETTINGS)
        )
        self._settled = True

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) != 8:
            code = Code.PROTOCOL_ERROR if stream_id else Code.FRAME_SIZE_ERROR
            raise ConnectionFault(code, "a PING has 8 bytes and no stream")
        if flags & ACK:
            self._taker.take_pong(payload)
        else:
            self._taker.take_ping(payload)
