"""Remember parsed request heads by their bytes, so that each is parsed once.

Clients that keep a connection open send the same head again and again; only the length
of the body differs.
"""

from typing import NamedTuple

from inference.gateway.http1.exchange import HeadReading, Request

# Longer heads are not remembered.
_MAX_HEAD_BYTES = 4096
# When there are this many, all are forgotten.
_MAX_HEADS = 512
# Headers that change how a message is framed, or what happens before its body comes.
_FRAMING = frozenset(
    {b"connection", b"expect", b"trailer", b"transfer-encoding", b"upgrade"}
)


class KnownHead(NamedTuple):
    request: Request
    reading: HeadReading
    # Where the body starts and ends, counted from the start of the head.
    start: int
    end: int


class KnownHeads:
    """The heads that one listener remembers."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownHead] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, data: bytes) -> tuple[KnownHead | None, bytes]:
        """Return the entry of the head that begins `data`, and the head's bytes.

        The bytes are empty if the head is not complete or too long to be remembered.
        """
        end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
        if end < 0:
            return None, b""
        head = data[: end + 4]
        return self._known.get(head), head

    def remember(self, head: bytes, request: Request, reading: HeadReading) -> None:
        """Remember a parsed head, if its bytes alone decide what it means."""
        length = _plain_length(head, request)
        if not length or not reading.recurs:
            return
        if len(self._known) >= _MAX_HEADS:
            self._known.clear()
        start = len(head)
        # The reading holds what the headers say; as tuples they take much more memory.
        kept = request._replace(headers=[])
        self._known[head] = KnownHead(kept, reading, start, start + length)


def _plain_length(head: bytes, request: Request) -> int:
    """Return the Content-Length of a plain POST request, 0 for any other request."""
    if not (
        head.startswith(b"POST ")
        and request.method == b"POST"
        and request.keep_alive
        # With no bare LF, all parsers agree where the head ends.
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
