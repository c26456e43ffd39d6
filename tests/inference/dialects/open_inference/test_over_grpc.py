"""Any message leads to an answer or to an ApiError, never to another exception."""

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings

from inference.dialects import call_headers
from inference.dialects.dialect import Call, Finished
from inference.dialects.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
)
from inference.dialects.open_inference.over_grpc import OPEN_INFERENCE_GRPC
from inference.engine.signatures.signature import Param
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors.api_error import ApiError, ErrorCode
from tests import torture
from tests.inference.dialects.open_inference.open_inference_calls import (
    LIMITS,
    MATRIX,
    TABLE,
    TENSORS,
    target_of,
)

CALL = Call("predict", call_headers.Head(), OPEN_INFERENCE_GRPC, "m")


def matrix(**members):
    request = ModelInferRequest(model_name="m", **members)
    request.inputs.add(name="input", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([1, 2], "<f4").tobytes())
    return request


def table():
    request = ModelInferRequest(model_name="m")
    age = request.inputs.add(name="age", datatype="INT64", shape=[1])
    age.contents.int64_contents.append(7)
    city = request.inputs.add(name="city", datatype="BYTES", shape=[1])
    city.contents.bytes_contents.append("é".encode())
    return request


def tensors():
    request = ModelInferRequest(model_name="m")
    for name, datatype, dtype in (("ids", "INT64", "<i8"), ("mask", "INT8", "i1")):
        request.inputs.add(name=name, datatype=datatype, shape=[1, 3])
        request.raw_input_contents.append(np.ones(3, dtype).tobytes())
    return request


CASES = [
    (target_of(signature), request)
    for signature, request in (
        (MATRIX, matrix()),
        (TABLE, table()),
        (TENSORS, tensors()),
    )
]


def decode(target, request):
    return OPEN_INFERENCE_GRPC.decode(CALL, target, request, LIMITS)


def test_requests_that_are_mutated_later_are_good():
    for target, request in CASES:
        assert decode(target, request).rows == 1


def test_params_of_the_model_are_parameters():
    signature = msgspec.structs.replace(
        MATRIX, params=(Param("temperature", dtype="float64", default=1.0),)
    )
    request = matrix()
    request.parameters["temperature"].double_param = 0.5
    request.parameters["timeout"].int64_param = 2_000_000

    decoded = decode(target_of(signature), request)

    assert decoded.params == {"temperature": 0.5}
    assert decoded.options.timeout_ms == 2000


def test_classification_is_asked_for_by_output():
    request = matrix(id="7")
    output = request.outputs.add(name="scores")
    output.parameters["classification"].int64_param = 1
    target = target_of(MATRIX)
    scores = Tensor("scores", np.array([[0.25, 0.75]], "float32"))
    prediction = Prediction((scores,), 1, 2, 3)

    _, body, _ = OPEN_INFERENCE_GRPC.encode(
        Finished(CALL, "req_1", target, decode(target, request), prediction, None)
    )

    response = ModelInferResponse.FromString(body)
    assert response.id == "7"
    assert response.outputs[0].datatype == "BYTES"
    assert response.raw_output_contents[0][4:] == b"0.750000:1:large"


@settings(max_examples=torture.examples(400), deadline=None)
@given(
    kind=st.integers(0, len(CASES) - 1),
    cut=st.integers(0, 30),
    flips=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
)
def test_mutated_messages_are_refused_or_read(kind, cut, flips):
    target, request = CASES[kind]
    body = bytearray(request.SerializeToString())
    for place, value in flips:
        body[place % len(body)] = value
    try:
        mutated = ModelInferRequest.FromString(bytes(body[: len(body) - cut]))
    except DecodeError:
        return

    try:
        decoded = decode(target, mutated)
    except ApiError as error:
        status = error.status
    else:
        status = 200
        assert all(len(tensor.data) == decoded.rows for tensor in decoded.tensors)
    assert status < 500


@pytest.mark.parametrize("others", [0, 1])
def test_inputs_in_shared_memory_are_refused_in_words(others):
    request = ModelInferRequest(model_name="m")
    shared = request.inputs.add(name="input", datatype="FP32", shape=[1, 2])
    shared.parameters["shared_memory_region"].string_param = "mine"
    shared.parameters["shared_memory_byte_size"].int64_param = 8
    for _ in range(others):
        # Clients leave out the bytes of the shared input and send the others'.
        request.inputs.add(name="mask", datatype="FP32", shape=[1, 2])
        request.raw_input_contents.append(bytes(8))

    with pytest.raises(ApiError, match="'input' is in shared memory") as caught:
        OPEN_INFERENCE_GRPC.decode(CALL, target_of(MATRIX), request, LIMITS)

    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_outputs_into_shared_memory_are_refused_in_words():
    request = matrix()
    output = request.outputs.add(name="output")
    output.parameters["shared_memory_region"].string_param = "mine"

    with pytest.raises(ApiError, match="'output' is in shared memory"):
        OPEN_INFERENCE_GRPC.decode(CALL, target_of(MATRIX), request, LIMITS)
