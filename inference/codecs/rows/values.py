"""Check one parsed value, and put into words what is wrong with it.

Runs on rows that the compiled types refused, and on values that were parsed elsewhere.
Problems name fields and types, never values.
"""

import binascii
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from inference.codecs.rows.nested import (
    BrokenSchema,
    NotFinite,
    as_float,
    exact_integer,
    read_value,
)
from inference.codecs.rows.times import EARLIEST, LATEST, is_in_range
from inference.codecs.rows.types import (
    KINDS,
    bounds,
    choices,
    has_whole_floats,
    text_limit,
)
from inference.engine.signatures.signature import Column
from inference.engine.wire.dtypes import JSON, MAX_WHOLE_FLOAT
from inference.errors.api_error import ErrorCode, Problem

_MAX_NAME_LENGTH = 100
# A problem lists at most this many of the values that a rule allows.
_MOST_TOLD = 20
_YEAR, _MONTH = re.compile(r"\d{4}", re.ASCII), re.compile(r"\d{4}-\d{2}", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_SURROGATES = re.compile("[\ud800-\udfff]")
_INVALID = ErrorCode.INVALID_INPUT
EXPECTED: dict[type, str] = {
    float: "must be a number",
    int: "must be an integer",
    bool: "must be true or false",
    str: "must be a string",
    bytes: "must be bytes as base64",
    datetime: "must be a date and time in ISO 8601",
    # Of a JSON column only null is refused by type.
    object: "must be a JSON value other than null",
}

ROUNDED = (
    f"must be from -{MAX_WHOLE_FLOAT - 1} to {MAX_WHOLE_FLOAT - 1} if it is written "
    "with a point or an exponent; write a larger integer with digits only"
)


def check_value(value: Any, column: Column) -> tuple[Any, str, ErrorCode]:
    """Return the value as the model gets it, what is wrong ("" if good), and a code.

    A wrong type is INVALID_INPUT, a broken rule UNPROCESSABLE.
    """
    if column.dtype == JSON:
        try:
            return read_value(value, column.json_schema or {}), "", _INVALID
        except NotFinite as broken:
            return value, str(broken), ErrorCode.UNPROCESSABLE
        except BrokenSchema as broken:
            return value, str(broken), _INVALID
    value, issue = check_type(value, KINDS[column.dtype].python)
    if issue := issue or inexact(value, column):
        return value, issue, _INVALID
    return value, broken_rule(value, column), ErrorCode.UNPROCESSABLE


def check_type(value: Any, wanted: type) -> tuple[Any, str]:
    """Return the value as the wanted type, and what is wrong with it ("" if good)."""
    if wanted is bool or wanted is str:
        ok = isinstance(value, wanted)
    elif wanted is bytes:
        return _read_base64(value)
    elif wanted is datetime:
        return _read_time(value)
    elif isinstance(value, bool):
        ok = False
    elif isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        return value, f"{EXPECTED[wanted]}; decimals have a point, not a comma"
    elif wanted is float:
        ok = isinstance(value, int | float)
        if ok:
            value = as_float(value)
    else:
        value = exact_integer(value)
        if isinstance(value, float) and value.is_integer():
            return value, ROUNDED
        ok = isinstance(value, int) or (
            isinstance(value, float) and not math.isfinite(value)
        )
    return value, "" if ok else EXPECTED[wanted]


def inexact(value: Any, column: Column) -> str:
    """Return what is wrong with an integer that the column's floats would round."""
    if not has_whole_floats(column) or not isinstance(value, int):
        return ""
    if abs(value) <= MAX_WHOLE_FLOAT:
        return ""
    return (
        f"must be from -{MAX_WHOLE_FLOAT} to {MAX_WHOLE_FLOAT}: this column is "
        "optional, so the model gets it as floats, which would round a larger integer"
    )


def broken_rule(value: Any, column: Column) -> str:
    """Return which rule the value breaks; its type was checked before."""
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    if isinstance(value, str):
        if len(value) > text_limit(column):
            return f"must have at most {text_limit(column)} characters"
    elif isinstance(value, bytes):
        if column.max_length is not None and len(value) > column.max_length:
            return f"must have at most {column.max_length} bytes"
    elif isinstance(value, datetime):
        if not is_in_range(value):
            return f"must be within the years {EARLIEST.year} to {LATEST.year - 1}"
    elif not isinstance(value, bool):
        low, high = bounds(column)
        if low is not None and value < low:
            return f"must be at least {exactly(low)}"
        if high is not None and value > high:
            return f"must be at most {exactly(high)}"
    allowed = choices(column)
    if allowed and value not in allowed:
        return not_among(allowed)
    return ""


def not_among(allowed: Sequence[object]) -> str:
    """Return the problem of a value that is not among the allowed ones."""
    more = ", …" if len(allowed) > _MOST_TOLD else ""
    return "must be one of " + ", ".join(map(str, allowed[:_MOST_TOLD])) + more


def exactly(bound: float) -> str:
    """Write the bound of a rule with all its digits: 100.0 as 100."""
    return str(exact_integer(bound))


def read_text(value: str, wanted: type) -> Any:
    """Read a CSV cell as its column's type; it stays text if it does not fit."""
    if wanted is str:
        return value
    text = value.strip()
    if not text:
        return None
    if wanted in (bytes, datetime, object):
        return text
    if wanted is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(
            text.lower(), value
        )
    number = read_number(text, whole=wanted is int)
    return value if number is None else number


def read_number(text: str, *, whole: bool) -> int | float | None:
    """Read a number in ASCII digits; None if the text is not such a number.

    Python alone would take `1_000` and digits of other scripts, too. With `whole` an
    integer keeps all its digits.
    """
    if "_" in text or not text.isascii():
        return None
    for read in (int, float) if whole else (float,):
        with suppress(ValueError):
            return read(text)
    return None


def readable_name(name: object) -> str:
    """Make a caller's name safe to show: short, and without lone surrogates."""
    return _SURROGATES.sub("\ufffd", str(name))[:_MAX_NAME_LENGTH]


def invalid(
    index: int, field: str | None, issue: str, *, received: str | None = None
) -> Problem:
    return Problem(
        issue=issue,
        index=index,
        field=field,
        code=ErrorCode.INVALID_INPUT,
        received=received,
    )


def unprocessable(index: int, field: str | None, issue: str) -> Problem:
    return Problem(issue=issue, index=index, field=field, code=ErrorCode.UNPROCESSABLE)


def type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "array"


def size_name(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"array of {len(value)}"
    return type_name(value)


def _read_base64(value: Any) -> tuple[Any, str]:
    if isinstance(value, bytes):
        return value, ""
    if not isinstance(value, str):
        return value, EXPECTED[bytes]
    try:
        return binascii.a2b_base64(value.encode("ascii"), strict_mode=True), ""
    except ValueError:
        return value, EXPECTED[bytes]


def _read_time(value: Any) -> tuple[Any, str]:
    if isinstance(value, datetime):
        return value, ""
    if not isinstance(value, str):
        return value, EXPECTED[datetime]
    # Python does not read a year, or a year and month, alone.
    missing = "-01-01" if _YEAR.fullmatch(value) else ""
    missing = "-01" if _MONTH.fullmatch(value) else missing
    # msgspec first: Python reads more forms, but cuts fractions that msgspec rounds.
    for read in (_round_time, datetime.fromisoformat):
        with suppress(ValueError):
            return read(value + missing), ""
    return value, EXPECTED[datetime]


def _round_time(text: str) -> datetime:
    return msgspec.convert(text, datetime)
