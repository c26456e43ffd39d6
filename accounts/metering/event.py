"""One answered call, as the spool records it before the answer leaves."""

import msgspec

from accounts.admission.limits import ReachedLimit


class UsageEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One answered or refused call.

    `id` is the process's boot id and a sequence number, never the caller's own.
    """

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
    # Whether the call spends quota; refusals and failures on our side do not.
    charged: bool
    compute_us: int
    total_us: int
    shap_samples: int
    request_id: str
    # Whether the answer came from the cache of predictions.
    cached: bool = False
    # What stood in for the version in charge: version, fixed, or empty for nothing.
    fallback: str = ""
    # Whether the key is in test mode: checked like any other, and charged nothing.
    test: bool = False
    # The limit that a refusal was for.
    limit: ReachedLimit | None = None
    # The network that the key was used from, only in its first call of the day.
    network: str = ""
    # What the caller of a refused call was told.
    message: str = ""
