"""Speak the Open Inference Protocol v2 over HTTP, with JSON and binary tensors.

Specification: https://github.com/kserve/open-inference-protocol, and Triton's extension
"binary tensor data": JSON of `Inference-Header-Content-Length` bytes, then the raw
tensors, one after the other.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from accounts.admission.limits import Limits
from inference.codecs.decoding import DecodedRequest
from inference.codecs.options import NO_OPTIONS
from inference.dialects import call_headers
from inference.dialects.dialect import Call, Finished, Headers
from inference.dialects.open_inference import datatypes as data
from inference.dialects.open_inference import messages, outputs
from inference.dialects.open_inference.inputs import SentTensor, input_binding
from inference.dialects.open_inference.messages import InferInput
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
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.rendering import JSON, headers_of
from inference.snapshot.targets import Target

DEFAULT_MAX_JSON_BYTES = 2 * 1024 * 1024
DEFAULT_MAX_BINARY_BODY_BYTES = 32 * 1024 * 1024
JSON_LENGTH = b"inference-header-content-length"
_BINARY = b"application/octet-stream"


class OpenInferenceDialect:
    """The protocol over HTTP; errors are `{"error": "…"}`, with the usual statuses."""

    # Set once, when a process starts.
    max_json_bytes = DEFAULT_MAX_JSON_BYTES
    max_binary_body_bytes = DEFAULT_MAX_BINARY_BODY_BYTES

    def prepare(self, call: Call) -> int | None:
        if call.explain:
            raise refusals.invalid(
                "This protocol has no explanations; call /api/v1/ for them."
            )
        head = call.head
        call_headers.require_plain_body(head)
        if head.json_length is not None:
            return self.max_binary_body_bytes
        if head.content_type != _BINARY:
            call_headers.require_json_body(head)
        return None

    def decode(
        self, call: Call, target: Target, body: bytes, limits: Limits
    ) -> DecodedRequest:
        length = call.head.json_length
        if length is None:
            request = messages.read(body)
            end = len(body)
        else:
            end = _json_length(length, body)
            if end > self.max_json_bytes:
                raise refusals.body_too_large(self.max_json_bytes)
            request = messages.read(memoryview(body)[:end])
        if request.model_name not in (None, target.key.model):
            raise refusals.invalid(
                "`model_name` in the body is not the model of the path."
            )
        if request.model_version is not None:
            _require_version(str(request.model_version), call, target)
        sent = []
        for tensor in request.inputs:
            parameters = tensor.parameters
            nbytes = None if parameters is None else parameters.binary_data_size
            if nbytes is None:
                sent.append(_json_tensor(tensor))
                continue
            sent.append(_raw_tensor(tensor, body, end, nbytes))
            end += nbytes
        if end != len(body):
            raise refusals.invalid("The body is longer than its parts declare.")
        tensors = target.compiled(input_binding).bind(
            sent, max_rows=limits.max_batch_rows
        )
        binary, options, params = False, NO_OPTIONS, None
        if request.parameters:
            binary, options, params = read_parameters(request.parameters, target)
        return OpenInferenceRequest(
            tensors=tensors,
            rows=len(tensors[0].data),
            options=options,
            params=params,
            id=request.id,
            requested=request.outputs,
            binary=binary,
        )

    def encode(self, finished: Finished) -> tuple[bytes, bytes, Headers]:
        request, target = finished.decoded, finished.target
        assert isinstance(request, OpenInferenceRequest)
        assert finished.prediction is not None
        wanted = outputs.wanted(
            finished.prediction.tensors,
            request.requested,
            binary=request.binary,
            labels=target.signature.labels,
        )
        return _written(target.compiled(_answer_head), request, wanted)

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
        head = b'{"model_name":%b,"parameters":%b,' % (
            orjson.dumps(model.name),
            orjson.dumps(model.parameters),
        )
        return _written(head, decoded, wanted)

    def render(
        self, call: Call, error: ApiError, *, request_id: str, now: float
    ) -> tuple[int, Headers, bytes]:
        return render_error(error, request_id)


OPEN_INFERENCE = OpenInferenceDialect()


def render_error(error: ApiError, request_id: str) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error in the protocol's form."""
    body = msgspec.json.encode({"error": error_text(error)})
    return error.status, headers_of(error, request_id, len(body)), body


def _written(
    head: bytes, request: OpenInferenceRequest, wanted: Sequence[WantedOutput]
) -> tuple[bytes, bytes, Headers]:
    if request.id is not None:
        head += b'"id":%b,' % orjson.dumps(request.id)
    described: list[bytes] = []
    raw: list[bytes | memoryview] = []
    for output in wanted:
        described.append(_described(output, raw))
    text = b'%b"outputs":[%b]}' % (head, b",".join(described))
    if not raw:
        return JSON, text, []
    return (
        _BINARY,
        b"".join((text, *raw)),
        [(JSON_LENGTH, b"%d" % len(text))],
    )


def _require_version(given: str, call: Call, target: Target) -> None:
    """Refuse a version in the body that is not the one that answers."""
    if given not in ("", target.version, call.named_version):
        raise refusals.invalid(
            f"`model_version` in the body is not {target.version}, the version that "
            "answers. Name it in the path: /v2/models/{model}/versions/{version}/infer."
        )


def _json_length(text: bytes, body: bytes) -> int:
    if not text.isdigit() or len(text) > 12 or int(text) > len(body):
        message = (
            "Inference-Header-Content-Length must be the number of bytes of the JSON "
            "at the beginning of the body."
        )
        raise ApiError(ErrorCode.INVALID_HEADER, message)
    return int(text)


def _json_tensor(tensor: InferInput) -> SentTensor:
    elements = tensor.data
    if isinstance(elements, msgspec.UnsetType):
        raise refusals.invalid("An input has neither `data` nor `binary_data_size`.")
    return SentTensor(
        tensor.name,
        tensor.datatype,
        tensor.shape,
        lambda datatype, shape: data.read_json(datatype, elements, shape),
    )


def _raw_tensor(tensor: InferInput, body: bytes, start: int, nbytes: int) -> SentTensor:
    if tensor.data is not msgspec.UNSET:
        raise refusals.invalid("An input has both `data` and `binary_data_size`.")
    if start + nbytes > len(body):
        raise refusals.invalid("The body is shorter than its parts declare.")

    def read(datatype: str, shape: messages.Shape) -> Any:
        count = math.prod(shape)
        return data.read_raw(datatype, body, offset=start, nbytes=nbytes, count=count)

    return SentTensor(tensor.name, tensor.datatype, tensor.shape, read)


def _described(output: WantedOutput, raw: list[bytes | memoryview]) -> bytes:
    """Write an output's JSON; if it is sent as raw bytes, append these to `raw`."""
    elements = output.data
    head = b'{"name":%b,"datatype":"%b","shape":%b' % (
        orjson.dumps(output.name),
        data.datatype_of_array(elements).encode(),
        orjson.dumps(elements.shape),
    )
    if not output.binary:
        return b'%b,"data":%b}' % (head, data.write_json(elements))
    buffer = data.write_raw(elements)
    raw.append(buffer)
    return b'%b,"parameters":{"binary_data_size":%d}}' % (head, len(buffer))


def _answer_head(target: Target) -> bytes:
    return b'{"model_name":%b,"model_version":"%b",' % (
        orjson.dumps(target.key.model),
        target.version.encode(),
    )
