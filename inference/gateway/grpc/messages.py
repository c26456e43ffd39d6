"""Cut a gRPC stream into messages: each a flag, a length and its bytes."""

import zlib

# The zlib window for each encoding; gRPC calls zlib's own format deflate.
INFLATORS = {b"gzip": 31, b"deflate": 15}
PREFIX_BYTES = 5
_SMALL_BYTES = 1024
_CHUNK_BYTES = 16 * 1024


class MessageTooLarge(Exception):
    """A message exceeds the limit, as sent or decompressed."""


class MessageReader:
    """Collect the bytes of a stream, and return messages once they are complete."""

    __slots__ = ("_chunks", "_max_bytes", "_position", "_wanted", "bytes_kept")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []
        # Where the next message begins in the first chunk.
        self._position = 0
        # Bytes that were fed and not taken.
        self.bytes_kept = 0
        # The size of the next message with its prefix, once known.
        self._wanted: int | None = None

    @property
    def bytes_missing(self) -> int:
        """How many bytes the next message lacks, as far as known."""
        return max((self._wanted or PREFIX_BYTES) - self.bytes_kept, 0)

    def feed(self, data: bytes) -> None:
        chunks = self._chunks
        self.bytes_kept += len(data)
        if chunks and len(data) < _SMALL_BYTES and len(chunks[-1]) < _CHUNK_BYTES:
            # Many small objects would take many times the memory of their bytes.
            chunks[-1] += data
        else:
            chunks.append(data)

    @property
    def complete(self) -> bool:
        """Return whether the next message is complete.

        Raises MessageTooLarge as soon as the length is known, and ValueError if the
        flag is invalid.
        """
        if self._wanted is None and self.bytes_kept >= PREFIX_BYTES:
            self._wanted = PREFIX_BYTES + self._read_length()
        return self._wanted is not None and self.bytes_kept >= self._wanted

    def take(self) -> tuple[bool, memoryview]:
        """Remove the next message, which must be complete: (is compressed, body)."""
        size, self._wanted = self._wanted, None
        assert size is not None
        data, start = self._joined(), self._position
        end = self._position = start + size
        self.bytes_kept -= size
        if not self.bytes_kept:
            self._chunks, self._position = [], 0
        return data[start] == 1, memoryview(data)[start + PREFIX_BYTES : end]

    def _read_length(self) -> int:
        if len(self._chunks[0]) - self._position < PREFIX_BYTES:
            self._joined()
        data, start = self._chunks[0], self._position
        if data[start] > 1:
            raise ValueError("a message begins with 0 or 1")
        length = int.from_bytes(data[start + 1 : start + PREFIX_BYTES])
        if length > self._max_bytes:
            raise MessageTooLarge
        return length

    def _joined(self) -> bytes:
        chunks = self._chunks
        if len(chunks) > 1:
            chunks[0] = chunks[0][self._position :]
            self._chunks, self._position = [b"".join(chunks)], 0
        return self._chunks[0]


def inflate(body: bytes | memoryview, window: int, *, max_bytes: int) -> bytes:
    """Decompress a message; raises MessageTooLarge, ValueError."""
    decompressor = zlib.decompressobj(window)
    try:
        data = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise ValueError("it cannot be decompressed") from error
    if len(data) > max_bytes:
        raise MessageTooLarge
    if not decompressor.eof:
        raise ValueError("it cannot be decompressed")
    return data
