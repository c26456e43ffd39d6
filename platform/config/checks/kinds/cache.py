"""Look at the cache, which counts sign-ins."""

import secrets

from django.conf import settings
from django.core.cache import cache

from config.checks.finding import Finding, fault, first_line, well

TITLE = "Cache"

FAILING = fault(
    "cache-failing",
    "The cache does not answer: {reason}.",
    cost="Nobody can sign in: attempts cannot be counted. Predictions go on.",
    mend="sudo systemctl restart redis-server  # or correct CACHE_URL",
)
FILES_FAILING = fault(
    "cache-files-failing",
    "The cache in {folder} cannot be used: {reason}.",
    cost="Nobody can sign in: attempts cannot be counted. Predictions go on.",
    mend="sudo df -h {folder}",
)
PROBLEMS = (FAILING, FILES_FAILING)


def look() -> list[Finding]:
    key, value = f"check-{secrets.token_hex(4)}", secrets.token_hex(4)
    try:
        cache.set(key, value, timeout=10)
        found = cache.get(key)
        cache.delete(key)
    except Exception as error:  # each backend has its own
        return [_failing(first_line(error))]
    if found != value:
        return [_failing("it did not keep what was written")]
    return [well("It keeps what is written.")]


def _failing(reason: str) -> Finding:
    if settings.CACHE_URL:
        return FAILING.found(reason=reason)
    return FILES_FAILING.found(folder=settings.HOME.cache, reason=reason)
