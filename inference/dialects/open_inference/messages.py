"""Parse requests of the Open Inference Protocol v2 in JSON.

Specification: https://github.com/kserve/open-inference-protocol, with Triton's
extensions for binary tensors and classification.
"""

from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from inference.codecs.strict_json import parse_object
from inference.errors.api_error import ApiError, ErrorCode

MAX_DIMENSIONS = 16
# Largest dimension; far beyond what a body can hold.
MAX_SIZE = 2**40
# Most classes that an output may be asked for.
MAX_CLASSES = 100_000
_MAX_TENSORS = 10_000
_Size = Annotated[int, Meta(ge=0, le=MAX_SIZE)]
Shape = Annotated[tuple[_Size, ...], Meta(min_length=1, max_length=MAX_DIMENSIONS)]
_MAX_ISSUE = 200


class InputParameters(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    # The tensor's bytes follow the JSON, in the order of the inputs.
    binary_data_size: _Size | None = None
    # MLServer's clients send the type of the original data here; it is ignored.
    content_type: str | None = None


class InferInput(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    shape: Shape
    datatype: str
    data: Raw | UnsetType = UNSET
    parameters: InputParameters | None = None


class OutputParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    binary_data: bool | None = None
    # If not 0: this many best classes as "score:index:label", instead of the scores.
    classification: Annotated[int, Meta(ge=0, le=MAX_CLASSES)] = 0
    content_type: str | None = None


class RequestedOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: OutputParameters = OutputParameters()


class InferRequest(msgspec.Struct, gc=False):
    """A request; unknown members are ignored, as other servers do."""

    inputs: Annotated[list[InferInput], Meta(min_length=1, max_length=_MAX_TENSORS)]
    id: str | None = None
    # KServe's clients repeat the name, MLServer's also the version; the path counts.
    model_name: str | None = None
    model_version: str | _Size | None = None
    parameters: dict[str, Any] | None = None
    outputs: (
        Annotated[tuple[RequestedOutput, ...], Meta(max_length=_MAX_TENSORS)] | None
    ) = None


_decoder = msgspec.json.Decoder(InferRequest)


def read(body: bytes | memoryview) -> InferRequest:
    """Parse a request; raise ApiError INVALID_JSON, or INVALID_INPUT with the place."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        _refuse(str(error)[:_MAX_ISSUE])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # Raises with the place of the fault; if it can parse, a number is too large.
        parse_object(bytes(body))
        _refuse("A number is out of range")


def _refuse(issue: str) -> NoReturn:
    message = f"The request does not fit the Open Inference Protocol: {issue}."
    raise ApiError(ErrorCode.INVALID_INPUT, message)
