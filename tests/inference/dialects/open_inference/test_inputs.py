import msgspec
import numpy as np
import pytest

from accounts.admission.limits import Limits
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.errors.api_error import ApiError, ErrorCode
from tests.inference.dialects.open_inference.open_inference_calls import (
    MATRIX,
    TABLE,
    TENSOR,
    TENSORS,
    decode,
    decode_binary,
    fp32,
    raw,
)


def refused(signature, *inputs, **options):
    with pytest.raises(ApiError) as caught:
        decode(signature, {"inputs": list(inputs)}, **options)
    return caught.value


def test_matrix_is_one_tensor():
    decoded = decode(MATRIX, {"inputs": [fp32([1, 2, 3, 4], [2, 2])]})

    (tensor,) = decoded.tensors
    assert decoded.rows == 2
    assert tensor.name == "input"
    assert tensor.data.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_matrix_may_come_by_columns(shape):
    inputs = [fp32([2, 4], shape, name="height"), fp32([1, 3], shape, name="width")]

    (tensor,) = decode(MATRIX, {"inputs": inputs}).tensors

    assert tensor.data.tolist() == [[1, 2], [3, 4]]
    assert tensor.data.flags.c_contiguous


def test_table_has_a_tensor_per_column_and_fills_what_is_optional():
    texts = np.array([b"\1\0\0\0a", b"\2\0\0\0bc"])

    decoded = decode_binary(
        TABLE,
        [
            raw("city", [2, 1], "BYTES", 11),
            {"name": "age", "shape": [2], "datatype": "INT64", "data": [1, 2]},
            raw("income", [2], "FP64", 16),
        ],
        *texts.tolist(),
        np.array([1.5, np.nan]).tobytes(),
    )

    by_name = {tensor.name: tensor.data for tensor in decoded.tensors}
    assert list(by_name) == ["age", "city", "income", "member", "colour"]
    assert by_name["city"].tolist() == ["a", "bc"]
    assert by_name["income"][0] == 1.5
    assert np.isnan(by_name["income"][1])
    assert by_name["member"].tolist() == [None, None]
    assert by_name["colour"].tolist() == [None, None]


def test_tensor_keeps_its_shape():
    (tensor,) = decode(TENSOR, {"inputs": [fp32(list(range(12)), [2, 2, 3])]}).tensors

    assert tensor.data.shape == (2, 2, 3)


def test_several_tensors_may_vary_in_length_and_come_in_any_order():
    decoded = decode(
        TENSORS,
        {
            "inputs": [
                {
                    "name": "mask",
                    "shape": [1, 3],
                    "datatype": "INT8",
                    "data": [1, 1, 0],
                },
                {
                    "name": "ids",
                    "shape": [1, 3],
                    "datatype": "INT64",
                    "data": [7, 8, 9],
                },
            ]
        },
    )

    assert [tensor.name for tensor in decoded.tensors] == ["ids", "mask"]
    assert decoded.tensors[0].data.tolist() == [[7, 8, 9]]


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        (MATRIX, [fp32([1, 2], [1, 2], name="other")]),
        (MATRIX, [fp32([1, 2, 3], [1, 3])]),
        (MATRIX, [fp32([1, 2], [2])]),
        (MATRIX, [fp32([1, 2], [1, 2, 1])]),
        (MATRIX, [fp32([], [0, 2])]),
        (MATRIX, [fp32([1], [1], name="width")]),
        (MATRIX, [fp32([1], [1], name="width"), fp32([1], [1], name="width")]),
        (MATRIX, [fp32([1], [1], name="width"), fp32([1, 2], [2], name="height")]),
        (MATRIX, [fp32([1, 2], [1, 2]), fp32([1], [1], name="width")]),
        (MATRIX, [{**fp32([1, 2], [1, 2]), "datatype": "FP64"}]),
        (MATRIX, [{**fp32([1, 2], [1, 2]), "datatype": "NO"}]),
        (TENSORS, [{"name": "ids", "shape": [1, 1], "datatype": "INT64", "data": [1]}]),
        (TENSOR, [fp32([1] * 6, [1, 3, 2])]),
        (TENSOR, [fp32([1], [2**40, 2, 3])]),
    ],
)
def test_inputs_of_another_kind_are_refused(signature, inputs):
    limits = Limits(plan="p", rates=(), quotas=(), max_batch_rows=2**50)

    assert refused(signature, *inputs, limits=limits).code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_raw_values_that_are_not_finite_are_unprocessable(value):
    body = np.array([1, value], "<f4").tobytes()

    with pytest.raises(ApiError) as caught:
        decode_binary(MATRIX, [raw("input", [1, 2], "FP32", 8)], body)

    assert caught.value.code is ErrorCode.UNPROCESSABLE


@pytest.mark.parametrize("by_column", [False, True])
def test_rules_of_columns_hold(by_column):
    inputs = (
        [fp32([1, 101], [2], name="width"), fp32([1, 1], [2], name="height")]
        if by_column
        else [fp32([1, 1, 101, 1], [2, 2])]
    )

    error = refused(MATRIX, *inputs)

    assert error.code is ErrorCode.UNPROCESSABLE
    (problem,) = error.details
    assert (problem.index, problem.field) == (1, "width")
    assert problem.issue == "must be at least 0 and at most 100"


@pytest.mark.parametrize(
    ("name", "datatype", "value"),
    [
        ("age", "INT64", -1),
        ("city", "BYTES", "abcdef"),
        ("colour", "BYTES", "green"),
    ],
)
def test_rules_of_tables_hold(name, datatype, value):
    good = {
        "age": {"name": "age", "shape": [1], "datatype": "INT64", "data": [1]},
        "city": {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["a"]},
    }
    bad = {"name": name, "shape": [1], "datatype": datatype, "data": [value]}

    error = refused(TABLE, *(good | {name: bad}).values())

    assert error.code is ErrorCode.UNPROCESSABLE
    assert error.details[0].field == name


def test_bounds_are_told_with_all_their_digits():
    bounded = Column("n", dtype="int64", minimum=-0.123456789, maximum=1234567)
    signature = Signature(layout=Layout.TABLE, columns=(bounded,))
    sent = {"name": "n", "shape": [1], "datatype": "INT64", "data": [1234568]}

    error = refused(signature, sent)

    assert error.details[0].issue == "must be at least -0.123456789 and at most 1234567"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", [Layout.TABLE, Layout.MATRIX])
def test_a_choice_is_found_whatever_the_precision_of_its_column(layout, dtype):
    rate = Column("rate", dtype=dtype, enum=(0.1, 0.25))
    signature = Signature(layout=layout, columns=(rate,), dtype=dtype)
    datatype = {"float32": "FP32", "float64": "FP64"}[dtype]
    good = {"name": "rate", "shape": [2], "datatype": datatype, "data": [0.1, 0.25]}

    (tensor,) = decode(signature, {"inputs": [good]}).tensors

    assert tensor.data.reshape(-1).tolist() == np.array([0.1, 0.25], dtype).tolist()
    error = refused(signature, good | {"data": [0.1, 0.2]})
    assert error.details[0].issue == "must be one of 0.1, 0.25"


def test_rows_beyond_the_plan_are_too_many():
    limits = Limits(plan="p", rates=(), quotas=(), max_batch_rows=2)

    error = refused(MATRIX, fp32([1] * 6, [3, 2]), limits=limits)

    assert error.code is ErrorCode.TOO_LARGE


def test_types_that_the_protocol_cannot_write_are_named():
    signature = Signature(
        layout=Layout.TABLE, columns=(Column("when", dtype="datetime64[ns]"),)
    )

    error = refused(
        signature, {"name": "when", "shape": [1], "datatype": "BYTES", "data": ["x"]}
    )

    assert error.code is ErrorCode.INVALID_INPUT
    assert "`when` is of type datetime64[ns]" in error.message


def test_optional_columns_that_the_protocol_cannot_write_are_left_out():
    signature = Signature(
        layout=Layout.TABLE,
        columns=(
            Column("when", dtype="datetime64[ns]", required=False),
            Column("size", dtype="float64"),
            Column("raw", dtype="bytes", required=False),
        ),
    )
    size = {"name": "size", "shape": [1], "datatype": "FP64", "data": [1.5]}

    decoded = decode(signature, {"inputs": [size]})

    assert [tensor.name for tensor in decoded.tensors] == ["size"]


def test_optional_columns_have_one_dtype_whether_they_are_sent_or_not():
    signature = Signature(
        layout=Layout.TABLE,
        columns=(
            Column("count", dtype="int64", required=False),
            Column("member", dtype="bool", required=False),
            Column("size", dtype="float64"),
        ),
    )
    size = {"name": "size", "shape": [1], "datatype": "FP64", "data": [1.5]}
    count = {"name": "count", "shape": [1], "datatype": "INT64", "data": [2**53]}
    member = {"name": "member", "shape": [1], "datatype": "BOOL", "data": [True]}

    sent = decode(signature, {"inputs": [size, count, member]}).tensors
    absent = decode(signature, {"inputs": [size]}).tensors

    assert [t.data.dtype for t in sent] == [t.data.dtype for t in absent]
    assert sent[0].data.tolist() == [2**53]
    assert np.isnan(absent[0].data).all()
    for number in (2**53 + 1, -(2**63)):
        error = refused(signature, size, count | {"data": [number]})
        assert error.code is ErrorCode.INVALID_INPUT


def test_a_matrix_of_integers_has_0_where_a_column_is_left_out():
    signature = Signature(
        layout=Layout.MATRIX,
        columns=(Column("a", dtype="int64"), Column("b", "int64", required=False)),
        dtype="int64",
        shape=(2,),
    )
    a = {"name": "a", "shape": [1], "datatype": "INT64", "data": [7]}

    (matrix,) = decode(signature, {"inputs": [a]}).tensors

    assert matrix.data.dtype == np.int64
    assert matrix.data.tolist() == [[7, 0]]


def test_rows_longer_than_the_model_takes_are_refused_with_the_limit():
    signature = msgspec.structs.replace(TENSORS, padding=Padding(buckets=(2, 4)))
    values = list(range(5))

    error = refused(
        signature,
        {"name": "ids", "shape": [1, 5], "datatype": "INT64", "data": values},
        {"name": "mask", "shape": [1, 5], "datatype": "INT8", "data": values},
    )

    assert error.code is ErrorCode.INVALID_INPUT
    assert "`ids` has 5 values in a row; 4 are the most" in error.message
