"""Make and read API keys: `my_live_<id>_<secret><checksum>`.

The id is public. The secret has 256 bits. The checksum (CRC-32 of all before it) shows
without a look-up that a key is mistyped or cut off. Only the SHA-256 of the whole token
is ever stored. A fast hash is enough: nobody can guess a random secret of 256 bits,
however cheap one guess is.
"""

import hashlib
import re
import secrets
import zlib
from typing import Literal

import msgspec

Mode = Literal["live", "test"]

_ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 12
# 62**43 > 2**256
_SECRET_LENGTH = 43
_CHECKSUM_LENGTH = 6
_SHAPE = re.compile(
    rb"my_(?:live|test)_([0-9A-Za-z]{%d})_[0-9A-Za-z]{%d}"
    % (_ID_LENGTH, _SECRET_LENGTH + _CHECKSUM_LENGTH)
)
_IN_QUERY = re.compile(rb"(?:^|&)(?:x-)?api[-_]?key=|my_(?:live|test)_", re.IGNORECASE)
# The pattern for scanners of leaked secrets; docs/keys.md publishes it.
SCANNED_FOR = r"\bmy_(?:live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b"
# All pairs of base-62 digits: a checksum is three of them.
_PAIRS = tuple(bytes((high, low)) for high in _ALPHABET for low in _ALPHABET)


class NewKey(msgspec.Struct, frozen=True):
    """A key that was just made; `token` is shown once and never stored."""

    token: str
    key_id: str
    # SHA-256 of the whole token.
    digest: bytes

    def __repr__(self) -> str:
        # A token must not reach a log or a traceback by way of a repr.
        return f"NewKey(key_id={self.key_id!r})"


class ParsedKey(msgspec.Struct, frozen=True, gc=False):
    """The id and digest of a well-formed token, which may still be unknown."""

    key_id: str
    digest: bytes


def generate(mode: Mode) -> NewKey:
    """Make a key from the system's random source."""
    key_id = "".join(secrets.choice(_ALPHABET.decode()) for _ in range(_ID_LENGTH))
    secret = _base62(secrets.randbits(256), _SECRET_LENGTH)
    body = f"my_{mode}_{key_id}_".encode() + secret
    token = body + _checksum(body)
    return NewKey(
        token=token.decode(), key_id=key_id, digest=hashlib.sha256(token).digest()
    )


def parse(token: bytes) -> ParsedKey | None:
    """Read a token; None if its prefix, shape or checksum is wrong."""
    match = _SHAPE.fullmatch(token)
    if match is None or token[-6:] != _checksum(token[:-6]):
        return None
    return ParsedKey(match[1].decode(), hashlib.sha256(token).digest())


def holds_key(query: bytes) -> bool:
    """Return whether a URL's query has an API key, or a parameter for one."""
    return _IN_QUERY.search(query) is not None


def _checksum(body: bytes) -> bytes:
    rest, low = divmod(zlib.crc32(body), 3844)
    high, middle = divmod(rest, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def _base62(number: int, length: int) -> bytes:
    digits = bytearray(length)
    for position in range(length - 1, -1, -1):
        number, digit = divmod(number, 62)
        digits[position] = _ALPHABET[digit]
    return bytes(digits)
