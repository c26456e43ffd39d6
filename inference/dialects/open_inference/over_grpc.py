"""Speak the Open Inference Protocol v2 over gRPC.

Bodies are messages that the driver has parsed. Answers are bytes of ModelInferResponse,
whose outputs are always raw. Errors are a text.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from accounts.admission.limits import Limits
from inference.codecs.decoding import DecodedRequest
from inference.codecs.options import NO_OPTIONS
from inference.dialects.dialect import Call, Finished, Headers
from inference.dialects.open_inference import datatypes as data
from inference.dialects.open_inference import outputs
from inference.dialects.open_inference.datatypes import InvalidData
from inference.dialects.open_inference.inputs import SentTensor, input_binding
from inference.dialects.open_inference.messages import (
    MAX_CLASSES,
    MAX_DIMENSIONS,
    MAX_SIZE,
    OutputParameters,
    RequestedOutput,
    Shape,
)
from inference.dialects.open_inference.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
)
from inference.dialects.open_inference.outputs import (
    FallbackModel,
    WantedOutput,
    error_text,
    fixed_outputs,
)
from inference.dialects.open_inference.parameters import (
    OpenInferenceRequest,
    read_parameters,
)
from inference.engine.wire.tensors import Array
from inference.errors import refusals
from inference.errors.api_error import ApiError
from inference.errors.rendering import headers_of
from inference.snapshot.targets import Target

_MAX_TEXT = 1000
_PROTOBUF = b"application/grpc"
# Member of InferTensorContents that holds a datatype's elements.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class OpenInferenceGrpcDialect:
    """The protocol over gRPC; the driver translates HTTP statuses to gRPC's."""

    def prepare(self, call: Call) -> int | None:
        # A message is read, within its limit, before its call begins.
        return None

    def decode(
        self, call: Call, target: Target, body: Any, limits: Limits
    ) -> DecodedRequest:
        request: ModelInferRequest = body
        inputs, raw = request.inputs, request.raw_input_contents
        if not inputs:
            raise refusals.invalid("A request needs at least one input.")
        if len(raw) != len(inputs):
            # Only here: if all inputs are raw, their bytes are in the message.
            for tensor in inputs:
                _refuse_shared_memory(tensor)
        if raw and len(raw) != len(inputs):
            raise refusals.invalid(
                "`raw_input_contents` needs one entry for each input."
            )
        sent = [
            _raw_tensor(tensor, raw[index]) if raw else _typed_tensor(tensor)
            for index, tensor in enumerate(inputs)
        ]
        tensors = target.compiled(input_binding).bind(
            sent, max_rows=limits.max_batch_rows
        )
        options, params = NO_OPTIONS, None
        if request.parameters:
            given = _plain(request.parameters)
            _, options, params = read_parameters(given, target)
        return OpenInferenceRequest(
            tensors=tensors,
            rows=len(tensors[0].data),
            options=options,
            params=params,
            id=request.id,
            requested=tuple(map(_requested, request.outputs)) or None,
            binary=True,
        )

    def encode(self, finished: Finished) -> tuple[bytes, bytes, Headers]:
        request, target = finished.decoded, finished.target
        assert isinstance(request, OpenInferenceRequest)
        assert finished.prediction is not None
        response = ModelInferResponse(
            model_name=target.key.model, model_version=target.version, id=request.id
        )
        wanted = outputs.wanted(
            finished.prediction.tensors,
            request.requested,
            binary=True,
            labels=target.signature.labels,
        )
        return _written(response, wanted)

    def encode_fixed(
        self,
        request_id: str,
        model_json: msgspec.Raw,
        decoded: DecodedRequest,
        prediction: Any,
    ) -> tuple[bytes, bytes, Headers] | None:
        assert isinstance(decoded, OpenInferenceRequest)
        wanted = fixed_outputs(decoded, prediction)
        if wanted is None:
            return None
        model = msgspec.json.decode(model_json, type=FallbackModel)
        response = ModelInferResponse(model_name=model.name, id=decoded.id)
        response.parameters["fallback"].bool_param = True
        response.parameters["fallback_reason"].string_param = model.fallback_reason
        return _written(response, wanted)

    def render(
        self, call: Call, error: ApiError, *, request_id: str, now: float
    ) -> tuple[int, Headers, bytes]:
        body = error_text(error)[:_MAX_TEXT].encode()
        return error.status, headers_of(error, request_id, len(body)), body


OPEN_INFERENCE_GRPC = OpenInferenceGrpcDialect()


def _written(
    response: Any, wanted: Sequence[WantedOutput]
) -> tuple[bytes, bytes, Headers]:
    for output in wanted:
        response.outputs.add(
            name=output.name,
            datatype=data.datatype_of_array(output.data),
            shape=output.data.shape,
        )
        response.raw_output_contents.append(bytes(data.write_raw(output.data)))
    return _PROTOBUF, response.SerializeToString(), []


def _raw_tensor(tensor: Any, raw: bytes) -> SentTensor:
    if tensor.HasField("contents"):
        raise refusals.invalid("An input has both `contents` and `raw_input_contents`.")

    def read(datatype: str, shape: Shape) -> Array:
        count = math.prod(shape)
        return data.read_raw(datatype, raw, offset=0, nbytes=len(raw), count=count)

    return SentTensor(tensor.name, tensor.datatype, _shape(tensor), read)


def _typed_tensor(tensor: Any) -> SentTensor:
    def read(datatype: str, shape: Shape) -> Array:
        member = _CONTENTS.get(datatype)
        if member is None:
            raise InvalidData(f"can be sent as {datatype} in `raw_input_contents` only")
        elements = getattr(tensor.contents, member)
        count = math.prod(shape)
        if len(elements) != count:
            raise InvalidData(
                f"has {len(elements)} elements in `{member}`, but its shape needs "
                f"{count}"
            )
        return data.read_elements(datatype, elements)

    return SentTensor(tensor.name, tensor.datatype, _shape(tensor), read)


def _shape(tensor: Any) -> Shape:
    shape = tuple(tensor.shape)
    if not 0 < len(shape) <= MAX_DIMENSIONS or not all(
        0 <= size <= MAX_SIZE for size in shape
    ):
        raise refusals.invalid(
            f"The shape of an input must have 1 to {MAX_DIMENSIONS} sizes, none of "
            f"them negative or beyond {MAX_SIZE}."
        )
    return shape


def _refuse_shared_memory(tensor: Any) -> None:
    if any(name.startswith("shared_memory_") for name in tensor.parameters):
        raise refusals.invalid(
            f"The tensor {tensor.name[:80]!r} is in shared memory, which is not read "
            "or written here. Send it in the message."
        )


def _requested(output: Any) -> RequestedOutput:
    _refuse_shared_memory(output)
    given = _plain(output.parameters)
    count = given.pop("classification", 0)
    # Outputs are always raw here.
    given.pop("binary_data", None)
    if given or type(count) is not int or not 0 <= count <= MAX_CLASSES:
        raise refusals.invalid(
            "An output may have the parameters `classification`, from 0 to "
            f"{MAX_CLASSES}, and `binary_data` only."
        )
    return RequestedOutput(output.name, OutputParameters(classification=count))


def _plain(parameters: Mapping[str, InferParameter]) -> dict[str, Any]:
    plain = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        plain[name] = None if choice is None else getattr(value, choice)
    return plain
