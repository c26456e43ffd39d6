import json

import msgspec
import numpy as np
import pytest

from accounts.admission.limits import Limits
from inference.codecs.decoding import InstanceDecoder
from inference.dialects import call_headers
from inference.dialects.dialect import Call, Finished
from inference.dialects.mlflow.scoring import MLFLOW, to_predictions
from inference.engine.signatures.signature import Column, Layout, Param, Signature
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.snapshot.contents import CallableModel, CallableVersion
from inference.snapshot.targets import Target

TABLE = Signature(
    layout=Layout.TABLE,
    columns=(Column("a", dtype="float64"), Column("b", dtype="bool", required=False)),
)
TENSOR = Signature(layout=Layout.TENSOR, shape=(2,))
LIMITS = Limits(plan="p", rates=(), max_batch_rows=3)


def target_of(signature):
    version = CallableVersion(version=3, signature=signature)
    model = CallableModel(name="m", versions=(version,))
    return Target(model, version, variant="default")


def call_of(content_type=None, **headers):
    if content_type is not None:
        headers["content-type"] = content_type
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Call("batch", call_headers.read(given), MLFLOW, "m")


def decode(signature, body, content_type=None):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    call = call_of(content_type)
    MLFLOW.prepare(call)
    return MLFLOW.decode(call, target_of(signature), body, LIMITS)


def predictions(signature, *outputs):
    call, target = call_of(), target_of(signature)
    decoded = MLFLOW.decode(call, target, b'{"inputs": [[1, 2]]}', LIMITS)
    result = Prediction(outputs, 0, 0, 1)
    _, body, _ = MLFLOW.encode(Finished(call, "r", target, decoded, result, None))
    return body


def test_rows_become_the_models_tensors():
    decoded = decode(
        TABLE, {"inputs": [{"a": 1, "b": True}, {"a": "2.5", "b": False, "x": 1}]}
    )

    assert decoded.rows == 2
    assert {tensor.name: tensor.data.tolist() for tensor in decoded.tensors} == {
        "a": [1.0, 2.5],
        "b": [True, False],
    }


def test_params_of_the_model_are_read_and_others_ignored():
    signature = msgspec.structs.replace(
        TENSOR, params=(Param("times", "int64", default=1),)
    )

    def params(given):
        return decode(signature, {"inputs": [[1, 2]], "params": given}).params

    assert params({"times": 2, "other": 3}) == {"times": 2}
    assert params({"other": 3}) is None
    assert params(None) is None


@pytest.mark.parametrize("params", [{"times": "often"}, [1]])
def test_bad_params_are_refused(params):
    signature = msgspec.structs.replace(
        TENSOR, params=(Param("times", "int64", default=1),)
    )

    with pytest.raises(ApiError) as caught:
        decode(signature, {"inputs": [[1, 2]], "params": params})

    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_csv_becomes_the_models_tensors():
    decoded = decode(TENSOR, b"x,y\n1,2\n3,4\n", "text/csv; charset=UTF-8")

    assert decoded.tensors[0].data.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/json; charset=latin-1", "application/json; x=1"],
)
def test_other_content_types_are_refused(content_type):
    with pytest.raises(ApiError) as caught:
        MLFLOW.prepare(call_of(content_type))

    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE


def test_compressed_bodies_are_refused():
    with pytest.raises(ApiError) as caught:
        MLFLOW.prepare(call_of(**{"content-encoding": "gzip"}))

    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE


def test_more_rows_than_the_plan_allows_are_refused():
    with pytest.raises(ApiError) as caught:
        decode(TENSOR, {"inputs": [[1, 2]] * 4})

    assert caught.value.code is ErrorCode.TOO_LARGE


@pytest.mark.parametrize(
    ("value", "code"),
    [("x", ErrorCode.INVALID_INPUT), (None, ErrorCode.INVALID_INPUT)],
)
def test_bad_values_are_named(value, code):
    with pytest.raises(ApiError) as caught:
        decode(TABLE, {"inputs": [{"a": 1}, {"a": value}]})

    assert caught.value.code is code
    assert [(one.index, one.field) for one in caught.value.details] == [(1, "a")]


@pytest.mark.parametrize(
    "signature",
    [
        Signature(layout=Layout.TENSOR, dtype="int64", shape=(1,)),
        Signature(layout=Layout.TABLE, columns=(Column("n", dtype="int64"),)),
    ],
    ids=["tensor", "table"],
)
def test_integers_keep_all_their_digits_or_are_refused(signature):
    def sent(value):
        rows = [{"n": value}] if signature.columns else [[value]]
        return decode(signature, {"instances": rows}).tensors[0].data.ravel().tolist()

    assert sent("9007199254740993") == sent(9007199254740993) == [9007199254740993]
    assert sent("3.0") == sent(3.0) == [3]
    for value in ("9007199254740993.0", 9007199254740993.0, 1e300):
        with pytest.raises(ApiError) as caught:
            sent(value)
        assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_all_bad_fields_of_a_row_are_counted(content_type):
    names = [f"c{number}" for number in range(30)]
    columns = tuple(Column(name=name) for name in names)
    body = {"dataframe_records": [dict.fromkeys(names, "x")]}
    if content_type == "text/csv":
        body = f"{','.join(names)}\n{','.join('x' * 30)}\n".encode()

    with pytest.raises(ApiError) as caught:
        decode(Signature(layout=Layout.TABLE, columns=columns), body, content_type)

    assert caught.value.message == (
        "30 fields are invalid; the first: `c0` in row 0 must be a number."
    )


def test_many_bad_rows_are_not_all_read():
    columns = tuple(Column(name=f"c{number}") for number in range(30))
    rows = [["x"] * 30] * 1_000
    decoder = InstanceDecoder(Signature(layout=Layout.TABLE, columns=columns))

    assert len(decoder.decode_text_rows(rows).problems) < 200


def test_literal_nan_is_no_json():
    with pytest.raises(ApiError) as caught:
        decode(TENSOR, b'{"inputs": [[NaN, 1]]}')

    assert caught.value.code is ErrorCode.INVALID_JSON


def test_answer_holds_all_digits_of_float32():
    scores = np.array([[0.98, np.nan]], "float32")

    body = predictions(TENSOR, Tensor("output", scores))

    assert body == b'{"predictions":[[0.9800000190734863,null]]}'


def test_a_fixed_answer_is_given_for_each_row():
    decoded = decode(TENSOR, {"inputs": [[1, 2], [3, 4]]})

    _, body, _ = MLFLOW.encode_fixed("r", msgspec.Raw(b"{}"), decoded, {"a": 1})

    assert body == b'{"predictions":[{"a":1},{"a":1}]}'


def test_several_outputs_are_records_of_a_table_and_tensors_of_tensors():
    outputs = (Tensor("x", np.array([1, 2])), Tensor("y", np.array([[3.0], [4.0]])))

    assert to_predictions(outputs, TABLE) == [
        {"x": 1, "y": [3.0]},
        {"x": 2, "y": [4.0]},
    ]
    assert to_predictions(outputs, TENSOR) == {"x": [1, 2], "y": [[3.0], [4.0]]}


def test_times_and_bytes_are_written_as_mlflow_writes_them():
    times = np.array(["2026-01-02", "2026-01-02T03:04:05.5", "NaT"], "datetime64[ns]")
    raw = np.array([b"ab", b"", b"\xff"], object)

    outputs = (Tensor("when", times), Tensor("raw", raw))

    assert to_predictions(outputs, TABLE) == [
        {"when": "2026-01-02T00:00:00", "raw": "YWI=\n"},
        {"when": "2026-01-02T03:04:05.500000", "raw": ""},
        {"when": None, "raw": "/w==\n"},
    ]


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (ErrorCode.INVALID_JSON, 400, "BAD_REQUEST"),
        (ErrorCode.UNPROCESSABLE, 422, "BAD_REQUEST"),
        (ErrorCode.UNAUTHENTICATED, 401, "UNAUTHENTICATED"),
        (ErrorCode.FORBIDDEN, 403, "PERMISSION_DENIED"),
        (ErrorCode.NOT_FOUND, 404, "RESOURCE_DOES_NOT_EXIST"),
        (ErrorCode.QUOTA_EXCEEDED, 429, "REQUEST_LIMIT_EXCEEDED"),
        (ErrorCode.MODEL_ERROR, 500, "INTERNAL_ERROR"),
        (ErrorCode.OVERLOADED, 503, "TEMPORARILY_UNAVAILABLE"),
        (ErrorCode.INFERENCE_TIMEOUT, 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_errors_have_mlflows_form(code, status, name):
    problems = tuple(Problem("is wrong", index, "a") for index in range(7))
    error = ApiError(code, "No.", details=problems, retry_after_s=2.0)

    got, headers, body = MLFLOW.render(call_of(), error, request_id="r1", now=0.0)

    assert got == status
    answer = json.loads(body)
    assert answer["error_code"] == name
    assert answer["message"].startswith("No. `a` in row 0 is wrong. `a` in row 1")
    assert "row 4" in answer["message"]
    assert "row 5" not in answer["message"]
    assert dict(headers)[b"content-length"] == b"%d" % len(body)
    assert dict(headers)[b"retry-after"] == b"2"
    assert dict(headers)[b"x-request-id"] == b"r1"
