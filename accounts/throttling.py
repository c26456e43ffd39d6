"""Rates of the API that Django serves, counted by django-ratelimit in the cache.

Predictions are admitted on the data plane (`accounts.admission`). Jobs, usage and the
like have the same burst and sustained rates, but per key, and counted on their own: a
script that polls its jobs takes nothing away from predictions.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_ratelimit.core import get_usage
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from accounts import plans
from accounts.limits import Rate
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


class KeyThrottle(BaseThrottle):
    """Refuse a key that calls faster than its plan allows, and tell it where it is."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        key = request.auth
        if not isinstance(key, ApiKey):
            # Permissions deal with callers who have no key.
            return True
        counts: list[_Count] = []
        for rate in plans.limits_of(key.customer).rates:
            # Burst first: what it refuses is not counted against the minute.
            counts.append(_count(request, key, rate))
            if counts[-1].refused:
                break
        # APIView puts these on whatever it answers, errors too.
        view.headers.update(_headers(counts))
        self._wait_s = counts[-1].wait_s
        return not counts[-1].refused

    def wait(self) -> float | None:
        return float(self._wait_s)


def _count(request: Request, key: ApiKey, rate: Rate) -> _Count:
    usage = get_usage(
        request._request,
        group=f"api-{rate.name}",
        key=lambda group, _: key.key_id,
        rate=(rate.quota, rate.window_s),
        increment=True,
    )
    if usage is None:
        # RATELIMIT_ENABLE is off.
        return _Count(rate=rate, used=0, refused=False, wait_s=rate.window_s)
    return _Count(
        rate=rate,
        used=usage["count"],
        refused=usage["should_limit"],
        # Its windows end with the second that it names.
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
