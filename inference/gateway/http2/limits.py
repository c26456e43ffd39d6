"""Define every limit on what a client may ask of an HTTP/2 connection.

Flow-control windows bound the bytes that a client makes us keep (RFC 9113, section
5.2). Allowances bound the work that it makes for nothing; they refill with time and
with answered calls.
"""

# Calls at once on all connections; customers share them.
MAX_ALL_CALLS = 4096
# Streams at once on a connection; more are refused, and the client may retry them.
MAX_STREAMS = 512
# Calls at once of methods that need no key, on one connection and on all, and the size
# of their messages: strangers must not use up what callers with a key need. Addresses
# share these calls; a client that watches health holds one while it is connected.
MAX_KEYLESS_CALLS = 16
MAX_ALL_KEYLESS_CALLS = 1024
MAX_KEYLESS_MESSAGE_BYTES = 1024
# Bytes that a client may send on a stream unasked. A larger message is granted its size
# when there is room (`large_messages.py`).
STREAM_WINDOW = 65_535
# The window of a whole connection, and after how many bytes read it is opened again.
# This happens whatever the streams do, so no stream waits for another.
CONNECTION_WINDOW = 4 * 1024 * 1024
CONNECTION_UPDATE = 1024 * 1024
# Bytes at once of messages larger than a stream's window: on one connection, where one
# message is always granted, and on all, which customers share.
MAX_LARGE_BYTES = 64 * 1024 * 1024
MAX_ALL_LARGE_BYTES = 512 * 1024 * 1024
# New streams are refused when the client has left this much of its answers unread.
MAX_UNREAD_BYTES = 64 * 1024 * 1024
# A smaller WINDOW_UPDATE that lets nothing be sent counts as noise. Larger ones need no
# count: they soon reach the largest window allowed.
SMALL_UPDATE_BYTES = 1024
# One turn: what a stream may send, and how long a connection's frames are handled.
TURN_BYTES = 64 * 1024
TURN_S = 0.005

MAX_FRAME_BYTES = 16_384
MAX_SETTINGS = 32
# The headers of one request: encoded bytes, frames, and decoded bytes. Up to twice the
# decoded bytes are still read, so that only the stream is refused.
MAX_HEADER_BLOCK_BYTES = 16 * 1024
MAX_CONTINUATIONS = 8
MAX_HEADER_LIST_BYTES = 16 * 1024
# How many header blocks a connection remembers, and the longest of them.
MAX_KEPT_BLOCKS = 16
MAX_KEPT_BLOCK_BYTES = 2048

# How long a client may take for its preface and SETTINGS, or for a header block.
GREETING_S = 10.0
# How long a client may leave data unread, and may take to close an ended connection.
STALL_S = 20.0
LINGER_S = 2.0
# After IDLE_S of silence a connection without streams is drained, and a stream on which
# no message came is ended. A connection with streams is pinged after SILENT_S, and cut
# off if it sends nothing for another PING_S.
IDLE_S = 300.0
SILENT_S = 60.0
PING_S = 20.0

# Behind a proxy, strangers may share a connection with callers who have a key. For
# TRUST_S after such a caller was answered, a used-up allowance does not end the
# connection: nothing is read until it has refilled, TRUSTED_PACE times as fast.
TRUST_S = 10.0
TRUSTED_PACE = 8
# What such an answer refills beyond its own headers: about one stranger's headers.
EARNED_HEADER_BYTES = 256
# New header blocks are the most costly to read: by their bytes, and 3 µs for a field,
# which may have one byte. A connection may have this many bytes read at once and in
# a second; each field counts for FIELD_BYTES more.
HEADER_BYTES = 128 * 1024
HEADER_BYTES_PER_S = 32 * 1024
FIELD_BYTES = 16


class Allowance:
    """A budget that spending uses up and time refills."""

    __slots__ = ("_left", "_most", "_per_s")

    def __init__(self, most: float, *, per_s: float) -> None:
        self._most = self._left = most
        self._per_s = per_s

    @property
    def overdrawn(self) -> bool:
        return self._left < 0

    def spend(self, count: float) -> bool:
        self._left -= count
        return self._left >= 0

    def give_back(self, count: float) -> None:
        self._left = min(self._most, self._left + count)

    def pass_time(self, seconds: float) -> None:
        self.give_back(seconds * self._per_s)


class Allowances:
    """The allowances of one connection."""

    __slots__ = ("_trusted_s", "header_bytes", "noise", "resets")

    def __init__(self) -> None:
        # Frames that carry nothing: pings, settings, empty data, late updates.
        self.noise = Allowance(1_000, per_s=200)
        # Streams that either side reset (CVE-2023-44487, CVE-2025-8671): all that may
        # be open at once, and as many again.
        self.resets = Allowance(2 * MAX_STREAMS, per_s=100)
        # Cost of header blocks; a call with a key gets its own back.
        self.header_bytes = Allowance(HEADER_BYTES, per_s=HEADER_BYTES_PER_S)
        self._trusted_s = 0.0

    @property
    def trusted(self) -> bool:
        """Return whether a call with a key was answered in the last TRUST_S."""
        return self._trusted_s > 0

    @property
    def overdrawn(self) -> bool:
        every = (self.noise, self.resets, self.header_bytes)
        return any(allowance.overdrawn for allowance in every)

    def answered(self, header_bytes: int, *, known: bool) -> None:
        """Refill for an answered call; `known` if it came with a key."""
        self.noise.give_back(4)
        self.resets.give_back(1)
        if known:
            self.header_bytes.give_back(header_bytes + EARNED_HEADER_BYTES)
            self._trusted_s = TRUST_S

    def pass_time(self, seconds: float) -> None:
        if not self.overdrawn:
            # While it is overdrawn nothing is read, so no call can renew the trust.
            self._trusted_s -= seconds
        if self.trusted:
            seconds *= TRUSTED_PACE
        self.noise.pass_time(seconds)
        self.resets.pass_time(seconds)
        self.header_bytes.pass_time(seconds)
