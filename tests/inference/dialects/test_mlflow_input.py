import json

import pytest

from inference.dialects.mlflow_input import read_csv, read_json
from inference.engine.signature import Column, Layout, Signature, TensorInput
from inference.errors import ApiError, ErrorCode

TABLE = Signature(
    layout=Layout.TABLE, columns=(Column("a", dtype="int64"), Column("b", dtype="str"))
)
TEXT = Signature(layout=Layout.TABLE, columns=(Column("text", dtype="str"),))
MATRIX = Signature(layout=Layout.MATRIX, columns=(Column("a"), Column("b")), shape=(2,))
IMAGE = Signature(layout=Layout.TENSOR, shape=(2, 2))
PAIR = Signature(
    layout=Layout.TENSORS,
    inputs=(TensorInput("ids", "int64", (-1,)), TensorInput("box", shape=(2, 2))),
)
ROW = {"a": 1, "b": "x"}


def rows(signature, **members):
    return list(read_json(json.dumps(members).encode(), signature)[0])


@pytest.mark.parametrize(
    "members",
    [
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"]]}},
        {"dataframe_split": {"columns": ["b", "c", "a"], "data": [["x", 0, 1]]}},
        {"dataframe_records": [ROW]},
        {"dataframe_records": [{**ROW, "c": 0}]},
        {"instances": [ROW]},
        {"inputs": [ROW]},
        {"inputs": ROW},
        {"inputs": {"a": [1], "b": ["x"], "c": [0, 0]}},
    ],
)
def test_a_table_is_read_from_every_format(members):
    assert rows(TABLE, **members) == [ROW]


def test_a_single_column_takes_bare_values():
    assert rows(TEXT, inputs=["x", "y"]) == ["x", "y"]
    assert rows(TEXT, inputs="x") == ["x"]


@pytest.mark.parametrize(
    "members",
    [
        {"dataframe_split": {"columns": ["b", "a"], "data": [[2, 1]]}},
        {"dataframe_records": [{"b": 2, "a": 1}]},
        {"inputs": {"b": [2], "a": [1]}},
    ],
)
def test_columns_that_the_metadata_names_may_come_in_any_order(members):
    assert rows(MATRIX, **members) == [{"a": 1, "b": 2}]


@pytest.mark.parametrize(
    "members",
    [
        {"inputs": [[1, 2]]},
        {"instances": [[1, 2]]},
        {"inputs": {"input": [[1, 2]]}},
        {"dataframe_split": {"columns": ["x", "y"], "data": [[1, 2]]}},
        {"dataframe_split": {"data": [[1, 2]]}},
        {"dataframe_records": [{"x": 1, "y": 2}]},
    ],
)
def test_other_tables_for_a_tensor_count_by_position(members):
    assert rows(MATRIX, **members) == [[1, 2]]


def test_flat_cells_get_the_shape_of_their_tensor():
    split = {"columns": ["pixels"], "data": [[[1, 2, 3, 4]]]}

    assert rows(IMAGE, dataframe_split=split) == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize(
    "members",
    [
        {"inputs": {"ids": [[7, 8]], "box": [[[1, 2], [3, 4]]]}},
        {"instances": [{"ids": [7, 8], "box": [[1, 2], [3, 4]]}]},
        {
            "dataframe_split": {
                "columns": ["box", "ids"],
                "data": [[[1, 2, 3, 4], [7, 8]]],
            }
        },
    ],
)
def test_several_tensors_are_named(members):
    assert rows(PAIR, **members) == [{"ids": [7, 8], "box": [[1, 2], [3, 4]]}]


@pytest.mark.parametrize(
    ("signature", "members"),
    [
        (TABLE, {}),
        (TABLE, {"inputs": [ROW], "instances": [ROW]}),
        (TABLE, {"inputs": []}),
        (TABLE, {"inputs": [[1, "x"]]}),
        (TABLE, {"inputs": 1}),
        (TABLE, {"inputs": {"a": [1, 2], "b": ["x"]}}),
        (TABLE, {"dataframe_records": ROW}),
        (TABLE, {"dataframe_records": [1]}),
        (TABLE, {"dataframe_split": []}),
        (TABLE, {"dataframe_split": {"columns": ["a", "b"]}}),
        (TABLE, {"dataframe_split": {"data": [[1]], "more": 1}}),
        (TABLE, {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}),
        (TABLE, {"dataframe_split": {"columns": "a", "data": [[1]]}}),
        (
            TABLE,
            {"dataframe_split": {"columns": ["a"], "data": [[1]], "index": [1, 2]}},
        ),
        (TABLE, {"dataframe_split": {"columns": ["a"], "data": 1}}),
        (MATRIX, {"dataframe_records": [{"x": 1, "y": 2}, {"y": 1, "x": 2}]}),
        (PAIR, {"inputs": [[1]]}),
        (PAIR, {"inputs": {"other": [1]}}),
    ],
)
def test_what_fits_no_format_is_refused(signature, members):
    with pytest.raises(ApiError) as caught:
        rows(signature, **members)

    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_params_are_given_as_they_came():
    body = json.dumps({"inputs": ["x"], "params": {"times": 2}}).encode()

    assert read_json(body, TEXT)[1] == {"times": 2}


def test_csv_is_read_by_its_header():
    assert read_csv(b'\xef\xbb\xbfb,,a\n"x,\ny",0,1\n\n', TABLE) == [
        {"b": "x,\ny", "a": "1"}
    ]


def test_cells_that_pandas_calls_missing_are_null():
    assert read_csv(b"a,b\n1,NA\n,x\n", TABLE) == [
        {"a": "1", "b": None},
        {"a": None, "b": "x"},
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b"a,b\n", b"a,b\n1\n", b"\xff", b"a,b\n1," + b"x" * 200_000],
    ids=("empty", "no row", "too few cells", "not UTF-8", "too long a cell"),
)
def test_what_is_no_csv_is_refused(body):
    with pytest.raises(ApiError) as caught:
        read_csv(body, TABLE)

    assert caught.value.code is ErrorCode.INVALID_INPUT
