"""Telling that the database or the cache is away from a mistake of ours."""

import django.db
import redis
from django_redis.exceptions import ConnectionInterrupted

from inference.errors import ApiError, ErrorCode

RETRY_S = 5.0
MESSAGE = "This cannot be answered right now. Try again; predictions go on."
_OUTAGES = (
    django.db.OperationalError,
    django.db.InterfaceError,
    ConnectionInterrupted,
    redis.ConnectionError,
    redis.TimeoutError,
)


def is_outage(exception: BaseException | None) -> bool:
    """Tell whether a call failed only because something behind the site is away."""
    return isinstance(exception, _OUTAGES)


def away() -> ApiError:
    return ApiError(ErrorCode.OVERLOADED, MESSAGE, retry_after_s=RETRY_S)
