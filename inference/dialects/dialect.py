"""Define a dialect: how one protocol writes requests, answers and errors.

All protocols share one plan: who may call, what it costs, which version answers. A
dialect only translates from and to bytes.
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
    """A call as its driver knows it before the body."""

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
    # The query holds an API key, where logs and caches keep it.
    key_in_query: bool = False

    @property
    def named_version(self) -> str | None:
        """The version that the caller asks for: in the path, a header, or Accept."""
        return self.head.version if self.version is None else self.version


class Finished(msgspec.Struct, frozen=True, gc=False):
    """All facts that an answer can be made of."""

    call: Call
    request_id: str
    target: Target
    decoded: DecodedRequest
    # None: the request held no good row.
    prediction: Prediction | None
    explained: Explained | None


class Dialect(Protocol):
    """A protocol. One instance serves all calls, so it keeps no state of them."""

    def prepare(self, call: Call) -> int | None:
        """Refuse a call whose headers show that it cannot be read or answered.

        Returns the limit on the body in bytes; None: the limit for JSON. Raises
        ApiError.
        """

    def decode(
        self, call: Call, target: Target, body: bytes, limits: Limits
    ) -> DecodedRequest:
        """Read the request; raises ApiError, and UnsupportedSignature."""

    def encode(self, finished: Finished) -> tuple[bytes, bytes, Headers]:
        """Return content type, body, and headers beyond those of every answer."""

    def render(
        self, call: Call, error: ApiError, *, request_id: str, now: float
    ) -> tuple[int, Headers, bytes]:
        """Return status, headers and body of an error."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A dialect whose requests may name an uploaded file instead of instances."""

    max_binary_body_bytes: int

    def find_file(self, body: bytes) -> AskedFile | None:
        """Read a body that names a file; return None for any other body."""

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
    """A dialect that can write a fixed answer, which is JSON and not of a model."""

    def encode_fixed(
        self,
        request_id: str,
        model_json: msgspec.Raw,
        decoded: DecodedRequest,
        prediction: Any,
    ) -> tuple[bytes, bytes, Headers] | None:
        """Write the same prediction for each instance; returns the same as `encode`.

        Returns None if the dialect cannot write it, or not in the form asked for.
        """
