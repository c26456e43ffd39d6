"""One answered call, as it is spooled before its answer leaves. Pure."""

import msgspec

from accounts.admission.limits import ReachedLimit


class UsageEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`id` is the process's boot id and a sequence number, never the caller's own."""

    id: str
    # Seconds since the epoch.
    at: float
    customer_id: int
    key_id: str
    # predict, batch, explain, job …
    operation: str
    model: str
    version: str
    variant: str
    status: int
    # Error code; empty for answers.
    code: str
    rows: int
    # Whether the call spends quota: a refusal and a failure on our side do not.
    charged: bool
    compute_us: int
    total_us: int
    shap_samples: int
    request_id: str
    # Given from the cache of predictions.
    cached: bool = False
    # What stood in for the version in charge: version, fixed, or nothing.
    fallback: str = ""
    # Of a key in test mode: checked like any other, and charged nothing.
    test: bool = False
    # Of a refusal, the limit that it was for.
    limit: ReachedLimit | None = None
    # Where the key was used from, coarsely; only where that is new for the day.
    network: str = ""
    # Of a refusal, what its caller was told.
    message: str = ""
