import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.codecs import decoding
from inference.codecs.decoding import InstanceDecoder
from inference.codecs.rows.reader import RowReader
from inference.engine.signatures.signature import (
    Column,
    Layout,
    Signature,
    UnsupportedSignature,
)
from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.problems import MAX_PROBLEMS

MATRIX = Signature(
    layout=Layout.MATRIX,
    columns=(
        Column(name="mean radius", minimum=0, maximum=100),
        Column(name="worst area"),
    ),
    shape=(2,),
)
TABLE = Signature(
    layout=Layout.TABLE,
    columns=(
        Column(name="age", dtype="int64", minimum=0),
        Column(name="city", dtype="str", max_length=5),
        Column(name="plan", dtype="str", enum=("free", "paid")),
        Column(name="member", dtype="bool", required=False),
        Column(name="income", dtype="float64", required=False),
    ),
)
IMAGE = Signature(layout=Layout.TENSOR, dtype="float32", shape=(2, 3))
TEXT = Signature(
    layout=Layout.TABLE, columns=(Column(name="text", dtype="str", max_length=9),)
)
GOOD = {"mean radius": 1.5, "worst area": 2}
GOOD_TABLE = {"age": 30, "city": "Oslo", "plan": "paid", "member": True, "income": 1.5}

matrix = InstanceDecoder(MATRIX)
table = InstanceDecoder(TABLE)
image = InstanceDecoder(IMAGE)
text = InstanceDecoder(TEXT)


def body(*rows, name="instances", **members):
    return json.dumps({name: list(rows)} | members).encode()


def refusal(decoder, content, **options):
    with pytest.raises(ApiError) as caught:
        decoder.decode_request(content, **options)
    return caught.value


def problem(decoder, content):
    """Return the only problem as (code, index, field, issue)."""
    error = refusal(decoder, content)
    [detail] = error.details
    return error.code, detail.index, detail.field, detail.issue


@pytest.mark.parametrize(
    "rows",
    [
        [GOOD, {"worst area": 4, "mean radius": 3}],
        [[1.5, 2], [3, 4]],
        [GOOD, [3, 4]],
    ],
)
def test_columns_come_by_name_or_by_position(rows):
    decoded = matrix.decode_request(body(*rows))

    [tensor] = decoded.tensors
    assert tensor.data.dtype == np.float32
    np.testing.assert_array_equal(tensor.data, [[1.5, 2], [3, 4]])
    assert decoded.rows == 2


def test_inputs_is_another_name_of_instances():
    assert matrix.decode_request(body(GOOD, name="inputs")).rows == 1


def test_inputs_may_be_one_instance():
    decoded = matrix.decode_request(json.dumps({"inputs": GOOD}).encode())

    assert decoded.single
    assert decoded.rows == 1


def test_table_gives_a_tensor_per_column_of_its_own_type():
    decoded = table.decode_request(
        body(GOOD_TABLE, {"age": 1, "city": "Rome", "plan": "free", "income": None})
    )

    by_name = {tensor.name: tensor.data for tensor in decoded.tensors}
    assert by_name["age"].dtype == np.int64
    assert by_name["age"].tolist() == [30, 1]
    assert by_name["city"].tolist() == ["Oslo", "Rome"]
    assert by_name["member"].tolist() == [True, None]
    assert by_name["income"][0] == 1.5
    assert math.isnan(by_name["income"][1])


def test_tensor_rows_are_nested_lists():
    decoded = image.decode_request(body([[1, 2, 3], [4, 5, 6]]))

    assert decoded.tensors[0].data.shape == (1, 2, 3)
    assert decoded.tensors[0].data.dtype == np.float32


def test_single_column_takes_bare_values():
    assert text.decode_request(body("a", "b")).tensors[0].data.tolist() == ["a", "b"]


def test_last_of_a_doubled_member_counts():
    content = b'{"instances": [{"mean radius": 1, "worst area": 2, "mean radius": 3}]}'

    assert matrix.decode_request(content).tensors[0].data[0, 0] == 3


def test_whole_number_may_be_written_with_a_point():
    decoded = table.decode_request(body(GOOD_TABLE | {"age": 30.0}))

    assert decoded.tensors[0].data.tolist() == [30]


def test_options_are_read():
    decoded = matrix.decode_request(body(GOOD, options={"top_k": 2, "timeout_ms": 9}))

    assert (decoded.options.top_k, decoded.options.timeout_ms) == (2, 9)


INVALID, RULE = ErrorCode.INVALID_INPUT, ErrorCode.UNPROCESSABLE


@pytest.mark.parametrize(
    ("decoder", "row", "expected"),
    [
        (matrix, {"mean radius": 1}, (INVALID, "worst area", "is required")),
        (
            matrix,
            GOOD | {"extra": 1},
            (INVALID, "extra", "is not a column of this model"),
        ),
        (
            matrix,
            GOOD | {"worst area": "2"},
            (INVALID, "worst area", "must be a number"),
        ),
        (
            matrix,
            GOOD | {"worst area": True},
            (INVALID, "worst area", "must be a number"),
        ),
        (
            matrix,
            GOOD | {"worst area": None},
            (INVALID, "worst area", "must be a number"),
        ),
        (
            matrix,
            GOOD | {"worst area": [1]},
            (INVALID, "worst area", "must be a number"),
        ),
        (
            matrix,
            [1],
            (INVALID, "worst area", "is missing; an array has 2 values"),
        ),
        (
            matrix,
            [1, 2, 3],
            (INVALID, "[2]", "is one value too many; an array has 2 values"),
        ),
        (matrix, 5, (INVALID, None, "must be an object, or an array of 2 values")),
        (
            matrix,
            GOOD | {"mean radius": -1},
            (RULE, "mean radius", "must be at least 0"),
        ),
        (
            matrix,
            GOOD | {"mean radius": 101},
            (RULE, "mean radius", "must be at most 100"),
        ),
        (matrix, [101, 1], (RULE, "mean radius", "must be at most 100")),
        (matrix, GOOD | {"worst area": 1e39}, (RULE, "worst area", None)),
        (table, GOOD_TABLE | {"city": "Reykjavik"}, (RULE, "city", None)),
        (
            table,
            GOOD_TABLE | {"plan": "gold"},
            (RULE, "plan", "must be one of free, paid"),
        ),
        (table, GOOD_TABLE | {"plan": 5}, (INVALID, "plan", "must be a string")),
        (table, GOOD_TABLE | {"age": 1.5}, (INVALID, "age", "must be an integer")),
        (table, GOOD_TABLE | {"age": 2**70}, (RULE, "age", None)),
        (
            table,
            GOOD_TABLE | {"member": 1},
            (INVALID, "member", "must be true or false"),
        ),
        (
            image,
            [[1, 2, 3], [4, 5]],
            (INVALID, "[1][2]", "must be an array of shape [3]"),
        ),
        (image, [[1, 2, 3]], (INVALID, "[1]", "must be an array of shape [2, 3]")),
        (image, [[1, 2, 3], [4, 5, "x"]], (INVALID, "[1][2]", "must be a number")),
        (text, "0123456789", (RULE, "text", "must have at most 9 characters")),
        (text, 5, (INVALID, "text", "must be a string")),
    ],
)
def test_bad_field_is_named_with_its_kind_of_problem(decoder, row, expected):
    code, index, field, issue = problem(decoder, body(row))

    assert (code, index, field) == (expected[0], 0, expected[1])
    if expected[2] is not None:
        assert issue == expected[2]


@pytest.mark.parametrize(
    ("rule", "value", "issue"),
    [
        ({"maximum": 1234567}, 1234568, "must be at most 1234567"),
        ({"minimum": 0.123456789}, 0.1234567, "must be at least 0.123456789"),
        ({"maximum": 2.5e20}, 3e20, "must be at most 2.5e+20"),
    ],
)
def test_bounds_are_told_with_all_their_digits(rule, value, issue):
    column = Column("x", dtype="float64", **rule)
    signature = Signature(layout=Layout.TABLE, columns=(column,))

    error = refusal(InstanceDecoder(signature), body({"x": value}))

    assert error.details[0].issue == issue


@pytest.mark.parametrize("layout", [Layout.MATRIX, Layout.TENSOR])
def test_unsigned_integers_have_all_64_bits(layout):
    columns = (Column("id", dtype="uint64"),) if layout is Layout.MATRIX else ()
    signature = Signature(layout=layout, columns=columns, dtype="uint64", shape=(1,))
    decoder = InstanceDecoder(signature)
    greatest = 2**64 - 1

    (tensor,) = decoder.decode_request(body([greatest], [0])).tensors

    assert tensor.data.tolist() == [[greatest], [0]]
    for wrong in (greatest + 1, -1):
        error = refusal(decoder, body([0], [wrong]))
        assert error.code is ErrorCode.UNPROCESSABLE
        assert [problem.index for problem in error.details] == [1]


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"maximum": 2.0**63}, 2**63, 2**63 + 1),
        ({"minimum": 2.0**63}, 2**63, 2**63 - 1),
        ({"minimum": 5, "maximum": 9}, 9, 10),
    ],
)
def test_rules_of_unsigned_integers_have_all_64_bits(rule, good, bad):
    columns = (Column("id", dtype="uint64", **rule),)
    decoder = InstanceDecoder(
        Signature(layout=Layout.MATRIX, columns=columns, dtype="uint64", shape=(1,))
    )

    (tensor,) = decoder.decode_request(body([good], {"id": good})).tensors

    assert tensor.data.tolist() == [[good], [good]]
    error = refusal(decoder, body([good], [bad]))
    assert error.code is ErrorCode.UNPROCESSABLE
    assert [problem.index for problem in error.details] == [1]


def test_every_bad_row_is_named():
    error = refusal(matrix, body({}, GOOD, [1], {"worst area": 1, "mean radius": "x"}))

    assert [detail.index for detail in error.details] == [0, 0, 2, 3]
    first = f"`{error.details[0].field}` in row 0 is required"
    assert error.message == f"4 fields are invalid; the first: {first}."


def test_broken_rules_beside_a_wrong_type_make_it_a_400():
    rows = [GOOD | {"mean radius": -1}, GOOD | {"worst area": "x"}]

    assert refusal(matrix, body(*rows)).status == 400
    assert refusal(matrix, body(rows[0])).status == 422


def test_at_most_a_hundred_problems_are_named():
    error = refusal(matrix, body(*[{}] * 1000))

    assert len(error.details) == 100
    assert error.message.startswith("At least 100 fields are invalid, 100 of them")


def test_bad_rows_among_many_good_ones_are_all_named():
    rows = [GOOD] * 20_000
    rows[-3] = rows[-1] = {}

    assert [found.index for found in refusal(matrix, body(*rows)).details] == [
        *[len(rows) - 3] * 2,
        *[len(rows) - 1] * 2,
    ]


def test_problems_that_were_not_all_found_are_not_said_to_be_all(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_SLOW_PASS_S", 0.0)
    bad = GOOD | {"worst area": "x"}

    assert refusal(matrix, body(bad, bad)).message == (
        "At least 1 field is invalid; the first: `worst area` in row 0 must be a"
        " number."
    )


@pytest.mark.parametrize(
    ("content", "code", "field"),
    [
        (b"", ErrorCode.INVALID_JSON, None),
        (b"{", ErrorCode.INVALID_JSON, None),
        (b'{"instances": [[NaN, 1]]}', ErrorCode.INVALID_JSON, None),
        (b'{"instances": [[1, -Infinity]]}', ErrorCode.INVALID_JSON, None),
        (b'{"instances": [{"mean radius": "\xff"}]}', ErrorCode.INVALID_JSON, None),
        (b'{"instances": [{"\\ud800": 1}]}', ErrorCode.INVALID_JSON, None),
        (b"\xef\xbb\xbf{}", ErrorCode.INVALID_JSON, None),
        (b"[" * 100_000, ErrorCode.INVALID_JSON, None),
        (
            b'{"instances":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
            ErrorCode.INVALID_JSON,
            None,
        ),
        (b"[]", INVALID, None),
        (b"null", INVALID, None),
        (b"{}", INVALID, "instances"),
        (b'{"instances": []}', INVALID, "instances"),
        (b'{"instances": null}', INVALID, "instances"),
        (b'{"instances": {"mean radius": 1, "worst area": 2}}', INVALID, "instances"),
        (b'{"inputs": []}', INVALID, "inputs"),
        (b'{"instances": [[1, 2]], "inputs": [[1, 2]]}', INVALID, "inputs"),
        (b'{"instances": [[1, 2]], "extra": 1}', INVALID, "extra"),
        (b'{"instances": [[1, 2]], "options": []}', INVALID, "options"),
        (b'{"instances": [[1, 2]], "options": {"x": 1}}', INVALID, "options.x"),
        (b'{"instances": [[1, 2]], "options": {"top_k": 0}}', INVALID, "options.top_k"),
        (
            b'{"instances": [[1, 2]], "options": {"target": 1' + b"0" * 20 + b"}}",
            INVALID,
            "options.target",
        ),
        (b'{"instances": [[1, 2]], "parameters": {"t": 1}}', INVALID, "parameters.t"),
        (b'{"instances": [[1, 2]], "model": 1}', INVALID, "model"),
        (b'{"instances": [[1e999, 2]]}', RULE, "mean radius"),
        (b'{"instances": [[1' + b"0" * 5000 + b", 2]]}", RULE, "mean radius"),
        (b'{"instances": [[-1' + b"0" * 400 + b", 2]]}", RULE, "mean radius"),
    ],
)
def test_bad_bodies_are_refused_cleanly(content, code, field):
    error = refusal(matrix, content)

    assert error.code is code
    assert [detail.field for detail in error.details] == ([field] if field else [])


@pytest.mark.parametrize(
    "content",
    [
        "{%s}",
        '{"instances": [[1, 2]], "options": {%s}}',
        '{"instances": [[1, 2]], "parameters": {%s}}',
    ],
)
def test_only_so_many_unknown_members_are_looked_at(content, monkeypatch):
    looked_at = []

    def note(name):
        looked_at.append(name)
        return str(name)

    for module in ("members", "parameters", "options"):
        monkeypatch.setattr(f"inference.codecs.{module}.readable_name", note)
    members = ", ".join(f'"{number}": 1' for number in range(5000))

    error = refusal(matrix, (content % members).encode())

    assert len(error.details) == MAX_PROBLEMS
    assert len(looked_at) <= MAX_PROBLEMS + 1


def test_too_many_rows_name_the_limit():
    error = refusal(matrix, body(*[GOOD] * 3), max_rows=2, limit_name="max_batch_rows")

    assert error.status == 413
    assert error.facts == {"limit": "max_batch_rows", "maximum": 2, "needed": 3}


def test_too_many_bad_rows_are_too_many_rows():
    assert refusal(matrix, body(*[{}] * 3), max_rows=2).status == 413


def test_refusals_never_hold_the_callers_values():
    secret = "hunter2"

    errors = [
        refusal(matrix, body(GOOD | {"worst area": secret})),
        refusal(table, body(GOOD_TABLE | {"city": secret})),
        refusal(table, body(GOOD_TABLE | {"plan": secret})),
        refusal(matrix, f'{{"instances": {secret}'.encode()),
        refusal(matrix, body(GOOD, options={"return_errors": secret})),
        refusal(matrix, body(secret)),
    ]

    for error in errors:
        assert secret not in repr((error.message, error.details, error.facts))


def test_unknown_names_are_cut_and_cleaned():
    error = refusal(matrix, body(GOOD | {"x" * 5000: 1}))

    assert error.details[0].field == "x" * 100


def test_individual_errors_leave_the_good_rows():
    decoded = matrix.decode_request(
        body(GOOD, {}, [3, 4], options={"return_errors": "individual"}),
        individual=True,
    )

    assert decoded.indexes == (0, 2)
    assert decoded.total == 3
    assert {found.index for found in decoded.problems} == {1}
    np.testing.assert_array_equal(decoded.tensors[0].data, [[1.5, 2], [3, 4]])


def test_only_the_first_problems_of_many_rows_are_told_in_full():
    decoded = matrix.decode_request(
        body(*[{}] * 400, GOOD, options={"return_errors": "individual"}),
        individual=True,
    )

    told = [found for found in decoded.problems if found.field]
    assert MAX_PROBLEMS <= len(told) < MAX_PROBLEMS + 10
    assert {found.index for found in decoded.problems} == set(range(400))
    assert decoded.indexes == (400,)


def test_rows_beyond_the_told_problems_are_still_judged_as_before():
    decoded = table.decode_request(
        body(
            *[{}] * 100,
            GOOD_TABLE | {"age": 30.0},
            GOOD_TABLE | {"age": 1.5},
            list(GOOD_TABLE.values()),
            options={"return_errors": "individual"},
        ),
        individual=True,
    )

    assert decoded.indexes == (100, 102)


def test_values_that_do_not_fit_leave_the_other_rows():
    decoded = matrix.decode_request(
        body([1, 1e39], [1, 2], *[[3, 1e39]] * 200, [3, 4]).replace(
            b"}", b', "options": {"return_errors": "individual"}}'
        ),
        individual=True,
    )

    assert decoded.indexes == (1, 202)
    assert decoded.problems[0].issue.startswith("must be at most")
    np.testing.assert_array_equal(decoded.tensors[0].data, [[1, 2], [3, 4]])


def test_parsed_rows_are_checked_one_by_one():
    decoded = matrix.decode_rows(
        [GOOD, {"mean radius": math.nan, "worst area": 1}, GOOD | {"mean radius": -1}]
    )

    assert decoded.indexes == [0]
    assert [found.issue for found in decoded.problems] == [
        "must be finite",
        "must be at least 0",
    ]
    assert decoded.tensors[0].data.shape == (1, 2)


def test_rows_of_text_are_read_as_their_columns_types():
    decoded = RowReader(TABLE).read(
        [
            {"age": "30", "city": "Oslo", "plan": "paid", "member": "", "income": ""},
            {"age": "old", "city": "Oslo", "plan": "paid", "member": "true"},
            {"age": "3.0", "city": "7", "plan": "free", "member": "false"},
        ],
        from_text=True,
    )

    assert decoded.indexes == [0, 2]
    assert [found.field for found in decoded.problems] == ["age"]
    assert decoded.tensors[0].data.tolist() == [30, 3]
    assert decoded.tensors[1].data.tolist() == ["Oslo", "7"]


def test_text_that_spells_infinity_is_no_number_for_a_model():
    decoded = RowReader(MATRIX).read(
        [["inf", "1"], ["nan", "1"], ["1e400", "1"]], from_text=True
    )

    assert decoded.indexes == []
    assert {found.issue for found in decoded.problems} == {"must be finite"}


def test_choices_among_numbers_are_kept():
    decoder = InstanceDecoder(
        Signature(
            layout=Layout.MATRIX,
            columns=(Column(name="size", enum=(1, 2.5)),),
            shape=(1,),
        )
    )

    assert decoder.decode_request(b'{"instances": [[1], [2.5]]}').rows == 2
    assert refusal(decoder, b'{"instances": [[2]]}').status == 422


def test_dtypes_that_json_cannot_carry_are_unsupported():
    with pytest.raises(UnsupportedSignature):
        InstanceDecoder(Signature(layout=Layout.TENSOR, dtype="complex64", shape=(2,)))


numbers = st.floats(0, 100, width=32)


@given(
    st.lists(st.tuples(numbers, st.floats(-(2.0**90), 2.0**90, width=32)), min_size=1)
)
def test_numbers_arrive_as_they_were_sent(rows):
    named = [dict(zip(GOOD, row, strict=True)) for row in rows]

    expected = np.array(rows, np.float32)
    for sent in (named, [list(row) for row in rows]):
        decoded = matrix.decode_request(body(*sent))
        np.testing.assert_array_equal(decoded.tensors[0].data, expected)
    np.testing.assert_array_equal(matrix.decode_rows(named).tensors[0].data, expected)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*GOOD, *GOOD_TABLE, "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
members = st.dictionaries(
    st.sampled_from(["instances", "inputs", "options", "parameters", "model", "x"]),
    json_values | st.lists(json_values, max_size=3),
    max_size=3,
)


@given(members | json_values, st.sampled_from([matrix, table, image, text]))
def test_no_json_raises_anything_but_a_refusal(value, decoder):
    try:
        decoded = decoder.decode_request(json.dumps(value).encode(), individual=True)
    except ApiError as error:
        status = error.status
    else:
        status = 200
        assert decoded.rows or decoded.indexes == ()

    assert status in (200, 400, 422)


@given(st.binary(max_size=60), st.sampled_from([matrix, table, image, text]))
def test_no_bytes_raise_anything_but_a_refusal(content, decoder):
    assert 400 <= refusal(decoder, content).status < 500


@given(st.lists(json_values, max_size=4), st.sampled_from([matrix, table, image, text]))
def test_both_passes_agree_on_what_is_good(rows, decoder):
    """The fast and the slow pass must accept and refuse the same rows."""
    one_by_one = decoder.decode_rows(json.loads(json.dumps(rows)))

    try:
        decoder.decode_request(body(*rows))
        accepted = True
    except ApiError as error:
        accepted = False
        if error.code is ErrorCode.INVALID_JSON:
            return

    assert accepted == (bool(rows) and not one_by_one.problems)


def test_a_row_with_many_bad_fields_has_all_of_them_named():
    columns = tuple(Column(name=f"c{number}") for number in range(30))
    wide = InstanceDecoder(Signature(layout=Layout.TABLE, columns=columns))

    error = refusal(wide, body({column.name: "x" for column in columns}))

    assert len(error.details) == 30
    assert error.message == (
        "30 fields are invalid; the first: `c0` in row 0 must be a number."
    )


LONG = 2**53 + 1
MANY_INTEGERS = {
    "matrix": Signature(
        layout=Layout.MATRIX, dtype="int64", columns=(Column("n", "int64"),), shape=(1,)
    ),
    "table": Signature(layout=Layout.TABLE, columns=(Column("n", "int64"),)),
    "json": Signature(
        layout=Layout.TABLE,
        columns=(Column("n", "json", json_schema={"type": "integer"}),),
    ),
    "tensor": Signature(layout=Layout.TENSOR, dtype="int64", shape=(1,)),
}


@pytest.mark.parametrize("kind", MANY_INTEGERS)
@pytest.mark.parametrize("number", [f"{LONG}.0", f"-{LONG}.0", "1e18", "1e300"])
def test_an_integer_that_a_float_may_have_rounded_is_refused(kind, number):
    decoder = InstanceDecoder(MANY_INTEGERS[kind])
    error = refusal(decoder, b'{"instances": [[%b]]}' % number.encode())

    assert error.code is INVALID
    assert "integer" in error.message


@pytest.mark.parametrize("kind", MANY_INTEGERS)
@pytest.mark.parametrize("number", ["3.0", "3e0", f"{LONG - 2}.0", str(LONG)])
def test_an_integer_that_is_written_exactly_keeps_all_its_digits(kind, number):
    decoder = InstanceDecoder(MANY_INTEGERS[kind])
    decoded = decoder.decode_request(b'{"instances": [[%b]]}' % number.encode())

    [sent] = decoded.tensors[0].data.ravel().tolist()
    assert sent == (3 if number.startswith("3") else int(number.removesuffix(".0")))


def test_text_is_read_as_integers_with_all_their_digits():
    signature = MANY_INTEGERS["table"]
    texts = [str(LONG), f"{LONG}.0", "1e300", "3.0"]
    decoded = RowReader(signature).read([{"n": text} for text in texts], from_text=True)

    assert decoded.tensors[0].data.tolist() == [LONG, 3]
    assert [problem.index for problem in decoded.problems] == [1, 2]
    assert {problem.code for problem in decoded.problems} == {INVALID}


def test_text_is_read_in_a_column_of_great_integers_alone():
    signature = Signature(
        layout=Layout.TABLE, columns=(Column("n", "int64", minimum=2**60),)
    )

    decoded = RowReader(signature).read([{"n": str(2**60)}, {"n": "1"}], from_text=True)

    assert decoded.tensors[0].data.tolist() == [2**60]
    assert [problem.index for problem in decoded.problems] == [1]
