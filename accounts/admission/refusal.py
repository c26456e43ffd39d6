"""Why a call is refused: the very limit, in numbers and in a sentence. Pure."""

from typing import Literal

import msgspec

from accounts.admission.limits import ReachedLimit, Source
from accounts.admission.windows import QuotaWindow, RateWindow

_CONCURRENCY_RETRY_S = 1.0
_UNITS = {
    "requests": "requests",
    "rows": "rows",
    "compute_ms": "ms of compute",
    "shap_samples": "SHAP samples",
}
_PERIODS = {"day": "daily", "month": "monthly"}
SPANS = {1: "second", 60: "minute"}
# Whose limit it is, as callers know it.
_OF: dict[Source, str] = {
    "plan": "of your plan",
    "override": "of your account",
    "key": "of this API key",
}
_MORE: dict[Source, str] = {
    "plan": "ask for a larger plan",
    "override": "ask for more",
    "key": "use a key that may do more",
}


def counted(number: int, things: str) -> str:
    """Write a number of things, which end in -s, or in one that is not counted."""
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


Kind = Literal["rate", "quota", "concurrency"]


class LimitRefusal(msgspec.Struct, frozen=True):
    """Why a call is refused; waiting `retry_after_s` gets past this limit."""

    kind: Kind
    retry_after_s: float
    message: str
    limit: ReachedLimit

    @property
    def limit_name(self) -> str:
        return self.limit.name


def limit_headers(limit: ReachedLimit, now: float) -> list[tuple[bytes, bytes]]:
    """Describe one limit that has been reached, as `Admission.headers` does."""
    left = max(0, limit.maximum - (limit.used or 0))
    return [
        (b"X-RateLimit-Limit", b"%d" % limit.maximum),
        (b"X-RateLimit-Remaining", b"%d" % left),
        (b"X-RateLimit-Reset", b"%d" % limit.resets_at),
        (
            b"RateLimit",
            b'"%b";r=%d;t=%d' % (limit.name.encode(), left, limit.resets_at - int(now)),
        ),
    ]


def later(one: LimitRefusal, other: LimitRefusal | None) -> LimitRefusal:
    """Give the one to wait for: whoever waits for it finds the other past, too."""
    if other is None or other.retry_after_s <= one.retry_after_s:
        return one
    return other


def too_many_at_once(maximum: int, source: Source) -> LimitRefusal:
    return LimitRefusal(
        kind="concurrency",
        retry_after_s=_CONCURRENCY_RETRY_S,
        message=(
            f"{counted(maximum, 'requests')} {_are(maximum)} in flight, the concurrency"
            f" limit {_OF[source]}."
            " Wait for one to finish."
        ),
        limit=ReachedLimit(
            name=concurrency_name(source),
            scope=_scope(source),
            source=source,
            unit="concurrent-requests",
            maximum=maximum,
            used=maximum,
        ),
    )


def too_fast(rate: RateWindow, source: Source, now: float) -> LimitRefusal:
    span = SPANS.get(rate.window_s, f"{rate.window_s} s")
    return LimitRefusal(
        kind="rate",
        retry_after_s=rate.ends - now,
        message=(
            f"The {rate.name.removeprefix('key-')} limit {_OF[source]},"
            f" {counted(rate.limit, 'requests')} per {span}, is used up."
            f" Slow down, or {_MORE[source]}."
        ),
        limit=ReachedLimit(
            name=rate.name,
            scope=_scope(source),
            source=source,
            unit="requests",
            maximum=rate.limit,
            used=rate.limit - rate.left,
            window_s=rate.window_s,
            resets_at=rate.ends,
        ),
    )


def spent(quota: QuotaWindow, units: int, source: Source, now: float) -> LimitRefusal:
    """Say that a quota lacks the `units` that a call needs."""
    name = _UNITS[quota.quota.unit]
    period = _PERIODS[quota.quota.name]
    if units > quota.limit:
        message = (
            f"{counted(units, name)} {_are(units)} more than the whole {period} quota"
            f" of {quota.limit} {_OF[source]}. Send fewer rows at once."
        )
    elif quota.left > 0:
        message = (
            f"{quota.left} of {counted(quota.limit, name)} {_are(quota.left)} left of"
            f" the {period} quota {_OF[source]}; this request needs {units}. Send fewer"
            " rows, or wait for its reset."
        )
    else:
        message = (
            f"The {period} quota of {counted(quota.limit, name)} {_OF[source]} is used"
            f" up. Wait for its reset, or {_MORE[source]}."
        )
    return LimitRefusal(
        kind="quota",
        retry_after_s=quota.ends - now,
        message=message,
        limit=ReachedLimit(
            name=quota.name,
            scope=_scope(source),
            source=source,
            unit=quota.quota.unit,
            maximum=quota.limit,
            used=quota.limit - quota.left,
            needed=units,
            window_s=quota.ends - quota.starts,
            resets_at=quota.ends,
        ),
    )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def concurrency_name(source: Source) -> str:
    return "key-concurrency" if source == "key" else "concurrency"


def _scope(source: Source) -> Literal["customer", "key"]:
    return "key" if source == "key" else "customer"
