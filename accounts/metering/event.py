"""One answered call, as the spool records it before the answer leaves."""

import msgspec

from accounts.admission.limits import ReachedLimit


class Dealt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a route with a canary dealt a call, and whether the version in charge failed.

    The version in charge may differ from the one that answered.
    """

    # The version of the canary that got the call, or else of the route's first canary.
    canary: int
    to_canary: bool
    # The chance of that canary, not of the default, that the call had.
    chance: float
    # Why the version in charge did not answer; empty if it did.
    fault: str = ""
    # If the default got the call: its chances of the further canaries, by version.
    others: tuple[tuple[int, float], ...] = ()
    # What keeps its variant, if a hash dealt it instead of a block: only its first
    # error is evidence. Another stage has others; it tells nobody's key.
    unit: str = ""
    # A code of the first prediction (`inference/prediction/first_prediction.py`), in
    # two bytes; less than 0 if there is none to compare.
    predicted: int = -1
    # The rows of a call that its caller gave up while the version in charge worked.
    given_up_rows: int = 0

    @property
    def chances(self) -> dict[int, float]:
        """Return the chance of each canary of which the call says something."""
        return {self.canary: self.chance, **dict(self.others)}


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
    # Only of calls that a route with a canary dealt.
    dealt: Dealt | None = None
    # Bits of the inputs that callers may leave out and this one sent. Only of models
    # that have such inputs.
    used: int | None = None
