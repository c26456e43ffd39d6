"""Parse JSON strictly where no compiled decoder reads it."""

import json
from typing import Any, NoReturn

import msgspec

from inference.errors.api_error import ApiError, ErrorCode


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly; raise ApiError INVALID_JSON or INVALID_INPUT.

    A number beyond the range of a double becomes infinite; the rules refuse it later.
    """
    value = parse(body)
    if not isinstance(value, dict):
        raise ApiError(ErrorCode.INVALID_INPUT, "The body must be a JSON object.")
    return value


def parse(body: bytes | str) -> Any:
    """Parse any JSON strictly; raise ApiError INVALID_JSON."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        # Several times slower, but it reads any number, and its error names the place.
        return _parse_slowly(body)


def _parse_slowly(body: bytes | str) -> Any:
    try:
        text = body if isinstance(body, str) else body.decode()
        value = _load(text)
        if "\\u" in text:
            # A lone surrogate parses, but cannot be encoded as UTF-8 later.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        # From error.msg alone: the exception's own text may hold the payload.
        place = f"line {error.lineno}, column {error.colno}"
        raise _not_json(f"The body is not JSON: {error.msg} ({place}).") from None
    except UnicodeError:
        raise _not_json("The body is not JSON: it is not valid Unicode.") from None
    except RecursionError:
        raise _not_json("The body is nested too deeply.") from None
    return value


def _load(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # Python refuses to read very long integers. A hook for each integer costs more
        # than the rest of parsing, so only bodies that need it are parsed with it.
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int)


def _parse_int(digits: str) -> float:
    # With more than 310 digits a number is infinite as a double.
    return int(digits) if len(digits) <= 310 else float(digits)


def _refuse_constant(_name: str) -> NoReturn:
    raise _not_json("The body is not JSON: NaN and Infinity are not JSON numbers.")


def _not_json(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_JSON, message)
