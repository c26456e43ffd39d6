"""Strict parsing of JSON bodies that the compiled decoders refused. Pure."""

import json
from typing import Any, NoReturn

import msgspec

from inference.errors.api_error import ApiError, ErrorCode


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly; raises ApiError INVALID_JSON or INVALID_INPUT.

    Numbers beyond the range of a double become infinite, for the rules to refuse.
    """
    value = parse(body)
    if not isinstance(value, dict):
        raise ApiError(ErrorCode.INVALID_INPUT, "The body must be a JSON object.")
    return value


def parse(body: bytes | str) -> Any:
    """Parse any JSON strictly; raises ApiError INVALID_JSON."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        # Several times slower, but it reads any number and says where the body ends
        # to be JSON.
        return _parse_slowly(body)


def _parse_slowly(body: bytes | str) -> Any:
    try:
        text = body if isinstance(body, str) else body.decode()
        value = _load(text)
        if "\\u" in text:
            # Half a surrogate pair parses, but is no text that can be passed on.
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
        # Python refuses to read very long integers. A hook for each integer costs
        # more than all the rest, so it is there only for bodies that need it.
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int)


def _parse_int(digits: str) -> float:
    # As doubles they are infinite.
    return int(digits) if len(digits) <= 310 else float(digits)


def _refuse_constant(_name: str) -> NoReturn:
    raise _not_json("The body is not JSON: NaN and Infinity are not JSON numbers.")


def _not_json(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_JSON, message)
