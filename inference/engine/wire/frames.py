"""Write messages as frames, and cut a stream of bytes into frames.

`messages` describes the format.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from inference.engine.wire import tensors
from inference.engine.wire.messages import (
    FORMAT,
    MAX_FRAME_BYTES,
    Reply,
    Request,
    TensorHeader,
)
from inference.engine.wire.tensors import Buffer, Tensor

_PREFIX = struct.Struct("<IBI")
_PREFIX_BYTES = _PREFIX.size
# Bytes of the prefix that the length of the rest counts.
_COUNTED_BYTES = _PREFIX_BYTES - 4

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class MalformedFrame(ValueError):
    """The other side broke the protocol; close its connection."""


class ForeignFormat(MalformedFrame):
    """The other side runs code whose messages this code would misunderstand."""

    def __init__(self, format: int) -> None:  # noqa: A002 - the protocol's name for it
        super().__init__(
            f"its messages have format {format}, and this code reads {FORMAT}"
        )


class Frame(NamedTuple):
    """One whole frame; both views share memory with the bytes that arrived."""

    header: memoryview
    body: memoryview


def encode(message: Request | Reply, *buffers: Buffer) -> bytes:
    """Write one message and the buffers its tensor headers announce."""
    return frame(_encoder.encode(message), *buffers)


def frame(header: bytes, *buffers: Buffer) -> bytes:
    size = len(header)
    if len(buffers) == 1:
        only = buffers[0]
        total = _COUNTED_BYTES + size + len(only)
        return b"".join((_PREFIX.pack(total, FORMAT, size), header, only))
    total = _COUNTED_BYTES + size + sum(map(len, buffers))
    prefix = _PREFIX.pack(total, FORMAT, size)
    return b"".join((prefix, header, *buffers))


def decode_request(header: memoryview) -> Request:
    try:
        return _request_decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedFrame("not a request") from error


def decode_reply(header: memoryview) -> Reply:
    try:
        return _reply_decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedFrame("not a reply") from error


def decode_tensors(
    headers: Sequence[TensorHeader], body: memoryview
) -> tuple[Tensor, ...]:
    try:
        return tensors.decode(headers, body)
    except tensors.InvalidTensor as error:
        raise MalformedFrame(str(error)) from error


class FrameDecoder:
    """Cut a stream of bytes into frames, in whatever pieces it arrives."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._parts: list[bytes] = []
        self._have = 0
        self._need = _PREFIX_BYTES

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes; raise MalformedFrame, ForeignFormat.

        Pieces are joined only when a frame is whole, so a large frame costs one copy.
        """
        if self._have:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
            self._have = 0
        return self._split(data)

    def _split(self, data: bytes) -> list[Frame]:
        frames = []
        view = memoryview(data)
        start, end = 0, len(data)
        self._need = _PREFIX_BYTES
        while end - start >= _PREFIX_BYTES:
            total, form, size = _PREFIX.unpack_from(data, start)
            if total > self._max_frame_bytes:
                raise MalformedFrame(f"a frame of {total} bytes")
            if form != FORMAT:
                raise ForeignFormat(form)
            if size > total - _COUNTED_BYTES:
                raise MalformedFrame(f"a frame of {total} bytes, header of {size}")
            stop = start + 4 + total
            if stop > end:
                self._need = 4 + total
                break
            header_end = start + _PREFIX_BYTES + size
            frames.append(
                Frame(view[start + _PREFIX_BYTES : header_end], view[header_end:stop])
            )
            start = stop
        if start < end:
            self._parts.append(bytes(view[start:]))
            self._have = end - start
        return frames
