"""Kinds of input beyond rows of numbers: tensors, times, bytes, JSON, parameters."""

import base64
import gc
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.codecs.decoding import InstanceDecoder
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.signature import (
    Column,
    Layout,
    Param,
    Signature,
    TensorInput,
    with_rules,
)
from inference.errors.api_error import ApiError, ErrorCode

TOKENS = Signature(
    layout=Layout.TENSORS,
    inputs=(
        TensorInput("input_ids", "int64", (-1,)),
        TensorInput("attention_mask", "int64", (-1,)),
        TensorInput("scale", "float32"),
    ),
    padding=Padding(value=9, buckets=(4, 8), mask_input="attention_mask"),
)
MIXED = Signature(
    layout=Layout.TABLE,
    columns=(
        Column("when", "datetime64[ns]"),
        Column("photo", "bytes", required=False, max_length=4),
        Column(
            "tags",
            "json",
            required=False,
            json_schema={"type": "array", "items": {"type": "string"}},
        ),
        Column("count", "int64", required=False, maximum=9),
        Column("ratio", "float32", required=False),
        Column("sure", "bool", required=False),
    ),
)
FIXED = Signature(layout=Layout.TENSOR, dtype="int32", shape=(2, 2))
UNEVEN = Signature(
    layout=Layout.TENSOR,
    dtype="float32",
    shape=(-1, -1),
    padding=Padding(buckets=(4000,)),
)
UNPADDED = Signature(layout=Layout.TENSORS, inputs=TOKENS.inputs)
WITH_PARAMS = Signature(
    layout=Layout.TABLE,
    columns=(Column("text", "str"),),
    params=(
        Param("temperature", "float64", 0.5),
        Param("beams", "int64", 1),
        Param("stop", "str", [], (-1,)),
        Param("since", "datetime64[ns]", "2020-01-01T00:00:00"),
    ),
)
tokens = InstanceDecoder(TOKENS)
mixed = InstanceDecoder(MIXED)
fixed = InstanceDecoder(FIXED)
uneven = InstanceDecoder(UNEVEN)
unpadded = InstanceDecoder(UNPADDED)
with_params = InstanceDecoder(WITH_PARAMS)
ROW = {"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1], "scale": 0.5}
FULL = {
    "when": "2026-11-20T10:30:00+02:00",
    "photo": base64.b64encode(b"\x00\xff").decode(),
    "tags": ["a", "b"],
    "count": 3,
    "ratio": 0.5,
    "sure": True,
}


def body(*rows, **members):
    return json.dumps({"instances": list(rows)} | members).encode()


def by_name(decoded):
    return {tensor.name: tensor.data for tensor in decoded.tensors}


def refusal(decoder, content, **options):
    with pytest.raises(ApiError) as caught:
        decoder.decode_request(content, **options)
    return caught.value


def problem(decoder, *rows, **members):
    error = refusal(decoder, body(*rows, **members))
    [detail] = error.details
    return error.status, detail.index, detail.field


def test_each_named_tensor_has_its_own_type_and_shape():
    data = by_name(tokens.decode_request(body(ROW, ROW)))

    assert data["input_ids"].dtype == np.int64
    assert data["input_ids"].tolist() == [[1, 2, 3]] * 2
    assert data["scale"].dtype == np.float32
    assert data["scale"].shape == (2,)


def test_shorter_rows_are_filled_up_by_the_models_rule():
    short = ROW | {"input_ids": [5], "attention_mask": [1]}

    data = by_name(tokens.decode_request(body(ROW, short)))

    assert data["input_ids"].tolist() == [[1, 2, 3], [5, 9, 9]]
    assert data["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_rows_of_a_matrix_each_are_filled_up_on_both_axes():
    decoded = uneven.decode_request(body([[1, 2]], [[3], [4]]))

    assert decoded.tensors[0].data.tolist() == [[[1, 2], [0, 0]], [[3, 0], [4, 0]]]


def test_one_instance_of_named_tensors_may_come_alone():
    assert tokens.decode_request(json.dumps({"inputs": ROW}).encode()).single


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"input_ids": [1]}, (400, 0, "attention_mask")),
        (ROW | {"more": 1}, (400, 0, "more")),
        (ROW | {"input_ids": [1, "x"]}, (400, 0, "input_ids[1]")),
        (ROW | {"input_ids": [1, 0.5]}, (400, 0, "input_ids[1]")),
        (ROW | {"input_ids": 1}, (400, 0, "input_ids")),
        (ROW | {"input_ids": []}, (400, 0, "input_ids")),
        (ROW | {"input_ids": [1] * 9}, (422, 0, "input_ids")),
        (ROW | {"input_ids": [2**64]}, (422, 0, "input_ids[0]")),
        (ROW | {"scale": 1e39}, (422, 0, "scale")),
        (ROW | {"scale": None}, (400, 0, "scale")),
        ([1, 2, 3], (400, 0, None)),
    ],
)
def test_bad_tensors_are_named(row, expected):
    found = refusal(tokens, body(row)).details

    assert expected in [
        (refusal(tokens, body(row)).status, detail.index, detail.field)
        for detail in found
    ]


def test_whole_numbers_may_have_a_point_in_tensors_too():
    decoded = fixed.decode_request(body([[1.0, 2], [3, 4.0]]))

    assert decoded.tensors[0].data.tolist() == [[[1, 2], [3, 4]]]


def test_rows_that_are_uneven_within_are_refused():
    assert problem(uneven, [[1, 2], [3]])[0] == 422


def test_padding_never_makes_a_small_body_a_large_tensor():
    wide, high = [[1] * 3000], [[1]] * 3000

    assert problem(uneven, wide, high) == (400, 1, None)


def test_rows_of_different_lengths_need_a_rule():
    longer = ROW | {"attention_mask": [1] * 4}

    assert problem(unpadded, ROW, ROW, longer) == (400, 2, "attention_mask")
    assert unpadded.decode_request(body(longer, longer)).rows == 2


def test_uneven_rows_leave_the_others_where_asked():
    longer = ROW | {"attention_mask": [1] * 4}
    options = {"return_errors": "individual"}

    decoded = unpadded.decode_request(
        body(ROW, longer, ROW, options=options), individual=True
    )

    assert decoded.indexes == (0, 2)
    assert [found.index for found in decoded.problems] == [1]


def test_values_of_every_type_arrive():
    data = by_name(mixed.decode_request(body(FULL)))

    assert data["when"].dtype == np.dtype("datetime64[ns]")
    assert str(data["when"][0]) == "2026-11-20T08:30:00.000000000"
    assert data["photo"].tolist() == [b"\x00\xff"]
    assert data["tags"].tolist() == [["a", "b"]]
    assert data["count"].dtype == np.float64  # It is optional.


def test_missing_values_arrive_as_missing():
    least = {"when": "2026-11-20"}

    data = by_name(mixed.decode_request(body(FULL, least)))

    for name in ("photo", "tags", "sure"):
        assert data[name][1] is None, name
    assert np.isnan(data["ratio"][1])
    assert data["count"][0] == 3
    assert np.isnan(data["count"][1])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"when": "yesterday"}, (400, 0, "when")),
        ({"when": 5}, (400, 0, "when")),
        ({"when": None}, (400, 0, "when")),
        ({"when": "9999-12-31T23:59:59Z"}, (422, 0, "when")),
        ({"when": "0001-01-01T00:00:00+05:00"}, (422, 0, "when")),
        ({"photo": "not base64"}, (400, 0, "photo")),
        ({"photo": base64.b64encode(b"12345").decode()}, (422, 0, "photo")),
        ({"tags": "a"}, (400, 0, "tags")),
        ({"tags": ["a", 1]}, (400, 0, "tags")),
        ({"count": 10}, (422, 0, "count")),
        ({"ratio": 1e39}, (422, 0, "ratio")),
    ],
)
def test_bad_values_of_a_table_are_named(change, expected):
    assert problem(mixed, FULL | change) == expected


def test_infinity_inside_json_is_refused():
    decoder = InstanceDecoder(
        Signature(layout=Layout.TABLE, columns=(Column("any", "json"),))
    )

    error = refusal(decoder, b'{"instances": [{"any": {"a": [1e999]}}]}')

    assert (error.status, error.details[0].field) == (422, "any")


def test_parameters_are_passed_on_as_their_types():
    given = {
        "temperature": 1,
        "beams": 2.0,
        "stop": ["."],
        "since": "2024-01-01T02:00+02:00",
    }

    decoded = with_params.decode_request(body("a", parameters=given))

    assert decoded.params == {
        "temperature": 1.0,
        "beams": 2,
        "stop": ["."],
        "since": "2024-01-01T00:00:00",
    }
    assert type(decoded.params["temperature"]) is float


def test_no_parameters_are_none():
    assert with_params.decode_request(body("a", parameters={})).params is None


@pytest.mark.parametrize(
    ("given", "status", "field"),
    [
        ({"heat": 1}, 400, "parameters.heat"),
        ({"temperature": "hot"}, 400, "parameters.temperature"),
        ({"beams": 1.5}, 400, "parameters.beams"),
        ({"beams": True}, 400, "parameters.beams"),
        ({"beams": 2**70}, 422, "parameters.beams"),
        ({"stop": "."}, 400, "parameters.stop"),
        ({"stop": [".", 1]}, 400, "parameters.stop[1]"),
        ({"since": "soon"}, 400, "parameters.since"),
        ({"temperature": None}, 400, "parameters.temperature"),
    ],
)
def test_bad_parameters_are_named(given, status, field):
    assert problem(with_params, "a", parameters=given) == (status, None, field)


@pytest.mark.parametrize(
    "content",
    [
        b'{"instances": [' + b"[" * 900 + b"]" * 900 + b"]}",
        b'{"instances": [[' + b"1," * 500_000 + b"1]]}",
        b'{"instances": [[[1,1],[' + b"1," * 500_000 + b'"x"]]]}',
        b'{"instances": [' + b"[[1,1],[1,1]]," * 70_000 + b'[[1,1],[1,"x"]]]}',
        b'{"instances": [' + b'{"a":1},' * 100_000 + b'{"a":1}]}',
        b'{"instances": {' + b'"a":{' * 900 + b"}" * 900 + b"}}",
    ],
    ids=["deep", "wide", "wide and wrong", "long", "objects", "deep objects"],
)
@pytest.mark.parametrize("decoder", [fixed, uneven, tokens, mixed])
def test_shape_bombs_are_refused_cheaply(decoder, content):
    # Otherwise the garbage collector would visit all objects of the test run.
    gc.collect()
    gc.freeze()
    started = time.process_time()

    error = refusal(decoder, content, max_rows=1000)

    spent_s = time.process_time() - started
    # Parsing 2 MB of JSON takes about 50 ms, and happens twice.
    assert spent_s < 0.5
    assert error.status in (400, 413, 422)
    assert len(error.details) <= 110


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*ROW, *FULL]), inner, max_size=3)
    ),
    max_leaves=12,
)
rows = (
    json_values
    | st.fixed_dictionaries({name: st.just(ROW[name]) | json_values for name in ROW})
    | st.fixed_dictionaries({name: st.just(FULL[name]) | json_values for name in FULL})
    | st.lists(st.lists(st.integers(-3, 3) | st.floats(), max_size=3), max_size=3)
)


@given(
    st.lists(rows, max_size=4),
    st.sampled_from([tokens, mixed, fixed, uneven, unpadded, with_params]),
)
def test_both_passes_agree_on_what_is_good(sent, decoder):
    """All rows are good one by one exactly if they are good together."""
    parsed = json.loads(json.dumps(sent))
    one_by_one = decoder.decode_rows(parsed)

    try:
        decoder.decode_request(body(*sent))
        accepted = True
    except ApiError as error:
        accepted = False
        if error.code is ErrorCode.INVALID_JSON:
            return

    assert accepted == (bool(sent) and not one_by_one.problems)


def test_a_route_may_require_what_the_model_does_not():
    strict = with_rules(MIXED, {"count": {"optional": False, "min": 2}})

    error = refusal(InstanceDecoder(strict), body({"when": "2026-11-20"}))

    assert [detail.field for detail in error.details] == ["count"]


VECTOR = Column("v", "json", json_schema={"type": "array", "items": {"type": "number"}})


@pytest.mark.parametrize(
    "row", ["hello", {"v": ["x"]}, {"v": "x"}, [["x"]], ["x"], 1, None, {"v": None}]
)
def test_an_only_nested_column_is_checked_in_every_form(row):
    decoder = InstanceDecoder(Signature(layout=Layout.TABLE, columns=(VECTOR,)))

    assert problem(decoder, row) == (400, 0, "v")
    assert decoder.decode_rows([row]).problems


@pytest.mark.parametrize("row", [{"v": [1, 2.5]}, [[1, 2.5]], [1, 2.5]])
def test_whole_numbers_become_floats_inside_nested_columns(row):
    decoder = InstanceDecoder(Signature(layout=Layout.TABLE, columns=(VECTOR,)))

    for read in (decoder.decode_request(body(row)), decoder.decode_rows([row])):
        assert read.tensors[0].data.tolist() == [[1.0, 2.5]]
        assert [type(x) for x in read.tensors[0].data[0]] == [float, float]


@pytest.mark.parametrize("row", [0.5, {"a": 0.5}, [0.5]])
def test_choices_are_checked_in_every_form_of_an_only_column(row):
    column = Column("a", "float64", enum=(1.0, 2.0))
    decoder = InstanceDecoder(Signature(layout=Layout.TABLE, columns=(column,)))

    assert problem(decoder, row) == (422, 0, "a")


ODD_NAMES = ('size 27"', "a\\b", "line\nbreak", "plain")


@pytest.mark.parametrize("layout", [Layout.TABLE, Layout.MATRIX])
def test_columns_may_have_names_that_json_escapes(layout):
    columns = tuple(Column(name, "float64") for name in ODD_NAMES)
    decoder = InstanceDecoder(Signature(layout, columns=columns, dtype="float64"))
    row = dict(zip(ODD_NAMES, [1.0, 2.0, 3.0, 4.0], strict=True))

    for given_row in (row, list(row.values())):
        decoded = decoder.decode_request(body(given_row, given_row))
        values = np.stack([tensor.data for tensor in decoded.tensors])
        assert sorted(set(values.ravel().tolist())) == [1, 2, 3, 4]
    assert problem(decoder, row | {ODD_NAMES[0]: "x"}) == (400, 0, ODD_NAMES[0])
    by_place = {f"f{place}": 1.0 for place in range(4)}
    assert refusal(decoder, body(by_place)).status == 400


def test_tensors_may_have_names_that_json_escapes():
    inputs = tuple(TensorInput(name, "float64", (1,)) for name in ODD_NAMES)
    decoder = InstanceDecoder(Signature(Layout.TENSORS, inputs=inputs))
    row = {name: [1.0] for name in ODD_NAMES}

    assert [t.name for t in decoder.decode_request(body(row)).tensors] == list(
        ODD_NAMES
    )
    assert problem(decoder, row | {ODD_NAMES[1]: 1}) == (400, 0, ODD_NAMES[1])
