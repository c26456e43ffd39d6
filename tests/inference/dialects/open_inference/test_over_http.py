import json

import msgspec
import numpy as np
import pytest

from inference.dialects.open_inference.over_http import OPEN_INFERENCE
from inference.engine.signatures.signature import Param
from inference.errors.api_error import ApiError, ErrorCode, Problem
from tests.inference.dialects.open_inference.open_inference_calls import (
    MATRIX,
    call_of,
    decode,
    decode_binary,
    encode,
    fp32,
    raw,
)

ONE_ROW = {"inputs": [fp32([1, 2], [1, 2])]}
SCORES = np.array([[0.25, 0.75]], "float32")


def refusal(body, **headers):
    with pytest.raises(ApiError) as caught:
        decode(MATRIX, body, **headers)
    return caught.value


def test_answer_in_json():
    decoded = decode(MATRIX, ONE_ROW | {"id": 'a"b'})

    headers, answer, rest = encode(MATRIX, decoded, scores=SCORES)

    assert headers == {b"content-type": b"application/json"}
    assert rest == b""
    assert answer == {
        "model_name": "m",
        "model_version": "3",
        "id": 'a"b',
        "outputs": [
            {
                "name": "scores",
                "datatype": "FP32",
                "shape": [1, 2],
                "data": [0.25, 0.75],
            }
        ],
    }


def test_answer_in_raw_bytes():
    body = np.array([1, 2], "<f4").tobytes()
    decoded = decode_binary(
        MATRIX,
        [raw("input", [1, 2], "FP32", 8)],
        body,
        parameters={"binary_data_output": True},
    )

    headers, answer, rest = encode(
        MATRIX, decoded, scores=SCORES, label=np.array(["x"], object)
    )

    assert headers[b"content-type"] == b"application/octet-stream"
    assert [
        output["parameters"]["binary_data_size"] for output in answer["outputs"]
    ] == [
        8,
        5,
    ]
    assert rest == SCORES.tobytes() + b"\1\0\0\0x"


def test_outputs_may_be_raw_one_by_one():
    requested = [
        {"name": "b", "parameters": {"binary_data": True}},
        {"name": "a", "parameters": {"classification": 1}},
    ]
    decoded = decode(MATRIX, ONE_ROW | {"outputs": requested})

    _, answer, rest = encode(MATRIX, decoded, a=SCORES, b=np.zeros(1, "int8"))

    assert [output["name"] for output in answer["outputs"]] == ["b", "a"]
    assert answer["outputs"][1]["data"] == ["0.750000:1:large"]
    assert answer["outputs"][1]["datatype"] == "BYTES"
    assert rest == b"\0"


def test_timeout_is_in_microseconds():
    decoded = decode(MATRIX, ONE_ROW | {"parameters": {"timeout": 250_000}})

    assert decoded.options.timeout_ms == 250


def test_params_of_the_model_are_parameters():
    signature = msgspec.structs.replace(
        MATRIX, params=(Param("temperature", dtype="float64", default=1.0),)
    )

    decoded = decode(signature, ONE_ROW | {"parameters": {"temperature": 0.5}})

    assert decoded.params == {"temperature": 0.5}


@pytest.mark.parametrize(
    "parameters",
    [
        {"sequence_id": 1},
        {"temperature": 1},
        {"timeout": "1"},
        {"timeout": 0},
        {"binary_data_output": 1},
    ],
)
def test_parameters_that_mean_nothing_here_are_refused(parameters):
    error = refusal(ONE_ROW | {"parameters": parameters})

    assert error.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", ErrorCode.INVALID_JSON),
        (b"{", ErrorCode.INVALID_JSON),
        (b'{"inputs": [NaN]}', ErrorCode.INVALID_JSON),
        (b"\xff", ErrorCode.INVALID_JSON),
        (b'{"parameters":' + b'{"a":' * 100_000, ErrorCode.INVALID_JSON),
        (b"[]", ErrorCode.INVALID_INPUT),
        (b"{}", ErrorCode.INVALID_INPUT),
        (b'{"inputs": []}', ErrorCode.INVALID_INPUT),
        (b'{"inputs": [{}]}', ErrorCode.INVALID_INPUT),
        (b'{"instances": [1]}', ErrorCode.INVALID_INPUT),
    ],
)
def test_what_is_no_request_is_refused(body, code):
    assert refusal(body).code is code


@pytest.mark.parametrize(
    "tensor",
    [
        {"name": "input", "shape": [1, 2], "datatype": "FP32"},
        fp32([1, 2], [1, 2], parameters={"binary_data_size": 8}),
        fp32([1, 2], [1, 2], parameters={"shared_memory_region": "x"}),
        fp32([1, 2], [1, -2]),
        fp32([1, 2], []),
        fp32([1, 2], [1] * 100),
        fp32([1, 2], [2**63, 2]),
        fp32([1, 2], [1.5, 2]),
        raw("input", [1, 2], "FP32", 8),
        raw("input", [1, 2], "FP32", 2**40),
        raw("input", [1, 2], "FP32", -1),
    ],
)
def test_tensors_that_make_no_sense_are_refused(tensor):
    assert refusal({"inputs": [tensor]}).code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("length", ["", "-1", "x", "1e3", "9" * 20, "100000"])
def test_length_of_the_json_must_be_one(length):
    error = refusal(ONE_ROW, inference_header_content_length=length)

    assert error.code is ErrorCode.INVALID_HEADER


@pytest.mark.parametrize("extra", [b"", b"\0" * 7, b"\0" * 9])
def test_raw_bytes_must_be_as_many_as_announced(extra):
    with pytest.raises(ApiError) as caught:
        decode_binary(MATRIX, [raw("input", [1, 2], "FP32", 8)], extra)

    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_json_of_a_binary_request_has_the_limit_of_json():
    body = json.dumps(ONE_ROW).encode().ljust(3_000_000)

    error = refusal(body, inference_header_content_length=str(len(body)))

    assert error.code is ErrorCode.TOO_LARGE


def test_only_binary_requests_may_be_large():
    assert OPEN_INFERENCE.prepare(call_of()) is None
    assert (
        OPEN_INFERENCE.prepare(call_of(inference_header_content_length="1"))
        == 32 * 1024 * 1024
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"content_encoding": "gzip"},
        {"content_encoding": "deflate", "inference_header_content_length": "1"},
        {"content_type": "text/csv"},
    ],
)
def test_other_media_are_refused(headers):
    with pytest.raises(ApiError) as caught:
        OPEN_INFERENCE.prepare(call_of(**headers))

    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/octet-stream"]
)
def test_media_that_clients_send_are_taken(content_type):
    assert OPEN_INFERENCE.prepare(call_of(content_type=content_type)) is None


def test_explanations_are_not_paid_for_in_vain():
    call = call_of()
    call.explain = True

    with pytest.raises(ApiError, match="no explanations"):
        OPEN_INFERENCE.prepare(call)


def test_errors_are_one_text_and_keep_their_headers():
    details = tuple(Problem("is bad", index=i, field="x") for i in range(5))
    error = ApiError(
        ErrorCode.RATE_LIMIT_EXCEEDED, "Slow down.", retry_after_s=1.2, details=details
    )

    status, headers, body = OPEN_INFERENCE.render(
        call_of(), error, request_id="req_1", now=0.0
    )

    text = msgspec.json.decode(body)["error"]
    assert status == 429
    assert dict(headers)[b"retry-after"] == b"2"
    assert dict(headers)[b"content-length"] == b"%d" % len(body)
    assert text.startswith("RATE_LIMIT_EXCEEDED: Slow down. `x` in row 0 is bad;")
    assert text.count("is bad") == 3


def test_an_input_that_is_there_twice_is_said_to_be():
    error = refusal({"inputs": [fp32([1, 2], [1, 2])] * 2})

    assert error.message == "An input is sent twice."


def test_hints_of_mlservers_clients_are_passed_over():
    body = {
        "inputs": [fp32([1, 2], [1, 2]) | {"parameters": {"content_type": "np"}}],
        "outputs": [{"name": "scores", "parameters": {"content_type": "np"}}],
        "parameters": {"content_type": "pd"},
    }

    decoded = decode(MATRIX, body)

    assert decoded.tensors[0].data.tolist() == [[1.0, 2.0]]


def test_members_that_the_protocol_does_not_know_are_ignored():
    assert decode(MATRIX, ONE_ROW | {"from_grpc": False, "x": [1]}).rows == 1


@pytest.mark.parametrize("version", ["3", 3, "", None])
def test_the_version_that_answers_may_be_named_in_the_body(version):
    assert decode(MATRIX, ONE_ROW | {"model_version": version}).rows == 1


def test_the_version_that_answers_may_have_another_name():
    body = ONE_ROW | {"model_version": "champion"}

    assert decode(MATRIX, body, x_model_version="champion").rows == 1


@pytest.mark.parametrize("version", ["1", 1, "champion"])
def test_another_version_than_the_one_that_answers_is_refused(version):
    error = refusal(ONE_ROW | {"model_version": version})

    assert error.code is ErrorCode.INVALID_INPUT
    assert "`model_version`" in error.message


def test_another_models_name_is_refused():
    error = refusal(ONE_ROW | {"model_name": "other"})

    assert error.code is ErrorCode.INVALID_INPUT
    assert "model_name" in error.message
