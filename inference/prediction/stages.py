"""Define the stages of a call, with the facts known at each, and make its event."""

import msgspec
import structlog

from accounts.admission.admission import Reserved
from accounts.admission.limits import ReachedLimit
from accounts.metering.event import UsageEvent
from inference.codecs.decoding import DecodedRequest
from inference.dialects.dialect import Call
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import VersionKey
from inference.snapshot.keys import KeyEntry
from inference.snapshot.targets import FALLBACK, ModelEntry, Target

logger = structlog.get_logger(__name__)


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
    # The limit that refused the call, and the error's message.
    limit: ReachedLimit | None = None
    message: str = ""

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
    )
