import json

import numpy as np
import pytest

from inference.codecs.decoding import InstanceDecoder
from inference.dialects.mlflow.inputs import read_csv, read_json, with_numbers
from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.signatures.signature import Column, Layout, Signature, TensorInput
from inference.errors.api_error import ApiError, ErrorCode

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


def test_cells_that_pandas_calls_missing_are_null_but_in_text_that_must_be_there():
    optional = Signature(Layout.TABLE, columns=(Column("t", "str", required=False),))

    assert read_csv(b"a,b\n1,NA\n,null\n", TABLE) == [
        {"a": "1", "b": "NA"},
        {"a": None, "b": "null"},
    ]
    assert read_csv(b"t\nNA\n", optional) == [{"t": None}]


@pytest.mark.parametrize(
    "body",
    [b"", b"a,b\n", b"a,b\n1\n", b"\xff", b"a,b\n1," + b"x" * 200_000],
    ids=("empty", "no row", "too few cells", "not UTF-8", "too long a cell"),
)
def test_what_is_no_csv_is_refused(body):
    with pytest.raises(ApiError) as caught:
        read_csv(body, TABLE)

    assert caught.value.code is ErrorCode.INVALID_INPUT


TIMES = Signature(
    layout=Layout.TABLE,
    columns=(Column("at", dtype="datetime64[ns]"), Column("n", "int64")),
)


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("20261120", "2026-11-20"),
        ("2026", "2026-01-01"),
        ("2026-11", "2026-11-01"),
        ("2026-11-20T00:00:00Z", "2026-11-20"),
    ],
)
def test_dates_are_iso_8601_in_every_format(written, day):
    decoder = InstanceDecoder(TIMES)
    texts = (
        read_csv(f"at,n\n{written},1\n".encode(), TIMES),
        rows(TIMES, dataframe_records=[{"at": written, "n": 1}]),
    )

    for read in texts:
        decoded = decoder.decode_text_rows(read)
        assert (
            decoded.tensors[0].data.tolist()
            == np.array([day], "datetime64[ns]").tolist()
        )
        assert decoded.tensors[1].data.tolist() == [1]


@pytest.mark.parametrize("written", [1795132800, "1795132800", 1.5, "soon", True])
def test_numbers_are_no_dates(written):
    read = rows(TIMES, dataframe_records=[{"at": written, "n": 1}])

    (problem,) = InstanceDecoder(TIMES).decode_text_rows(read).problems

    assert problem.field == "at"


@pytest.mark.parametrize("written", ["1_000", "1_0.5", "\u0661\u0662", "\uff11"])
def test_what_python_alone_takes_for_a_number_is_none(written):
    """MLflow's server and our jobs refuse such a cell of a CSV file, too."""
    numbers = Signature(
        Layout.TABLE, columns=(Column("a", dtype="int64"), Column("b", dtype="float64"))
    )
    read = read_csv(f"a,b\n{written},1\n1,{written}\n".encode(), numbers)

    problems = InstanceDecoder(numbers).decode_text_rows(read).problems

    assert [(each.index, each.field) for each in problems] == [(0, "a"), (1, "b")]
    assert with_numbers([[written, "7", "1e3"]]) == [[written, 7, 1000.0]]


def test_a_time_is_rounded_alike_in_every_protocol():
    decoder = InstanceDecoder(TIMES)
    row = {"at": "2026-11-20T10:30:00.1234567Z", "n": 1}
    body = json.dumps({"instances": [row]}).encode()
    (native, _) = decoder.decode_request(body).tensors

    (read, _) = decoder.decode_text_rows([row]).tensors

    assert read.data == native.data == np.datetime64("2026-11-20T10:30:00.123457")


def test_a_cell_that_is_too_long_is_said():
    with pytest.raises(ApiError, match="has a cell of more than 131072 characters"):
        read_csv(b"a,b\n1," + b"x" * 200_000, TABLE)


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\f", "\v", "\x1c", "\x1e"])
def test_rows_of_csv_end_at_ends_of_lines_only(mark):
    body = f"text\r\na{mark}b\nc\rd\n".encode()

    assert read_csv(body, TEXT) == [
        {"text": f"a{mark}b"},
        {"text": "c"},
        {"text": "d"},
    ]


def test_a_column_that_is_there_twice_is_refused():
    with pytest.raises(ApiError, match="`a` appears more than once"):
        read_csv(b"a,b,a\n1,x,2\n", TABLE)
    with pytest.raises(ApiError, match="`a` appears more than once"):
        rows(TABLE, dataframe_split={"columns": list("aba"), "data": [[1, "x", 2]]})
    assert read_csv(b"a,z,b,z\n1,2,x,3\n", TABLE) == [{"a": "1", "b": "x"}]


def test_no_rows_are_refused_for_every_model():
    for signature in (TABLE, MATRIX, IMAGE, PAIR):
        with pytest.raises(ApiError, match="at least one row"):
            rows(signature, dataframe_records=[])


def test_columns_may_have_numbers_for_names():
    numbered = from_mlflow(
        {"inputs": [{"type": "double", "name": name} for name in (2, 0, 1)]}
    )
    split = {"columns": [0, 1, 2], "data": [[10, 11, 12]]}

    assert [column.name for column in numbered.columns] == ["2", "0", "1"]
    assert rows(numbered, dataframe_split=split) == [{"0": 10, "1": 11, "2": 12}]
    assert rows(numbered, dataframe_split={"data": split["data"]})[0]["2"] == 12
    assert read_csv(b"2,1,0\n12,11,10\n", numbered)[0]["0"] == "10"


@pytest.mark.parametrize(
    "body", [b"a;b\n1,5;2,5\n", b"a;b\n1;2\n", b"a\tb\n1\t2\n", b"a|b\n1,5|2\n"]
)
def test_cells_that_no_comma_separates_are_named(body):
    with pytest.raises(ApiError, match="commas, and write decimals with a point"):
        read_csv(body, MATRIX)


@pytest.mark.parametrize("member", ["dataframe_records", "inputs"])
def test_records_are_read_in_any_order(member):
    known, unknown = {"a": 1, "z": 2}, {"z": 3}

    assert rows(ALL_OPTIONAL, **{member: [known, unknown]}) == [{"a": 1}, {}]
    assert rows(ALL_OPTIONAL, **{member: [unknown, known]}) == [{}, {"a": 1}]


def test_the_only_column_may_be_called_as_it_likes():
    odd = Signature(Layout.TABLE, columns=(Column("a;b"),))

    assert read_csv(b"a;b\n1\n", odd) == [{"a;b": "1"}]


ALL_OPTIONAL = Signature(
    Layout.TABLE,
    columns=(Column("a", required=False), Column("b", required=False)),
)


@pytest.mark.parametrize(
    "members",
    [
        {"dataframe_split": {"columns": ["A"], "data": [[1]]}},
        {"dataframe_records": [{"A": 1}]},
        {"inputs": {"A": [1, 2]}},
        {"inputs": {"A": 1}},
    ],
)
def test_a_table_of_unknown_columns_is_no_row_without_values(members):
    with pytest.raises(ApiError, match="none of the model's columns"):
        rows(ALL_OPTIONAL, **members)
    with pytest.raises(ApiError, match="none of the model's columns"):
        read_csv(b"A,B\n1,2\n", ALL_OPTIONAL)


def test_a_row_may_leave_out_what_is_optional():
    assert rows(ALL_OPTIONAL, dataframe_records=[{}]) == [{}]
    assert rows(ALL_OPTIONAL, dataframe_records=[{"a": 1, "c": 2}]) == [{"a": 1}]


def test_decimal_commas_are_named():
    read = read_csv(b'a,b\n"1,5",2\n', MATRIX)
    (problem,) = InstanceDecoder(MATRIX).decode_text_rows(read).problems

    assert problem.issue == "must be a number; decimals have a point, not a comma"
