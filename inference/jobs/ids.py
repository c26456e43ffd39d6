"""Ids of jobs: sortable by time, impossible to guess. Without I/O."""

import re
from datetime import UTC, datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PATTERN = re.compile(r"job_[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)
# 48 bits of milliseconds, 80 bits of randomness: the layout of a ULID
# (https://github.com/ulid/spec), in Crockford's base 32.
RANDOM_BYTES = 10
_DIGITS = 26


def new_id(*, now: datetime, randomness: bytes) -> str:
    """Return an id that sorts after all ids of earlier milliseconds."""
    assert len(randomness) == RANDOM_BYTES
    milliseconds = int(now.timestamp() * 1000)
    number = milliseconds << 80 | int.from_bytes(randomness, "big")
    digits = (_ALPHABET[number >> 5 * place & 31] for place in range(_DIGITS))
    return "job_" + "".join(digits)[::-1]


def is_id(text: str) -> bool:
    """Return whether `text` has the form of an id, and so is safe as a file name."""
    return _PATTERN.fullmatch(text) is not None


def created_at(job_id: str) -> datetime:
    """Return the time that is part of an id."""
    number = 0
    for digit in job_id.removeprefix("job_"):
        number = number << 5 | _ALPHABET.index(digit)
    return datetime.fromtimestamp((number >> 80) / 1000, tz=UTC)
