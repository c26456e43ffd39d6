"""Look at usage: whether events on disk reach the database in time."""

import time
from collections.abc import Mapping
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from accounts.metering import spool
from accounts.models import SpoolSegment
from accounts.usage import roll_ups
from config.checks import presence
from config.checks.finding import Finding, fault, in_words, or_well, warning
from config.checks.kinds.home import in_bytes

TITLE = "Usage"
_LATE_AFTER_S = 60.0

WAITS = warning(
    "usage-waits",
    "Usage has waited on disk for {age}, {size} of it.",
    cost="Quotas, invoices and charts lack it until it is counted; nothing is lost.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep -E 'ingest|database_un'",
)
NEARLY_FULL = fault(
    "spool-nearly-full",
    "Usage that is not counted fills {percent:.0f} % of MODELYARD_SPOOL_MAX_BYTES.",
    cost="At 100 % nothing is predicted.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep -E 'ingest|database_un'",
)
ROLL_UPS_LATE = warning(
    "roll-ups-late",
    "Hours and days of usage have waited {age} to be added up.",
    cost="Charts and invoices are slow: they add minutes up themselves.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep worker",
)
PROBLEMS = (WAITS, NEARLY_FULL, ROLL_UPS_LATE)


def look() -> list[Finding]:
    if stopped := presence.not_running():
        return stopped
    read = dict(SpoolSegment.objects.values_list("name", "ingested_bytes"))
    complete = set(
        SpoolSegment.objects.exclude(completed_at=None).values_list("name", flat=True)
    )
    unread_bytes, oldest_at = unread(settings.HOME.spool, read, complete)
    now = timezone.now()
    return judge(
        unread_bytes=unread_bytes,
        age_s=0.0 if oldest_at is None else time.time() - oldest_at,
        most_bytes=settings.MODELYARD_SPOOL_MAX_BYTES,
        roll_up_lag_s=roll_ups.lag(now=now).total_seconds(),
    )


def judge(
    *, unread_bytes: int, age_s: float, most_bytes: int, roll_up_lag_s: float
) -> list[Finding]:
    found = []
    if unread_bytes > most_bytes / 2:
        found.append(NEARLY_FULL.found(percent=100 * unread_bytes / most_bytes))
    elif age_s > _LATE_AFTER_S:
        found.append(WAITS.found(age=in_words(age_s), size=in_bytes(unread_bytes)))
    if roll_up_lag_s > roll_ups.LATE_AFTER.total_seconds():
        found.append(ROLL_UPS_LATE.found(age=in_words(roll_up_lag_s)))
    return or_well(found, "All usage is counted.")


def unread(
    folder: Path, read: Mapping[str, int], complete: set[str]
) -> tuple[int, float | None]:
    """Return the bytes of events that are not counted, and the time of the oldest."""
    total, times = 0, []
    for path in folder.glob(f"*{spool.SUFFIX}"):
        if path.name in complete:
            continue
        offset = read.get(path.name, 0)
        first = next(iter(spool.read_events(path, offset)), None)
        if first is not None:
            total += path.stat().st_size - offset
            times.append(first[0].at)
    return total, min(times, default=None)
