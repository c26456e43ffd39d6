"""The limit that a call was refused for, as a sentence for its customer. Pure."""

import datetime
from collections.abc import Mapping
from typing import Any

_WHOSE = {
    "plan": ", a limit of your plan",
    "override": ", a limit of your account",
    "key": ", a limit of this API key",
    "site": ", a limit of this installation",
}
_UNITS = {
    "compute_ms": "ms of compute",
    "shap_samples": "SHAP samples",
    "concurrent-requests": "requests in flight at once",
}
_ONE = {
    "compute_ms": "ms of compute",
    "shap_samples": "SHAP sample",
    "concurrent-requests": "request in flight at once",
}
# Seconds in a day, and in the shortest month.
_DAY_S = 86_400
_MONTH_S = 28 * _DAY_S


def sentences(limit: Mapping[str, Any], *, now: datetime.datetime) -> str:
    """Describe `Refusal.limit`; empty if it names none."""
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
    unit = str(limit["unit"])
    whose = _WHOSE.get(str(limit.get("source")), "")
    maximum = limit.get("maximum", 0)
    if maximum == 1:
        amount = f"1 {_ONE.get(unit, unit.removesuffix('s'))}"
    else:
        amount = f"{maximum:,} {_UNITS.get(unit, unit)}"
    return " ".join(filter(None, (amount, _span(limit)))) + f"{whose}."


def _span(limit: Mapping[str, Any]) -> str:
    """Say per what it counts, which is a call where it has no window."""
    window_s = limit.get("window_s", 0)
    if window_s >= _MONTH_S:
        return "per month"
    spans = {1: "per second", 60: "per minute", _DAY_S: "per day"}
    if window_s:
        return spans.get(window_s, f"per {window_s} s")
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
