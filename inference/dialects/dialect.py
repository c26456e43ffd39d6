"""How one protocol writes requests, answers and errors. Pure.

The plan is the same for all of them: who may call, what it costs, which version
answers. A dialect is the outermost layer of it, from bytes and to bytes.
"""

from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from accounts.admission.limits import Limits
from inference.codecs.decoding import DecodedRequest
from inference.codecs.files.uploaded import AskedFile, UploadedFile
from inference.dialects.call_headers import Head
from inference.engine.wire.messages import Explained
from inference.engine.wire.tensors import Prediction
from inference.errors.api_error import ApiError
from inference.snapshot.targets import Target

Operation = Literal["predict", "batch", "explain", "embed", "stream"]
Headers = list[tuple[bytes, bytes]]


class Call(msgspec.Struct, gc=False):
    """What a driver knows before the body."""

    operation: Operation
    head: Head
    dialect: "Dialect"
    # None: the site's default model, or the one that the body names.
    model: str | None = None
    version: str | None = None
    # ?explain=true; None: neither true nor false, which is refused.
    explain: bool | None = False
    # Address of the peer: the caller, or a proxy before us.
    peer: str = ""
    # Says whether the query holds an API key, where logs and caches keep it.
    key_in_query: bool = False

    @property
    def named_version(self) -> str | None:
        """The version that the caller asks for: in the path, a header, or Accept."""
        return self.head.version if self.version is None else self.version


class Finished(msgspec.Struct, frozen=True, gc=False):
    """All that an answer can be made of."""

    call: Call
    request_id: str
    target: Target
    decoded: DecodedRequest
    # None: the request held no good row.
    prediction: Prediction | None
    explained: Explained | None


class Dialect(Protocol):
    """One instance serves all calls, so it keeps nothing of them."""

    def prepare(self, call: Call) -> int | None:
        """Refuse by the headers alone what cannot be read or answered.

        Gives how many bytes the body may have; None: as many as JSON may. Raises
        ApiError.
        """

    def decode(
        self, call: Call, target: Target, body: bytes, limits: Limits
    ) -> DecodedRequest:
        """Read the request; raises ApiError, and UnsupportedSignature."""

    def encode(self, finished: Finished) -> tuple[bytes, bytes, Headers]:
        """Give content type, body, and headers beyond those of every answer."""

    def render(
        self, call: Call, error: ApiError, *, request_id: str, now: float
    ) -> tuple[int, Headers, bytes]:
        """Give status, headers and body of an error."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A dialect whose requests may name an uploaded file instead of instances."""

    max_binary_body_bytes: int

    def find_file(self, body: bytes) -> AskedFile | None:
        """Read what names a file; None: the body is something else."""

    def decode_file(
        self,
        call: Call,
        target: Target,
        asked: AskedFile,
        file: UploadedFile,
        limits: Limits,
    ) -> DecodedRequest:
        """Read the file as the request's instances; raises ApiError."""


@runtime_checkable
class AnswersFixed(Protocol):
    """A dialect whose answers can be written from JSON that no model said."""

    def encode_fixed(
        self,
        request_id: str,
        model_json: msgspec.Raw,
        decoded: DecodedRequest,
        prediction: Any,
    ) -> tuple[bytes, bytes, Headers] | None:
        """Give the same prediction for each instance; as `encode` gives it.

        None: this prediction has no form here, or not the one that was asked for.
        """
