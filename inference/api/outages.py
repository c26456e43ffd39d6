"""Telling that something outside of us fails from a mistake of ours.

The database or the cache is away or takes no writes; a disk is full or read-only.
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
    # Of the cache in files, which is SQLite's without Django between.
    sqlite3.OperationalError,
    diskcache_community.Timeout,
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK = _FULL | {errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
# Of PostgreSQL: a standby, or a server that was made read-only.
_READ_ONLY = "25006"


def is_outage(exception: BaseException | None) -> bool:
    """Tell whether a call failed only because something behind the site does."""
    if isinstance(exception, _OUTAGES):
        return True
    if isinstance(exception, OSError):
        return exception.errno in _DISK
    if isinstance(exception, django.db.InternalError):
        return getattr(exception.__cause__, "sqlstate", None) == _READ_ONLY
    return False


def away(exception: BaseException | None = None) -> ApiError:
    """Say that it is not the caller's fault, and what lasts until somebody acts."""
    message = MESSAGE
    if isinstance(exception, OSError) and exception.errno in _FULL:
        message = "There is no room left for this on our disk. Try again later."
    return ApiError(ErrorCode.OVERLOADED, message, retry_after_s=RETRY_S)
