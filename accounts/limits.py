"""What a customer may do, as plain data. Pure: shared by the gateway and Django."""

from typing import Literal

import msgspec

Scope = Literal["predict", "explain", "jobs", "usage", "models:read"]
SCOPES: tuple[Scope, ...] = ("predict", "explain", "jobs", "usage", "models:read")


class Rate(msgspec.Struct, frozen=True, gc=False):
    """At most `quota` requests in each window of `window_s` seconds since the epoch."""

    name: str
    quota: int
    window_s: int


class Quota(msgspec.Struct, frozen=True, gc=False):
    """At most `limit` units per UTC day or month."""

    name: Literal["day", "month"]
    unit: Literal["requests", "rows"]
    limit: int


class Limits(msgspec.Struct, frozen=True):
    """A customer's plan with its overrides applied."""

    plan: str
    rates: tuple[Rate, ...]
    quotas: tuple[Quota, ...] = ()
    max_concurrency: int | None = None
    max_predict_rows: int = 100
    max_batch_rows: int = 1000
    max_job_rows: int = 1_000_000


class LeaseRequest(msgspec.Struct, frozen=True):
    """Ask for `units` of a quota, `minimum` at least; less is no use to the asker."""

    customer_id: int
    quota: Literal["day", "month"]
    unit: Literal["requests", "rows"]
    # Start of the window, seconds since the epoch.
    window_start: int
    units: int
    minimum: int


class LeaseGrant(msgspec.Struct, frozen=True):
    """`units` granted (0: not even the minimum was left) and what is left after it.

    `remaining` is negative where a limit was lowered below what is already granted.
    """

    units: int
    remaining: int


class LeaseReturn(msgspec.Struct, frozen=True):
    """Units of one window that were leased, not spent, and go back."""

    customer_id: int
    quota: Literal["day", "month"]
    unit: Literal["requests", "rows"]
    # Start of the window, seconds since the epoch.
    window_start: int
    units: int
