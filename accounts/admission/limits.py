"""What a customer may do, as plain data. Pure: shared by the gateway and Django."""

import datetime
from typing import Any, Literal

import msgspec

Scope = Literal["predict", "explain", "jobs", "usage", "models:read"]
SCOPES: tuple[Scope, ...] = ("predict", "explain", "jobs", "usage", "models:read")

# Who set a limit: its plan, an exception for the customer, the key itself, or the site.
Source = Literal["plan", "override", "key", "site"]
# Why an API key is refused. The last three are told for the whole right key only.
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

    What a call costs in requests and rows is known before it runs; time on the device
    and SHAP samples only after it, so an estimate is reserved and then settled.
    """

    name: Period
    unit: Unit
    limit: int
    # What callers read, where that is not the name alone: `key-day`, `day-compute_ms`.
    label: str = ""

    @property
    def policy_name(self) -> str:
        return self.label or self.name


class KeyLimits(msgspec.Struct, frozen=True):
    """What one API key may use of its customer's limits."""

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
    # Of one prediction's body; None: as much as the site takes.
    max_body_bytes: int | None = None
    max_jobs_in_flight: int | None = None
    # Of uploads that have not expired.
    max_uploads: int = 1000
    max_upload_bytes: int = 10_000_000_000
    # Of all these, by the names that callers read, those that the plan has otherwise.
    overridden: tuple[str, ...] = ()

    def source_of(self, name: str) -> Source:
        return "override" if name in self.overridden else "plan"


class ReachedLimit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The one limit that a call was refused for, with what was known of it then."""

    # burst, sustained, key-burst, day, key-month, day-compute_ms, concurrency, backoff,
    # max_batch_rows …
    name: str
    # Whose calls it counts.
    scope: Literal["customer", "key"]
    source: Source
    unit: str
    maximum: int
    # Of `maximum`, what is used up; None where each call is measured alone.
    used: int | None = None
    # What this call would have needed of it, where calls differ in that.
    needed: int = 0
    # Length of the window and when the next one begins, in epoch seconds; 0: it has
    # none.
    window_s: int = 0
    resets_at: int = 0

    def facts(self) -> dict[str, Any]:
        """Give the members that an error has for it."""
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
    """Ask for `units` of a quota, `minimum` at least; less is no use to the asker.

    Calls wait for `needed` of them; the rest is for calls to come.

    It also says what the asker has, so that whatever a lost message left undone is put
    right by the next one: see accounts/quotas/lending.py.
    """

    customer_id: int
    # Of a key's own quota; empty: the customer's.
    key_id: str = ""
    quota: Period
    unit: Unit
    # Start of the window, seconds since the epoch.
    window_start: int
    units: int
    minimum: int
    needed: int = 0
    # Grows with every request of a holder for this window. 0: the holder asks where
    # the answer cannot get lost, and what it has is not compared.
    number: int = 0
    # Units the holder was lent in this window and did not give back, spent or not.
    leased: int = 0
    # Units it spent beyond those while nobody could be asked.
    overdrawn: int = 0


class LeaseGrant(msgspec.Struct, frozen=True):
    """`units` granted (0: not even the minimum was left) and what is left after it.

    `remaining` is negative where a limit was lowered below what is already granted.
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
    """The units that a holder gave up, and the last request that it had made."""

    units: int
    number: int
