"""Limit the rates of the API that Django serves, counted in the cache.

Predictions are admitted on the data plane (`accounts.admission`). Jobs, usage and the
like have the same rates, but counted apart and per key: a script that polls its jobs
takes nothing away from predictions.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_ratelimit.core import get_usage
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from accounts.admission.limit_words import counted, span
from accounts.admission.limits import Limits, Rate, ReachedLimit
from accounts.admission.refusal import LimitRefusal
from accounts.customers import plans
from accounts.models import ApiKey

if TYPE_CHECKING:
    # Settings name these classes, so DRF's views import this module first.
    from rest_framework.views import APIView


@dataclass(frozen=True, slots=True)
class _Count:
    rate: Rate
    used: int
    refused: bool
    # Whole seconds until the next window, rounded up.
    wait_s: int

    @property
    def left(self) -> int:
        return max(0, self.rate.quota - self.used)


class RateReached(Throttled):
    """A key called faster than one of its rates allows."""

    def __init__(self, refusal: LimitRefusal) -> None:
        super().__init__(wait=refusal.retry_after_s)
        self.refusal = refusal


class KeyThrottle(BaseThrottle):
    """Refuse calls above the rates of the plan or key, and send rate headers."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        key = request.auth
        if not isinstance(key, ApiKey):
            # Permissions deal with callers without a key.
            return True
        limits = plans.limits_of(key.customer)
        counts: list[_Count] = []
        for rate in _rates(key, limits):
            # Burst comes first: a call that it refuses does not count for the minute.
            counts.append(_count(request, key, rate, increment=True))
            if counts[-1].refused:
                break
        # APIView adds these to every answer, errors too.
        view.headers.update(_headers(counts))
        if counts[-1].refused:
            raise RateReached(_refusal(counts[-1], limits))
        return True


def describe_uncounted(request: Request, view: "APIView", key: ApiKey) -> None:
    """Add rate headers to the answer of a call that was refused uncounted."""
    counts_here = any(isinstance(each, KeyThrottle) for each in view.get_throttles())
    if not counts_here or "RateLimit" in view.headers:
        return
    rates = _rates(key, plans.limits_of(key.customer))
    counts = [_count(request, key, rate, increment=False) for rate in rates]
    view.headers.update(_headers(counts))


def _rates(key: ApiKey, limits: Limits) -> list[Rate]:
    """Return the rates of the plan and of the key, the shortest windows first."""
    own = plans.key_limits_of(key.limited_as, limits)
    rates = [*limits.rates, *(own.rates if own else ())]
    return sorted(rates, key=lambda rate: rate.window_s)


def _refusal(count: _Count, limits: Limits) -> LimitRefusal:
    rate = count.rate
    source = limits.source_of(rate.name) if rate in limits.rates else "key"
    return LimitRefusal(
        kind="rate",
        retry_after_s=float(count.wait_s),
        message=(
            f"This API key has sent {counted(rate.quota, 'requests')} per"
            f" {span(rate.window_s)} to this part of the API, its {rate.name} limit."
            " Slow down."
        ),
        limit=ReachedLimit(
            name=rate.name,
            scope="key",
            source=source,
            unit="requests",
            maximum=rate.quota,
            used=min(count.used, rate.quota),
            window_s=rate.window_s,
            resets_at=int(time.time()) + count.wait_s,
        ),
    )


def _count(request: Request, key: ApiKey, rate: Rate, *, increment: bool) -> _Count:
    usage = get_usage(
        request._request,
        group=f"api-{rate.name}",
        key=lambda group, _: key.quota_key_id,
        rate=(rate.quota, rate.window_s),
        increment=increment,
    )
    if usage is None:
        # RATELIMIT_ENABLE is off.
        return _Count(rate=rate, used=0, refused=False, wait_s=rate.window_s)
    return _Count(
        rate=rate,
        used=usage["count"],
        refused=usage["should_limit"],
        # The window ends at the end of that second.
        wait_s=usage["time_left"] + 1,
    )


def _headers(counts: list[_Count]) -> dict[str, str]:
    nearest = min(counts, key=lambda count: count.left / count.rate.quota)
    name = nearest.rate.name
    return {
        "X-RateLimit-Limit": str(nearest.rate.quota),
        "X-RateLimit-Remaining": str(nearest.left),
        "X-RateLimit-Reset": str(int(time.time()) + nearest.wait_s),
        "RateLimit-Policy": ", ".join(
            f'"{count.rate.name}";q={count.rate.quota};w={count.rate.window_s}'
            for count in counts
        ),
        "RateLimit": f'"{name}";r={nearest.left};t={nearest.wait_s}',
    }
