"""What is known about a call so far, and the event that becomes of it. Pure."""

import msgspec
import structlog

from accounts.admission.admission import Reserved
from accounts.admission.limits import ReachedLimit
from accounts.metering.event import UsageEvent
from inference.dialects.dialect import Call
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.snapshot.keys import KeyEntry
from inference.snapshot.targets import FALLBACK, ModelEntry, Target

logger = structlog.get_logger(__name__)


class CallProgress(msgspec.Struct, gc=False):
    """Filled in by the plan, step by step."""

    # When the call belongs to the windows of its limits, in seconds since the epoch.
    now: float
    # Reading of the plan's timer at the call's start.
    started: float
    sequence: int
    request_id: str
    entry: KeyEntry | None = None
    model: ModelEntry | None = None
    target: Target | None = None
    rows: int = 0
    # Of a refusal, what the caller is told.
    message: str = ""
    spent: bool = False
    compute_us: int = 0
    queue_us: int = 0
    samples: int = 0
    # Of quotas whose cost is known when the call is over.
    reserved: Reserved = ()
    # hit or miss, where predictions are cached.
    cached: bytes = b""
    # What stands in for the version in charge: version or fixed.
    fallback: str = ""
    # The limit that refused it, and its caller's network where that is new.
    limit: ReachedLimit | None = None
    network: str = ""

    def is_charged(self) -> bool:
        """Tell whether an answer costs something; a fixed one does not."""
        return self.fallback != "fixed" and not self.entry.key.test  # type: ignore[union-attr]


def log_failure(progress: CallProgress, error: EngineError) -> None:
    """Say which call a model failed on: its caller tells the owner the request's id."""
    if error.code is EngineErrorCode.MODEL_ERROR and progress.target is not None:
        logger.warning(
            "model_failed",
            request_id=progress.request_id,
            version=str(progress.target.key),
            reason=error.message,
        )


def usage_event(
    call: Call,
    progress: CallProgress,
    *,
    boot_id: str,
    status: int,
    code: str,
    charged: bool,
    total_us: int,
) -> UsageEvent:
    """Make the one event of a call with a valid key."""
    key = progress.entry.key  # type: ignore[union-attr]
    model, target = progress.model, progress.target
    return UsageEvent(
        f"{boot_id}-{progress.sequence}",
        progress.now,
        key.customer_id,
        key.key_id,
        call.operation,
        "" if model is None else model.model.name,
        "" if target is None else target.version,
        progress.fallback and FALLBACK if target is None else target.variant,
        status,
        str(code),
        # What was refused or failed was not predicted.
        progress.rows if status < 400 else 0,
        charged,
        progress.compute_us,
        total_us,
        progress.samples,
        progress.request_id,
        progress.cached == b"hit",
        progress.fallback,
        key.test,
        progress.limit,
        progress.network,
        progress.message,
    )
