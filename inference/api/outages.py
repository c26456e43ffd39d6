"""Tell outages of the database, the cache or a disk from errors of our own.

In an outage one of them is away, full or read-only.
"""

import errno
import sqlite3

import diskcache_community
import django.db
import redis
from django_redis.exceptions import ConnectionInterrupted

from inference.errors.api_error import ApiError, ErrorCode

RETRY_S = 5.0
MESSAGE = "This cannot be answered right now. Try again; predictions go on."
_OUTAGES = (
    django.db.OperationalError,
    django.db.InterfaceError,
    ConnectionInterrupted,
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    # From the cache in files, which uses SQLite without Django.
    sqlite3.OperationalError,
    diskcache_community.Timeout,
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK = _FULL | {errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
# PostgreSQL's code for a standby, or for a server that was made read-only.
_READ_ONLY = "25006"


def is_outage(exception: BaseException | None) -> bool:
    """Return whether a call failed only because of an outage behind the site."""
    if isinstance(exception, _OUTAGES):
        return True
    if isinstance(exception, OSError):
        return exception.errno in _DISK
    if isinstance(exception, django.db.InternalError):
        return getattr(exception.__cause__, "sqlstate", None) == _READ_ONLY
    return False


def away(exception: BaseException | None = None) -> ApiError:
    """Return the error for an outage; a full disk has its own message."""
    message = MESSAGE
    if isinstance(exception, OSError) and exception.errno in _FULL:
        message = "There is no room left for this on our disk. Try again later."
    return ApiError(ErrorCode.OVERLOADED, message, retry_after_s=RETRY_S)
