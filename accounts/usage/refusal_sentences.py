"""Describe the limit that a call was refused for, in sentences for its customer."""

import datetime
from collections.abc import Mapping
from typing import Any, cast

from accounts.admission.limit_words import OWNERS, noun, span
from accounts.admission.limits import Source


def sentences(limit: Mapping[str, Any], *, now: datetime.datetime) -> str:
    """Describe `Refusal.limit`; empty if the call was not refused for a limit."""
    name = limit.get("limit")
    if not name or not limit.get("unit"):
        return ""
    if name == "backoff":
        first = "This API key was closed for a while: it kept calling while refused."
    else:
        first = _of(limit)
    return " ".join(
        filter(None, (first, _use(limit), _reset(limit.get("resets_at", ""), now)))
    )


def _of(limit: Mapping[str, Any]) -> str:
    maximum = limit.get("maximum", 0)
    amount = f"{maximum:,} {noun(maximum, str(limit['unit']))}"
    owner = OWNERS.get(cast(Source, limit.get("source")))
    whose = f", a limit of {owner}" if owner else ""
    return " ".join(filter(None, (amount, _per(limit)))) + f"{whose}."


def _per(limit: Mapping[str, Any]) -> str:
    """Write what the limit counts per: its window, or one call if it has none."""
    window_s = limit.get("window_s", 0)
    if window_s:
        return f"per {span(window_s)}"
    return "" if limit.get("unit") == "concurrent-requests" else "in one call"


def _use(limit: Mapping[str, Any]) -> str:
    needed, maximum = limit.get("needed", 0), limit.get("maximum", 0)
    used = limit.get("used")
    if used is None:
        return f"This call had {needed:,}." if needed else ""
    if not maximum:
        return ""
    if used >= maximum:
        return "All of it was used."
    if needed:
        left = maximum - used
        were = "was" if left == 1 else "were"
        return f"{left:,} {were} left, and this call needed {needed:,}."
    return f"{used:,} {'was' if used == 1 else 'were'} used."


def _reset(resets_at: str, now: datetime.datetime) -> str:
    if not resets_at:
        return ""
    at = datetime.datetime.fromisoformat(resets_at)
    if at <= now:
        return "It is open again."
    return f"It opens again on {at.day} {at:%B}, {at:%H:%M:%S} UTC."
