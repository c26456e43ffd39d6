"""How much one client may ask of a connection: every bound by its name.

Bytes that a client makes us keep are bounded by windows (RFC 9113, section 5.2), work
that it makes for nothing by allowances, which come back with time and with answers.
"""

# Calls at once of all connections; customers share them.
MAX_ALL_CALLS = 4096
# Streams at once; those beyond are refused, and the client may try them again.
MAX_STREAMS = 512
# Calls at once of methods that need no key, of one connection and of all, and their
# messages: strangers must not take what callers with a key need. Addresses share them;
# a client that watches health holds one for as long as it is connected.
MAX_KEYLESS_CALLS = 16
MAX_ALL_KEYLESS_CALLS = 1024
MAX_KEYLESS_MESSAGE_BYTES = 1024
# What may be sent of a stream before we ask for more. A larger message is granted its
# size, when it has its turn.
STREAM_WINDOW = 65_535
# Of all streams; given back while it is read, so that no stream waits for another.
CONNECTION_WINDOW = 4 * 1024 * 1024
CONNECTION_UPDATE = 1024 * 1024
# Of messages larger than a stream's window, under way at once: of one connection, where
# one is always granted, and of all, which customers share.
MAX_LARGE_BYTES = 64 * 1024 * 1024
MAX_ALL_LARGE_BYTES = 512 * 1024 * 1024
# Of answers that the client does not read; then new streams are refused.
MAX_UNREAD_BYTES = 64 * 1024 * 1024
# A window opened by less, with nothing sent for it, is noise; one opened by more is
# soon as large as windows may be.
SMALL_UPDATE_BYTES = 1024
# What one stream may send before others have their turn, and for how long the frames
# of one connection may be worked on.
TURN_BYTES = 64 * 1024
TURN_S = 0.005

MAX_FRAME_BYTES = 16_384
MAX_SETTINGS = 32
# Of one request: as sent, in how many frames, and read. Twice as much is still read, so
# that a stream is refused and not its connection.
MAX_HEADER_BLOCK_BYTES = 16 * 1024
MAX_CONTINUATIONS = 8
MAX_HEADER_LIST_BYTES = 16 * 1024
# Blocks that a connection remembers, and the longest of them.
MAX_KEPT_BLOCKS = 16
MAX_KEPT_BLOCK_BYTES = 2048

# For the rest of a header block, and for the client's part of the greeting.
GREETING_S = 10.0
# Of a client that does not read what it is sent, or ends a broken connection.
STALL_S = 20.0
LINGER_S = 2.0
# A connection without streams is ended after this time, and so is a stream that asks
# for nothing. A connection with streams is asked for a sign of life.
IDLE_S = 300.0
SILENT_S = 60.0
PING_S = 20.0

# Strangers may share a connection, behind a proxy, with callers who have a key. So long
# after one of these was answered it is not ended because of an allowance, but read only
# as that comes back, so many times as fast.
TRUST_S = 10.0
TRUSTED_PACE = 8
# What such a call gives back beyond its own headers: about those of a stranger.
EARNED_HEADER_BYTES = 256
# Header blocks not seen before cost most of all to read: their bytes, and 3 µs a field,
# which may have one byte. So many bytes may be read at once and in a second, where each
# field counts for so many more.
HEADER_BYTES = 128 * 1024
HEADER_BYTES_PER_S = 32 * 1024
FIELD_BYTES = 16


class Allowance:
    """What a client may do beyond use; `spend` says whether it still may."""

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
    """Those of one connection."""

    __slots__ = ("_trusted_s", "header_bytes", "noise", "resets")

    def __init__(self) -> None:
        # Frames that move nothing: pings, settings, empty data, late updates.
        self.noise = Allowance(1_000, per_s=200)
        # Streams that were opened and given up, by either side (CVE-2023-44487,
        # CVE-2025-8671); all that may be open at once, and as many more.
        self.resets = Allowance(2 * MAX_STREAMS, per_s=100)
        # Whoever has a key gets back what their calls took.
        self.header_bytes = Allowance(HEADER_BYTES, per_s=HEADER_BYTES_PER_S)
        self._trusted_s = 0.0

    @property
    def trusted(self) -> bool:
        """Tell whether a call with a key was answered lately."""
        return self._trusted_s > 0

    @property
    def overdrawn(self) -> bool:
        every = (self.noise, self.resets, self.header_bytes)
        return any(allowance.overdrawn for allowance in every)

    def answered(self, header_bytes: int, *, known: bool) -> None:
        """Learn that a call was answered; `known`: it came with a key."""
        self.noise.give_back(4)
        self.resets.give_back(1)
        if known:
            self.header_bytes.give_back(header_bytes + EARNED_HEADER_BYTES)
            self._trusted_s = TRUST_S

    def pass_time(self, seconds: float) -> None:
        if not self.overdrawn:
            # Otherwise nobody is read, and nobody can be answered.
            self._trusted_s -= seconds
        if self.trusted:
            seconds *= TRUSTED_PACE
        self.noise.pass_time(seconds)
        self.resets.pass_time(seconds)
        self.header_bytes.pass_time(seconds)
