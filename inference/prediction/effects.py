"""Define the effects that a plan asks its driver for, and the answer it returns.

The driver sends the result of each effect back into the plan.
"""

import enum
from typing import Protocol

import msgspec

from accounts.admission.admission import Admission
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.limits import LeaseRequest
from accounts.metering.event import UsageEvent
from inference.codecs.images import EncodedImages
from inference.dialects.dialect import Headers
from inference.engine.wire.calls import ExplanationCall, PredictionCall, StreamCall
from inference.engine.wire.tensors import Prediction
from inference.prediction.stages import PreparedCall
from inference.snapshot.targets import ShadowTarget


class NeedBody(msgspec.Struct, frozen=True, gc=False):
    """Read the whole body. Result: bytes or a bytearray.

    Fails with ApiError TOO_LARGE or REQUEST_TIMEOUT.
    """

    max_bytes: int
    # A large body uses this customer's share of the memory for such bodies.
    customer_id: int


class NeedUnits(msgspec.Struct, frozen=True):
    """Fetch a lease. Result: a LeaseGrant; None: `admission` has it already."""

    request: LeaseRequest
    admission: Admission | KeyAdmission


class EngineCall(PredictionCall, frozen=True, gc=False, kw_only=True):
    """Run the version on one of the engines. Result: a Prediction."""

    engines: tuple[str, ...]


class ExplainCall(ExplanationCall, frozen=True, kw_only=True):
    """Explain on one of the engines. Result: Explained."""

    engines: tuple[str, ...]


class ReadImages(msgspec.Struct, frozen=True):
    """Decode images without blocking other calls. Result: DecodedRows."""

    images: EncodedImages
    timeout_s: float
    customer_id: int = 0


class ReadUpload(msgspec.Struct, frozen=True):
    """Read the whole of a customer's uploaded file. Result: an UploadedFile."""

    upload_id: str
    customer_id: int
    max_bytes: int


class ChunkSource(Protocol):
    """The driver's handle of an open stream; the plan only passes it back."""


class NoChunk(enum.Enum):
    """A result in place of a chunk. None would not do: a chunk may be JSON's null."""

    ENDED = "ended"
    NOTHING_YET = "nothing yet"


class CallAbandoned(Exception):
    """Thrown into the plan when the client left; the plan returns an event for it."""


class StreamAbandoned(CallAbandoned):
    """Thrown if the client left after the head of its stream was sent."""


class OpenStream(StreamCall, frozen=True, kw_only=True):
    """Open a stream on one of the engines. Result: a ChunkSource.

    The driver closes it when the plan ends, for whatever reason.
    """

    engines: tuple[str, ...]


class NextChunk(msgspec.Struct, frozen=True):
    """Wait at most `wait_s` for a chunk. Result: a JSON value or a NoChunk."""

    stream: ChunkSource
    wait_s: float


class SendHead(msgspec.Struct, frozen=True):
    """Send status 200 and these headers; the body follows in pieces."""

    headers: Headers


class SendPiece(msgspec.Struct, frozen=True):
    """Send a piece of the body, and wait until the client has read enough of it.

    Fails with StreamAbandoned after `timeout_s`.
    """

    data: bytes
    timeout_s: float


StreamEffect = OpenStream | NextChunk | SendHead | SendPiece
STREAM_EFFECTS = frozenset({OpenStream, NextChunk, SendHead, SendPiece})


class ShadowCopy(msgspec.Struct, frozen=True, gc=False):
    """A call that the default answered, to be sent to the shadow once the answer left.

    Nobody waits for it, so a driver may drop it.
    """

    shadow: ShadowTarget
    call: PreparedCall
    # What the default answered.
    prediction: Prediction


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The answer to send once its event is recorded; without an event, send it now."""

    status: int
    headers: Headers
    body: bytes
    event: UsageEvent | None
    # How long its rows waited in the engine.
    queue_us: int = 0
    copy: ShadowCopy | None = None


Effect = (
    NeedBody
    | NeedUnits
    | EngineCall
    | ExplainCall
    | ReadImages
    | ReadUpload
    | StreamEffect
)
