"""Say once that something is away, and once that it is back.

A line about a failure names what is away: `outage="database"`. While it lasts, lines of
the same outage are only counted. The line that ends it has `outage_over="database"`;
it is written only if there was an outage, so callers may log it after each success.
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_MOST_REASON = 500
_CREDENTIALS = re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+@")
_PASSWORD = re.compile(r"(?i)\b(password|passwd|pwd)(\s*[=:]\s*)([^\s,;&'\"]+)")
# Errors of databases whose text quotes no row.
_ABOUT_THE_CONNECTION = frozenset(
    {"OperationalError", "InterfaceError", "InternalError"}
)
_DATABASES = ("django.db.", "psycopg.", "sqlite3")


@dataclass(slots=True)
class _Outage:
    began: float
    at: str
    failures: int = 1


class OutageLines:
    """Decide which lines about outages of one process are written."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._now = now
        # Which part of the installation an exception says is away, if any.
        self.part_of: Callable[[BaseException], str | None] = lambda _: None
        self._away: dict[str, _Outage] = {}
        self._lock = threading.RLock()

    def lasts(self, name: str) -> bool:
        return name in self._away

    def complete(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return the line to write, or None for one that says nothing new."""
        over = event.pop("outage_over", None)
        if over is not None:
            if over not in self._away:
                return None
            with self._lock:
                outage = self._away.pop(over, None)
            if outage is None:
                return None
            lasted_s = round(self._clock() - outage.began, 1)
            return event | {
                "outage": over,
                "since": outage.at,
                "lasted_s": lasted_s,
                "failures": outage.failures,
            }
        name = event.get("outage")
        if name is None:
            return event
        with self._lock:
            outage = self._away.get(name)
            if outage is not None:
                outage.failures += 1
                return None
            at = self._now().isoformat(timespec="seconds")
            self._away[name] = _Outage(self._clock(), at)
        return event


def reason_of(error: BaseException) -> str:
    """Return an exception's kind and text in one line, without passwords.

    Databases quote rows in some errors; of these it is the kind alone.
    """
    kind = type(error).__name__
    origin = f"{type(error).__module__}."
    if origin.startswith(_DATABASES) and kind not in _ABOUT_THE_CONNECTION:
        return kind
    text = " ".join(str(error).split())
    return without_passwords(f"{kind}: {text}" if text else kind)[:_MOST_REASON]


def without_passwords(text: str) -> str:
    """Hide passwords in addresses and in settings such as `password=…`."""
    if "://" in text:
        text = _CREDENTIALS.sub(r"\1:…@", text)
    return _PASSWORD.sub(r"\1\2…", text)
