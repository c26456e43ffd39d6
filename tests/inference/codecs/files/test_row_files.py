"""Read rows of files: odd files, bad rows, and resuming at any row."""

import io

import pytest

from inference.codecs.decoding import InstanceDecoder
from inference.codecs.files import lines as job_lines
from inference.codecs.files import row_files as job_rows
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.errors.api_error import ApiError, ErrorCode, Problem
from tests.factories_jobs import SUM_SIGNATURE

TABLE = Signature(
    layout=Layout.TABLE,
    columns=(
        Column(name="text", dtype="str"),
        Column(name="count", dtype="int64"),
        Column(name="flag", dtype="bool", required=False),
    ),
)
GRID = Signature(layout=Layout.TENSOR, dtype="float32", shape=(2, 2))


def read(data, signature=SUM_SIGNATURE, input_format="csv", offset=0):
    data = data.encode() if isinstance(data, str) else data
    reader = job_rows.open_rows(
        io.BytesIO(data), input_format=input_format, signature=signature
    )
    return list(reader.rows(offset))


def rows(*args, **kwargs):
    return [row for row, _ in read(*args, **kwargs)]


def refusal(*args, **kwargs):
    with pytest.raises(ApiError) as caught:
        read(*args, **kwargs)
    return caught.value


def issues(error):
    return {(problem.field, problem.issue) for problem in error.details}


def test_columns_may_come_in_any_order():
    assert rows("b,a\n1,2\n") == [{"b": 1.0, "a": 2.0}]


def test_a_byte_order_mark_and_spaces_around_names_do_not_matter():
    assert rows(b"\xef\xbb\xbf a , b\n1,2\n") == [{"a": 1.0, "b": 2.0}]


def test_dates_and_bytes_that_look_like_numbers_are_read_as_what_they_are():
    signature = Signature(
        layout=Layout.TABLE,
        columns=(Column("at", "datetime64[ns]"), Column("raw", "bytes")),
    )
    given = rows("at,raw\n20261120,1234\n2026, 1234\n1795132800,1234\n", signature)

    read = InstanceDecoder(signature).decode_rows(given)

    assert read.tensors[0].data.astype(str).tolist() == [
        "2026-11-20T00:00:00.000000000",
        "2026-01-01T00:00:00.000000000",
    ]
    assert read.tensors[1].data.tolist() == [b"\xd7m\xf8"] * 2
    assert [(problem.index, problem.field) for problem in read.problems] == [(2, "at")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_hold_commas_and_line_ends(end):
    text = f'text,count{end}"a, ""b""{end}c",1{end}'

    assert rows(text, TABLE) == [{"text": f'a, "b"{end}c', "count": 1}]


def test_empty_lines_do_not_count():
    assert rows("\n\na,b\n\n1,2\n\r\n\n3,4\n\n") == [
        {"a": 1.0, "b": 2.0},
        {"a": 3.0, "b": 4.0},
    ]


def test_the_last_line_needs_no_end():
    assert rows("a,b\n1,2") == [{"a": 1.0, "b": 2.0}]


def test_a_row_with_too_few_or_too_many_cells_is_a_problem_of_its_own():
    found = rows("a,b\n1\n1,2\n1,2,3\n")

    assert [getattr(row, "issue", row) for row in found] == [
        "has 1 cells, the header has 2",
        {"a": 1.0, "b": 2.0},
        "has 3 cells, the header has 2",
    ]


def test_a_line_that_is_not_utf8_spoils_only_its_row():
    found = rows(b"text,count\nok,1\n\xff\xfe,2\nfine,3\n", TABLE)

    assert found[0] == {"text": "ok", "count": 1}
    assert isinstance(found[1], Problem)
    assert found[2] == {"text": "fine", "count": 3}


def test_a_quote_that_never_ends_is_a_problem_and_not_endless():
    text = 'text,count\n"open,1\n' + "x" * 1000 + "\n"
    text += ("y" * 1000 + ",1\n") * 200

    found = rows(text, TABLE)

    assert isinstance(found[0], Problem)
    assert found[-1] == {"text": "y" * 1000, "count": 1}


def test_an_overlong_line_spoils_only_its_row():
    long = "x" * (job_lines.MAX_LINE_BYTES * 2)

    found = rows(f"text,count\n{long},1\nok,2\n", TABLE)

    assert isinstance(found[0], Problem)
    assert found[1:] == [{"text": "ok", "count": 2}]


def test_cells_become_values_of_their_columns_type():
    text = "text,count,flag\n007, 7 ,TRUE\n,-1,0\n"

    assert rows(text, TABLE) == [
        {"text": "007", "count": 7, "flag": True},
        {"text": "", "count": -1, "flag": False},
    ]


@pytest.mark.parametrize("cell", ["007", "9007199254740993", "1e5", "[1]", "true"])
def test_a_cell_of_a_column_of_any_type_is_text(cell):
    """`/invocations` and MLflow's server read such a cell in the same way."""
    columns = (Column("tag", "json", json_schema={}), Column("n", "int64"))

    given = rows(f"tag,n\n{cell},1\n", Signature(layout=Layout.TABLE, columns=columns))

    assert given == [{"tag": cell, "n": 1}]


@pytest.mark.parametrize("cell", ["nan", "inf", "-Infinity", "1_000", "0x10", "abc"])
def test_what_is_no_number_stays_text_for_the_decoder_to_refuse(cell):
    assert rows(f"a,b\n{cell},1\n") == [{"a": cell, "b": 1.0}]


def test_an_empty_cell_is_a_missing_value():
    assert rows("text,count,flag\nx,1,\n", TABLE) == [{"text": "x", "count": 1}]
    assert rows("a,b\n,1\n") == [{"b": 1.0}]


def test_a_tensor_is_read_in_c_order():
    assert rows("0,1,2,3\n1,2,3,4\n", GRID) == [[[1.0, 2.0], [3.0, 4.0]]]


def test_a_tensor_needs_a_cell_per_element():
    error = refusal("0,1,2\n1,2,3\n", GRID)

    assert error.code is ErrorCode.INVALID_INPUT
    assert issues(error) == {("file", "has 3 cells, the model takes 4 values per row")}


def test_a_wrong_header_names_every_column_at_fault():
    error = refusal("a,c,a\n1,2,3\n")

    assert error.code is ErrorCode.INVALID_INPUT
    assert issues(error) == {
        ("c", "is not a column of the model"),
        ("a", "appears more than once"),
        ("b", "is missing"),
    }


def test_a_long_name_in_a_header_is_not_told_whole():
    error = refusal("a,b," + "x" * 5000 + "\n1,2,3\n")

    assert issues(error) == {("x" * 100, "is not a column of the model")}


def test_optional_columns_may_be_missing():
    assert rows("text,count\nx,1\n", TABLE) == [{"text": "x", "count": 1}]


def test_another_separator_is_recognised_in_the_advice():
    assert "commas" in refusal("a;b\n1;2\n").message


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(data):
    assert issues(refusal(data)) == {("file", "is empty")}


@pytest.mark.parametrize("data", ["a,b\n1,2\n".encode("utf-16"), b"\x80,b\n1,2\n"])
def test_a_header_that_is_not_utf8_is_refused(data):
    assert issues(refusal(data)) == {("file", "is not UTF-8 text")}


def test_json_lines_are_instances():
    assert rows('{"a": 1}\n\n[1, 2]\n', input_format="json") == [{"a": 1}, [1, 2]]


def test_a_line_that_is_not_json_spoils_only_its_row():
    found = rows('{"a": NaN}\n{"a"\n{"a": 1}', input_format="json")

    assert [getattr(row, "issue", row) for row in found] == [
        "is not JSON",
        "is not JSON",
        {"a": 1},
    ]


def test_numbers_beyond_a_double_reach_the_decoder():
    assert rows('{"a": 1e999}\n', input_format="json") == [{"a": float("inf")}]
    (long,) = rows('{"a": %s}\n' % ("9" * 5000), input_format="json")
    assert long == {"a": float("inf")}


def test_deep_json_is_a_problem_and_no_crash():
    (row,) = rows("[" * 100_000, input_format="json")

    assert isinstance(row, Problem)


@pytest.mark.parametrize(
    ("data", "signature", "input_format"),
    [
        (b'\xef\xbb\xbftext,count\n"a\nb",1\n\n\xff,2\nx\n"",3', TABLE, "csv"),
        (b'\n{"a": 1}\n\nnull\n[\n"\xff"\n1', SUM_SIGNATURE, "json"),
    ],
)
def test_reading_on_from_the_end_of_any_row_gives_the_rest(
    data, signature, input_format
):
    whole = read(data, signature, input_format)

    for position, (_, end) in enumerate(whole):
        assert read(data, signature, input_format, offset=end) == whole[position + 1 :]


def test_a_chunk_ends_where_the_next_begins():
    data = io.BytesIO(b"a,b\n1,1\n2,2\n3,3\n")
    reader = job_rows.open_rows(data, input_format="csv", signature=SUM_SIGNATURE)

    first = job_rows.read_chunk(reader, 0, max_rows=2)
    second = job_rows.read_chunk(reader, first.ends[-1], max_rows=2)
    third = job_rows.read_chunk(reader, second.ends[-1], max_rows=2)

    assert [row["a"] for row in first.rows] == [1.0, 2.0]
    assert [row["a"] for row in second.rows] == [3.0]
    assert third.rows == []


def test_a_chunk_of_large_rows_is_shorter():
    line = ("x" * 1_000_000 + ",1\n").encode()
    data = io.BytesIO(b"text,count\n" + line * 12)
    reader = job_rows.open_rows(data, input_format="json", signature=TABLE)

    chunk = job_rows.read_chunk(reader, 0, max_rows=100)

    assert len(chunk.rows) < 12


def count(text, **limits):
    reader = job_rows.open_rows(
        io.BytesIO(text.encode()), input_format="csv", signature=SUM_SIGNATURE
    )
    return job_rows.count_rows(reader, **limits)


def test_rows_are_counted_up_to_the_limit():
    assert count("a,b\n1,1\n2,2\n", max_rows=2) == 2
    with pytest.raises(ApiError) as caught:
        count("a,b\n1,1\n2,2\n3,3\n", max_rows=2)
    assert caught.value.code is ErrorCode.TOO_LARGE


def test_a_large_file_is_not_counted_at_once():
    assert count("a,b\n" + "1,1\n" * 1000, max_rows=2000, max_bytes=100) is None


def test_a_header_without_rows_is_refused():
    with pytest.raises(ApiError) as caught:
        count("a,b\n", max_rows=2)
    assert issues(caught.value) == {("file", "has no rows")}


def test_a_header_is_matched_as_it_is_written_and_else_without_blanks():
    names = ("Age ", " Income", "City", "Age")
    signature = Signature(
        layout=Layout.TABLE,
        columns=tuple(Column(name, "str") for name in names),
    )

    (row,) = rows("Income, City , Age,Age \n1,2,3,4\n", signature)

    assert row == {" Income": "1", "City": "2", "Age": "3", "Age ": "4"}


def test_a_column_without_a_name_is_named_by_its_place():
    error = refusal(",a,b\n0,1,2\n")

    assert issues(error) == {
        (
            "column 1",
            "has no name in the header; pandas writes its index so, unless index=False",
        )
    }


def test_lines_that_end_with_a_carriage_return_alone_are_told():
    error = refusal("a,b\r1,2\r")

    ((field, issue),) = issues(error)
    assert (field, "carriage return" in issue) == ("file", True)
    assert "line feed" in error.message


def test_a_cell_beyond_the_readers_limit_is_told():
    row = rows("a,b\n" + "1" * 200_000 + ",2\n")[0]

    assert "more than 131072 characters" in row.issue


def test_integers_of_a_csv_file_keep_all_their_digits_or_are_refused():
    signature = Signature(layout=Layout.TABLE, columns=(Column("n", "int64"),))
    cells = ["9007199254740993", "3.0", "9007199254740993.0", "1e300", "9" * 20]
    given = rows("n\n" + "\n".join(cells) + "\n", signature)

    read = InstanceDecoder(signature).decode_rows(given)

    assert read.tensors[0].data.tolist() == [9007199254740993, 3]
    assert [(problem.index, problem.code) for problem in read.problems] == [
        (2, ErrorCode.INVALID_INPUT),
        (3, ErrorCode.INVALID_INPUT),
        (4, ErrorCode.UNPROCESSABLE),
    ]
