"""Notice in the site and in workers that an outage is over, and log it once."""

import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import connection

from inference.api import outages
from inference.installation.log_lines import logs

log = structlog.get_logger(__name__)

# While something is away, look this often whether it is back.
_LOOK_S = 2.0
_lock = threading.Lock()
_look_at = 0.0


def note_success(**_: Any) -> None:
    """Look whether what was away is back, after a request or a task that succeeded."""
    global _look_at
    away = [part for part in _IS_BACK if logs.outages.lasts(part)]
    if not away or not _lock.acquire(blocking=False):
        return
    try:
        if time.monotonic() < _look_at:
            return
        _look_at = time.monotonic() + _LOOK_S
        for part in away:
            if _is_back(part):
                log.info(f"{part}_available", outage_over=part)
    finally:
        _lock.release()


def _is_back(part: str) -> bool:
    try:
        return _IS_BACK[part]()
    except Exception as error:
        if not outages.is_outage(error):
            raise
        return False


def _database() -> bool:
    # Only a connection that the request used: one that is lost takes seconds to open.
    if connection.connection is None or not connection.is_usable():
        return False
    # A standby and a server that was made read-only answer, too.
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_migrations SET name = name WHERE id = 0")
    return True


def _cache() -> bool:
    cache.get("outage")
    return True


def _disk() -> bool:
    with tempfile.TemporaryFile(dir=settings.HOME.run) as file:
        file.write(bytes(4096))
    return True


_IS_BACK: dict[str, Callable[[], bool]] = {
    "database": _database,
    "cache": _cache,
    "disk": _disk,
}
