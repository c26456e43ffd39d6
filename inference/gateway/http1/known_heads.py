"""Heads of requests that were parsed before. Pure.

Clients that keep a connection open send the same head again and again, but for the
length of its body. One that is known byte for byte is not parsed once more.
"""

from typing import NamedTuple

from inference.gateway.http1.exchange import HeadReading, Request

# Of heads that are remembered, and how many; then all are forgotten.
_MAX_HEAD_BYTES = 4096
_MAX_HEADS = 512
# What changes how a message is framed, or what is done before its body comes.
_FRAMING = frozenset(
    {b"connection", b"expect", b"trailer", b"transfer-encoding", b"upgrade"}
)


class KnownHead(NamedTuple):
    request: Request
    reading: HeadReading
    # Bytes of the head, and with its body.
    start: int
    end: int


class KnownHeads:
    """Finds heads by their bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownHead] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, data: bytes) -> tuple[KnownHead | None, bytes]:
        """Give what is known of the head that begins `data`, and that head.

        It is empty where it has not come whole, or is too long to be remembered.
        """
        end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
        if end < 0:
            return None, b""
        head = data[: end + 4]
        return self._known.get(head), head

    def remember(self, head: bytes, request: Request, reading: HeadReading) -> None:
        """Remember what a parser made of a head, unless that may depend on more."""
        length = _plain_length(head, request)
        if not length or not reading.recurs:
            return
        if len(self._known) >= _MAX_HEADS:
            self._known.clear()
        start = len(head)
        # What the headers say is in the reading; as tuples they take much more memory.
        kept = request._replace(headers=[])
        self._known[head] = KnownHead(kept, reading, start, start + length)


def _plain_length(head: bytes, request: Request) -> int:
    """Read the one Content-Length of a request without anything special; or give 0."""
    if not (
        head.startswith(b"POST ")
        and request.method == b"POST"
        and request.keep_alive
        # Each line ends as all parsers understand it, so the head does too.
        and head.count(b"\n") == head.count(b"\r\n")
    ):
        return 0
    lengths = []
    for name, value in request.headers:
        if name in _FRAMING and (name, value.lower()) != (b"connection", b"keep-alive"):
            return 0
        if name == b"content-length":
            lengths.append(value)
    if len(lengths) != 1 or not lengths[0].isdigit():
        return 0
    return int(lengths[0])
