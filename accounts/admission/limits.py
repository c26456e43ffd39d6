"""Limits, leases and recalls, as plain data that the gateway and Django share."""

import datetime
from typing import Any, Literal

import msgspec

Scope = Literal["predict", "explain", "jobs", "feedback", "usage", "models:read"]
SCOPES: tuple[Scope, ...] = (
    "predict",
    "explain",
    "jobs",
    "feedback",
    "usage",
    "models:read",
)

# What set a limit: the plan, an override for the customer, the key, or the site.
Source = Literal["plan", "override", "key", "site"]
# Why an API key is refused. Only the holder of the whole key is told the last three.
KeyProblem = Literal["missing", "malformed", "expired", "revoked", "inactive"]
Period = Literal["day", "month"]
Unit = Literal["requests", "rows", "compute_ms", "shap_samples"]


class Rate(msgspec.Struct, frozen=True, gc=False):
    """At most `quota` requests in each window of `window_s` seconds since the epoch."""

    name: str
    quota: int
    window_s: int


class Quota(msgspec.Struct, frozen=True, gc=False):
    """At most `limit` units per UTC day or month.

    Requests and rows of a call are known before it runs. Time on the device and SHAP
    samples are known only after it, so an estimate is reserved and then settled.
    """

    name: Period
    unit: Unit
    limit: int
    # What callers read, if it is not the name: `key-day`, `day-compute_ms`.
    label: str = ""

    @property
    def policy_name(self) -> str:
        return self.label or self.name


class KeyLimits(msgspec.Struct, frozen=True):
    """The limits of one API key, below those of its customer."""

    rates: tuple[Rate, ...] = ()
    quotas: tuple[Quota, ...] = ()
    max_concurrency: int | None = None


class Limits(msgspec.Struct, frozen=True):
    """A customer's plan with its overrides applied."""

    plan: str
    rates: tuple[Rate, ...]
    quotas: tuple[Quota, ...] = ()
    max_concurrency: int | None = None
    max_predict_rows: int = 100
    max_batch_rows: int = 1000
    max_job_rows: int = 1_000_000
    # For the body of one prediction; None: the site's own limit holds.
    max_body_bytes: int | None = None
    max_jobs_in_flight: int | None = None
    # For uploads that have not expired.
    max_uploads: int = 1000
    max_upload_bytes: int = 10_000_000_000
    # The limits above that differ from the plan, by the names that callers read.
    overridden: tuple[str, ...] = ()

    def source_of(self, name: str) -> Source:
        return "override" if name in self.overridden else "plan"


class ReachedLimit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The limit that a call was refused for, with its numbers at that moment."""

    # burst, sustained, key-burst, day, key-month, day-compute_ms, concurrency, backoff,
    # max_batch_rows …
    name: str
    # Whether it counts all calls of a customer or those of one key.
    scope: Literal["customer", "key"]
    source: Source
    unit: str
    maximum: int
    # How much of `maximum` is used up; None if each call is measured alone.
    used: int | None = None
    # What this call needs; 0 if all calls need the same.
    needed: int = 0
    # Length of the window in seconds, and its end in epoch seconds; 0: no window.
    window_s: int = 0
    resets_at: int = 0

    def facts(self) -> dict[str, Any]:
        """Return the members that describe it in an error."""
        facts: dict[str, Any] = {
            "limit": self.name,
            "scope": self.scope,
            "source": self.source,
            "unit": self.unit,
            "maximum": self.maximum,
        }
        if self.used is not None:
            facts["used"] = self.used
        if self.needed:
            facts["needed"] = self.needed
        if self.window_s:
            facts["window_s"] = self.window_s
        if self.resets_at:
            at = datetime.datetime.fromtimestamp(self.resets_at, datetime.UTC)
            facts["resets_at"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        return facts


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for `units` of a quota, or at least for `minimum`.

    Calls wait for `needed` of them; the rest is for later calls. The request also says
    what the asker has, so that it puts right what a lost message left undone: see
    accounts/quotas/lending.py.
    """

    customer_id: int
    # The key whose own quota it is; empty: the customer's quota.
    key_id: str = ""
    quota: Period
    unit: Unit
    # Start of the window, seconds since the epoch.
    window_start: int
    units: int
    minimum: int
    needed: int = 0
    # Grows with every request of a holder for this window. 0: the answer cannot get
    # lost, so what the holder has is not compared.
    number: int = 0
    # Units the holder was lent in this window and did not give back, spent or not.
    leased: int = 0
    # Units it spent beyond those while the site could not be asked.
    overdrawn: int = 0


class LeaseGrant(msgspec.Struct, frozen=True):
    """The `units` granted (0: the minimum was not left) and those that remain.

    `remaining` is negative if the limit was lowered below what is already granted.
    """

    units: int
    remaining: int
    # How many processes have a lease of this window.
    holders: int = 1
    # There is no such active customer.
    unknown: bool = False


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a holder for the units that it has not spent."""

    customer_id: int
    key_id: str = ""
    quota: Period
    unit: Unit
    window_start: int


class Recalled(msgspec.Struct, frozen=True):
    """The units that a holder gave up, and the number of its last request."""

    units: int
    number: int
