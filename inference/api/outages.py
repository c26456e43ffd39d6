"""Tell outages of the database, the cache or a disk from errors of our own.

In an outage one of them is away, full or read-only.
"""

import errno
import functools
import sqlite3

import diskcache_community
import django.db
from django_redis.exceptions import ConnectionInterrupted

from inference.errors.api_error import ApiError, ErrorCode

RETRY_S = 5.0
MESSAGE = "This cannot be answered right now. Try again; predictions go on."
_DATABASE = (django.db.OperationalError, django.db.InterfaceError)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK = _FULL | {errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
# PostgreSQL's code for a standby, or for a server that was made read-only.
_READ_ONLY = "25006"


def is_outage(exception: BaseException | None) -> bool:
    """Return whether a call failed only because of an outage behind the site."""
    return part_of(exception) is not None


def part_of(exception: BaseException | None) -> str | None:
    """Return what is away: `database`, `cache`, `disk`, or None for another error."""
    if isinstance(exception, _DATABASE):
        return "database"
    if isinstance(exception, OSError):
        return "disk" if exception.errno in _DISK else None
    if isinstance(exception, _of_cache()):
        return "cache"
    if isinstance(exception, django.db.InternalError):
        read_only = getattr(exception.__cause__, "sqlstate", None) == _READ_ONLY
        return "database" if read_only else None
    return None


@functools.cache
def _of_cache() -> tuple[type[Exception], ...]:
    # Deferred: redis takes a tenth of a second to import, and many need no cache.
    import redis

    return (
        ConnectionInterrupted,
        redis.ConnectionError,
        redis.TimeoutError,
        redis.ReadOnlyError,
        redis.exceptions.OutOfMemoryError,
        # From the cache in files, which uses SQLite without Django.
        sqlite3.OperationalError,
        diskcache_community.Timeout,
    )


def away(exception: BaseException | None = None) -> ApiError:
    """Return the error for an outage; a full disk has its own message."""
    message = MESSAGE
    if isinstance(exception, OSError) and exception.errno in _FULL:
        message = "There is no room left for this on our disk. Try again later."
    return ApiError(ErrorCode.OVERLOADED, message, retry_after_s=RETRY_S)
