"""Encode and decode frames of HTTP/2 (RFC 9113, sections 4, 6 and 7)."""

import struct
from collections.abc import Iterator
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA = 0
HEADERS = 1
PRIORITY = 2
RST_STREAM = 3
SETTINGS = 4
PUSH_PROMISE = 5
PING = 6
GOAWAY = 7
WINDOW_UPDATE = 8
CONTINUATION = 9

ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

# Length (24 bits) and type (8 bits) as one number, flags, stream id.
FRAME_HEAD = struct.Struct(">IBI")
FRAME_HEAD_BYTES = FRAME_HEAD.size
STREAM_MASK = 0x7FFFFFFF

DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
SMALLEST_MAX_FRAME_BYTES = 16_384
_LARGEST_MAX_FRAME_BYTES = 2**24 - 1

_NUMBER = struct.Struct(">I")
_SETTING = struct.Struct(">HI")


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The client broke a rule in a way that ends the connection."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):
    """The client broke a rule in a way that ends one stream."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return FRAME_HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(
        SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items())
    )


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int, code: Code, text: str = "") -> bytes:
    payload = _NUMBER.pack(last_stream_id) + _NUMBER.pack(code) + text.encode()
    return frame(GOAWAY, 0, 0, payload)


def rst_stream(stream_id: int, code: Code) -> bytes:
    return frame(RST_STREAM, 0, stream_id, _NUMBER.pack(code))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, _NUMBER.pack(increment))


def unpadded(payload: bytes) -> bytes:
    """Strip padding; raises ConnectionFault if there is more of it than payload."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def unprioritized(payload: bytes) -> bytes:
    """Strip the priority fields, which RFC 9113, section 5.3, deprecates."""
    if len(payload) < 5:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a HEADERS frame is too short")
    return payload[5:]


def read_number(payload: bytes) -> int:
    """Read the only number of a frame; raises ConnectionFault."""
    if len(payload) != 4:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame must have 4 bytes")
    number: int = _NUMBER.unpack(payload)[0]
    return number


def read_settings(payload: bytes, *, most: int) -> Iterator[tuple[int, int]]:
    """Read a client's settings and check them; raises ConnectionFault."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "settings have 6 bytes each")
    if len(payload) // _SETTING.size > most:
        raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many settings")
    for name, value in _SETTING.iter_unpack(payload):
        if name == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if name == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window is too large")
        if name == Setting.MAX_FRAME_SIZE and not (
            SMALLEST_MAX_FRAME_BYTES <= value <= _LARGEST_MAX_FRAME_BYTES
        ):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is wrong")
        yield name, value
