"""Refuse calls for a limit: describe it in numbers and in a sentence."""

from typing import Literal

import msgspec

from accounts.admission.limit_words import OWNERS, PERIOD_ADJECTIVES, are, counted, span
from accounts.admission.limits import Quota, ReachedLimit, Source
from accounts.admission.windows import QuotaWindow, RateWindow

_CONCURRENCY_RETRY_S = 1.0
# How to get a higher limit.
_MORE: dict[Source, str] = {
    "plan": "ask for a larger plan",
    "override": "ask for more",
    "key": "use a key that may do more",
}

Kind = Literal["rate", "quota", "concurrency"]


class LimitRefusal(msgspec.Struct, frozen=True):
    """A limit that refuses a call; after `retry_after_s` it is open again."""

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
    """Return the refusal with the longer wait: the other limit is open by then, too."""
    if other is None or other.retry_after_s <= one.retry_after_s:
        return one
    return other


def too_many_at_once(maximum: int, source: Source) -> LimitRefusal:
    return LimitRefusal(
        kind="concurrency",
        retry_after_s=_CONCURRENCY_RETRY_S,
        message=(
            f"{counted(maximum, 'requests')} {are(maximum)} in flight, the concurrency"
            f" limit of {OWNERS[source]}."
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
    return LimitRefusal(
        kind="rate",
        retry_after_s=rate.ends - now,
        message=(
            f"The {rate.name.removeprefix('key-')} limit of {OWNERS[source]},"
            f" {counted(rate.limit, 'requests')} per {span(rate.window_s)}, is used up."
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


def spent(window: QuotaWindow, units: int, source: Source, now: float) -> LimitRefusal:
    """Refuse a call that needs more `units` than its quota has left."""
    quota = window.quota
    period = PERIOD_ADJECTIVES[quota.name]
    owner = OWNERS[source]
    if units > window.limit:
        message = (
            f"{counted(units, quota.unit)} {are(units)} more than the whole {period}"
            f" quota of {window.limit} of {owner}. Send fewer rows at once."
        )
    elif window.left > 0:
        message = (
            f"{window.left} of {counted(window.limit, quota.unit)} {are(window.left)}"
            f" left of the {period} quota of {owner}; this request needs {units}. Send"
            " fewer rows, or wait for its reset."
        )
    else:
        message = (
            f"The {period} quota of {counted(window.limit, quota.unit)} of {owner} is"
            f" used up. Wait for its reset, or {_MORE[source]}."
        )
    return LimitRefusal(
        kind="quota",
        retry_after_s=window.ends - now,
        message=message,
        limit=reached_quota(
            quota,
            source,
            left=window.left,
            needed=units,
            window=(window.starts, window.ends),
        ),
    )


def reached_quota(
    quota: Quota, source: Source, *, left: int, needed: int, window: tuple[int, int]
) -> ReachedLimit:
    """Describe a quota that lacks units; `window`: its start and end, epoch seconds."""
    starts, ends = window
    return ReachedLimit(
        name=quota.policy_name,
        scope=_scope(source),
        source=source,
        unit=quota.unit,
        maximum=quota.limit,
        used=quota.limit - left,
        needed=needed,
        window_s=ends - starts,
        resets_at=ends,
    )


def concurrency_name(source: Source) -> str:
    return "key-concurrency" if source == "key" else "concurrency"


def _scope(source: Source) -> Literal["customer", "key"]:
    return "key" if source == "key" else "customer"
