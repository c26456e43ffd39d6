"""Decode header blocks (RFC 7541) with hpack, and remember those that come again.

The meaning of a block depends on the connection's dynamic table. So a block is
remembered only if reading it did not change the table, and all are forgotten when the
table changes. A client that repeats a request sends the same bytes from its second or
third call on.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from inference.gateway.http2 import limits
from inference.gateway.http2.frames import Code, ConnectionFault

Head = TypeVar("Head")
Fields = list[tuple[bytes, bytes]]

# RFC 7541, section 6.3: the first bits of a table size update.
_SIZE_UPDATE = 0b001
# A size update to 0: the table that we encode with is empty from here on.
EMPTY_TABLE = b"\x20"


class HeaderReader(Generic[Head]):
    """Decode the blocks of one connection, in their order."""

    def __init__(
        self, interpret: Callable[[Fields], Head], spend: Callable[[int], None]
    ) -> None:
        """`spend` gets the cost of each block and may raise ConnectionFault."""
        self._interpret = interpret
        self._spend = spend
        # The cost of the block that was read last.
        self.cost_bytes = 0
        self._decoder = Decoder(2 * limits.MAX_HEADER_LIST_BYTES)
        self._table = self._decoder.header_table = _WatchedTable()
        # Remembered blocks and their meaning.
        self.kept: dict[bytes, Head] = {}

    def read(self, block: bytes) -> Head:
        """Return the meaning of a block that is not in `kept`."""
        before = self._table.changes
        fields = self.fields(block)
        head = self._interpret(fields)
        if self._table.changes == before and len(block) <= limits.MAX_KEPT_BLOCK_BYTES:
            if len(self.kept) >= limits.MAX_KEPT_BLOCKS:
                self.kept.clear()
            self.kept[block] = head
        return head

    def fields(self, block: bytes) -> Fields:
        """Decode a block; raises ConnectionFault, as the table is unknown after it."""
        changes = self._table.changes
        try:
            fields = [
                (name, value) for name, value in self._decoder.decode(block, True)
            ]
        except OversizedHeaderListError as error:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM, "the headers are too large"
            ) from error
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(
                Code.COMPRESSION_ERROR, "the headers cannot be read"
            ) from error
        if block and block[0] >> 5 == _SIZE_UPDATE:
            self._table.changes += 1
        if self._table.changes != changes:
            self.kept.clear()
        self.cost_bytes = len(block) + limits.FIELD_BYTES * len(fields)
        self._spend(self.cost_bytes)
        return fields


class BlockParts:
    """The frames so far of one header block."""

    __slots__ = ("_parts", "ended", "stream_id")

    def __init__(self, stream_id: int, first: bytes, *, ended: bool) -> None:
        self.stream_id = stream_id
        # The stream ends with this block.
        self.ended = ended
        self._parts = [first]

    def add(self, stream_id: int, part: bytes) -> None:
        """Append the payload of a CONTINUATION; raises ConnectionFault."""
        if stream_id != self.stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a CONTINUATION of another")
        self._parts.append(part)
        if (
            len(self._parts) > limits.MAX_CONTINUATIONS
            or sum(map(len, self._parts)) > limits.MAX_HEADER_BLOCK_BYTES
        ):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "the headers are too large")

    def joined(self) -> bytes:
        return b"".join(self._parts)


class _WatchedTable(HeaderTable):
    """A dynamic table that counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


def list_bytes(fields: Fields) -> int:
    """Return the size that SETTINGS_MAX_HEADER_LIST_SIZE bounds (RFC 9113, 6.5.2)."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


def literal(name: bytes, value: bytes) -> bytes:
    """Encode a field that enters no table (RFC 7541, section 6.2.2)."""
    return literal_name(name) + literal_text(value)


def literal_name(name: bytes) -> bytes:
    return b"\x00" + literal_text(name)


def literal_text(text: bytes) -> bytes:
    size = len(text)
    if size < 0x7F:
        return _LENGTHS[size] + text
    return bytes(encode_integer(size, 7)) + text


_LENGTHS = tuple(bytes((size,)) for size in range(0x7F))
