"""Define the stages of a call, with the facts known at each, and make its event."""

import msgspec
import structlog

from accounts.admission.admission import Reserved
from accounts.admission.limits import ReachedLimit
from accounts.metering.event import Dealt, UsageEvent
from inference.codecs.decoding import DecodedRequest
from inference.dialects.dialect import Call
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import VersionKey
from inference.errors.api_error import ErrorCode
from inference.prediction.first_prediction import NO_CODE
from inference.snapshot.keys import KeyEntry
from inference.snapshot.targets import FALLBACK, ModelEntry, Target
from registry.routing import Chances

logger = structlog.get_logger(__name__)

# Errors of the version in charge; all others are the caller's, or nobody's.
_FAULTS = frozenset({ErrorCode.MODEL_ERROR, ErrorCode.MODEL_UNAVAILABLE})
# Only if an engine was asked: before, they tell of a gateway without room or time.
_FAULTS_OF_ASKED = frozenset({ErrorCode.INFERENCE_TIMEOUT, ErrorCode.OVERLOADED})
# What is refused with these was refused by the version in charge and by the default.
_REFUSED_BY_BOTH = frozenset({ErrorCode.INVALID_INPUT, ErrorCode.UNPROCESSABLE})

# In events and logs only: the client is gone.
CLIENT_LEFT_STATUS = 499
CLIENT_LEFT_CODE = "CLIENT_LEFT"


class ReceivedCall(msgspec.Struct, gc=False):
    """A call whose head was read; its caller is not known yet."""

    call: Call
    request_id: str
    sequence: int
    # The plan's timer when the call began.
    started: float
    # The time at which limits count the call, in seconds since the epoch.
    now: float


class KnownCall(ReceivedCall, gc=False):
    """A call with a valid key, and what it costs. It ends in one usage event."""

    entry: KeyEntry
    # The caller's network, if it is new for the key.
    network: str = ""
    model: ModelEntry | None = None
    # The version that answers; None: no version yet, or a fixed answer.
    target: Target | None = None
    rows: int = 0
    # Units of quotas were spent, and are refunded unless the answer is charged.
    spent: bool = False
    # Units of quotas reserved for a cost that is known only when the call is over.
    reserved: Reserved = ()
    compute_us: int = 0
    queue_us: int = 0
    samples: int = 0
    # `hit` or `miss`, if the route caches predictions.
    cached: bytes = b""
    # What answers instead of the version in charge: `version` or `fixed`.
    fallback: str = ""
    # How the route dealt it, as `Dealt` says; a canary of 0: it was not dealt.
    canary: int = 0
    to_canary: bool = False
    chance: float = 0.0
    others: Chances = ()
    unit: str = ""
    # An engine was asked for its prediction.
    asked: bool = False
    # Why the version in charge did not answer, although another did.
    fault: str = ""
    # Its first prediction is compared with those of other calls.
    is_compared: bool = False
    # A code of its first prediction.
    predicted: int = NO_CODE
    # Bits of the optional inputs that the version got; None: it has none.
    used: int | None = None
    # The limit that refused the call, and the error's message.
    limit: ReachedLimit | None = None
    message: str = ""

    @property
    def is_on_canary(self) -> bool:
        """Return whether the route, not the caller, chose the canary."""
        target = self.target
        return (
            target is not None
            and target.variant == "canary"
            and self.call.named_version is None
        )

    @property
    def customer_id(self) -> int:
        return self.entry.key.customer_id

    def is_charged(self) -> bool:
        """Return whether an answer costs something: not if fixed, or for a test key."""
        return self.fallback != "fixed" and not self.entry.key.test


class PreparedCall(msgspec.Struct, frozen=True, gc=False):
    """A call whose version is chosen and whose rows are decoded for it."""

    known: KnownCall
    model: ModelEntry
    target: Target
    body: bytes
    decoded: DecodedRequest
    timeout_s: float
    # The answer has explanations.
    explains: bool

    def remaining_s(self, timer: float) -> float:
        """Return how long the call may still take; not positive if it is over."""
        return self.timeout_s - (timer - self.known.started)


def log_failure(known: KnownCall, error: EngineError) -> None:
    """Log the id of a request that a model failed on; its caller can report the id."""
    if error.code is EngineErrorCode.MODEL_ERROR and known.target is not None:
        logger.warning(
            "model_failed",
            request_id=known.request_id,
            customer_id=known.entry.key.customer_id,
            key_id=known.entry.key.key_id,
            version=str(known.target.key),
            reason=error.message,
        )


def quarantined(key: VersionKey) -> EngineError:
    return EngineError(EngineErrorCode.QUARANTINED, f"{key} is quarantined")


def usage_event(
    known: KnownCall,
    *,
    boot_id: str,
    status: int,
    code: str,
    charged: bool,
    total_us: int,
) -> UsageEvent:
    """Make the usage event of a call."""
    key, model, target = known.entry.key, known.model, known.target
    dealt = None
    if known.canary:
        fault = _fault(known, code)
        dealt = Dealt(
            known.canary,
            known.to_canary,
            known.chance,
            fault,
            known.others,
            known.unit,
            known.predicted,
            known.rows if code == CLIENT_LEFT_CODE else 0,
        )
    return UsageEvent(
        f"{boot_id}-{known.sequence}",
        known.now,
        key.customer_id,
        key.key_id,
        known.call.operation,
        "" if model is None else model.model.name,
        "" if target is None else target.version,
        known.fallback and FALLBACK if target is None else target.variant,
        status,
        str(code),
        # A call that was refused or failed predicted no rows.
        known.rows if status < 400 else 0,
        charged,
        known.compute_us,
        total_us,
        known.samples,
        known.request_id,
        known.cached == b"hit",
        known.fallback,
        key.test,
        known.limit,
        known.network,
        known.message,
        dealt,
        # What stood in for the version, or refused the call, got no inputs.
        None if target is None or status >= 400 else known.used,
    )


def _fault(known: KnownCall, code: str) -> str:
    """Return why the version in charge did not answer; empty if that is not its fault.

    `code` is the error that the caller was told, or empty.
    """
    # Any version would have refused a call beyond a limit.
    if known.limit is not None or code in _REFUSED_BY_BOTH:
        return ""
    if code in _FAULTS or (known.asked and code in _FAULTS_OF_ASKED):
        return str(known.fault or code)
    return str(known.fault)
