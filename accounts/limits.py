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
