"""What a plan knows of a call, what it asks its driver for, and what it gives. Pure."""

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


class NeedBody(msgspec.Struct, frozen=True, gc=False):
    """Read the whole body; throw TOO_LARGE or REQUEST_TIMEOUT.

    Answered by bytes or a bytearray.
    """

    max_bytes: int
    # Whose share of the room for large bodies it uses.
    customer_id: int


class NeedUnits(msgspec.Struct, frozen=True):
    """Fetch a lease. Answered by a LeaseGrant; None: `admission` has it."""

    request: LeaseRequest
    admission: Admission | KeyAdmission


class EngineCall(PredictionCall, frozen=True, gc=False, kw_only=True):
    """Run the version on one of the engines. Answered by a Prediction."""

    engines: tuple[str, ...]


class ExplainCall(ExplanationCall, frozen=True, kw_only=True):
    """Explain on one of the engines. Answered by Explained."""

    engines: tuple[str, ...]


class ReadImages(msgspec.Struct, frozen=True):
    """Decode pictures where that keeps nobody waiting. Answered by DecodedRows."""

    images: EncodedImages
    timeout_s: float
    customer_id: int = 0


class ReadUpload(msgspec.Struct, frozen=True):
    """Read a customer's uploaded file whole. Answered by an UploadedFile."""

    upload_id: str
    customer_id: int
    max_bytes: int


class ChunkSource(Protocol):
    """Whatever the driver reads the chunks from; the plan only hands it back."""


class NoChunk(enum.Enum):
    """What is no chunk; a chunk may be any JSON value, null too."""

    ENDED = "ended"
    NOTHING_YET = "nothing yet"


class StreamAbandoned(Exception):
    """Thrown into the plan when the client left; it still gives the event."""


class OpenStream(StreamCall, frozen=True, kw_only=True):
    """Begin to stream on one of the engines. Answered by a ChunkSource.

    The driver closes it when the plan ends, however that happens.
    """

    engines: tuple[str, ...]


class NextChunk(msgspec.Struct, frozen=True):
    """Wait for a chunk, a JSON value, for `wait_s`. Answered by it or a NoChunk."""

    stream: ChunkSource
    wait_s: float


class SendHead(msgspec.Struct, frozen=True):
    """Send status 200 and these headers: what follows comes piece by piece."""

    headers: Headers


class SendPiece(msgspec.Struct, frozen=True):
    """Send a piece of the body, and wait until the client has taken enough of it.

    A client that takes nothing for `timeout_s` is given up.
    """

    data: bytes
    timeout_s: float


StreamEffect = OpenStream | NextChunk | SendHead | SendPiece
STREAM_EFFECTS = frozenset({OpenStream, NextChunk, SendHead, SendPiece})


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What goes to the caller, once the event is recorded; None: nobody to charge."""

    status: int
    headers: Headers
    body: bytes
    event: UsageEvent | None


Effect = (
    NeedBody
    | NeedUnits
    | EngineCall
    | ExplainCall
    | ReadImages
    | ReadUpload
    | StreamEffect
)
