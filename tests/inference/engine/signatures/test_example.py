import json

import numpy as np
import pytest

from inference.engine.signatures import example
from inference.engine.signatures.signature import Column, Layout, Signature, TensorInput
from inference.engine.wire.tensors import Tensor, object_array

MATRIX = Signature(layout=Layout.MATRIX, dtype="float32", shape=(2,))
TABLE = Signature(
    layout=Layout.TABLE,
    columns=(
        Column("text", dtype="str"),
        Column("size", dtype="float64", required=False),
    ),
)
TEXT = Signature(layout=Layout.TABLE, columns=(Column("text", dtype="str"),))


def read(tmp_path, payload, signature):
    (tmp_path / "serving_input_example.json").write_text(json.dumps(payload))
    tensors = example.read(tmp_path, signature)
    return {tensor.name: tensor.data.tolist() for tensor in tensors}


@pytest.mark.parametrize(
    ("payload", "signature", "expected"),
    [
        ({"inputs": [[1, 2], [3, 4]]}, MATRIX, {"input": [[1, 2], [3, 4]]}),
        ({"inputs": {"x": [[1, 2]]}}, MATRIX, {"input": [[1, 2]]}),
        (
            {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}},
            MATRIX,
            {"input": [[1, 2]]},
        ),
        (
            {"dataframe_split": {"columns": ["size", "text"], "data": [[1, "a"]]}},
            TABLE,
            {"text": ["a"], "size": [1.0]},
        ),
        ({"inputs": {"text": ["a", "b"]}}, TABLE, {"text": ["a", "b"]}),
        ({"inputs": [{"text": "a", "size": 2}]}, TABLE, {"text": ["a"], "size": [2]}),
        ({"inputs": ["a", "b"]}, TEXT, {"text": ["a", "b"]}),
    ],
)
def test_the_forms_that_mlflow_logs_are_read(tmp_path, payload, signature, expected):
    assert read(tmp_path, payload, signature) == expected


TENSORS = Signature(
    layout=Layout.TENSORS,
    inputs=(TensorInput("ids", "int64", (-1,)), TensorInput("size", "float32")),
)


def test_several_tensors_are_read_by_name_in_the_signatures_order(tmp_path):
    payload = {"inputs": {"size": [1.5], "ids": [[1, 2, 3]]}}

    read_ = read(tmp_path, payload, TENSORS)

    assert list(read_.items()) == [("ids", [[1, 2, 3]]), ("size", [1.5])]


@pytest.mark.parametrize(
    "payload",
    [{"inputs": [[1]]}, {"inputs": {"ids": [[[1]]], "size": [1]}}, {"inputs": {}}, []],
)
def test_an_example_of_another_form_is_refused(tmp_path, payload):
    with pytest.raises((ValueError, TypeError)):
        read(tmp_path, payload, TENSORS)


def test_columns_without_names_are_taken_in_order(tmp_path):
    split = {"dataframe_split": {"columns": [0], "data": [["a"]]}}

    assert read(tmp_path, split, TEXT) == {"text": ["a"]}


def test_records_may_lack_optional_columns(tmp_path):
    payload = {"inputs": [{"text": "a"}, {"text": "b", "size": 2}]}

    sizes = read(tmp_path, payload, TABLE)["size"]

    assert np.isnan(sizes[0])
    assert sizes[1] == 2


def test_parameters_are_read_beside_the_rows(tmp_path):
    read(tmp_path, {"inputs": ["a"], "params": {"times": 2}}, TEXT)

    assert example.read_params(tmp_path) == {"times": 2}


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["YWJj", None], "bytes", [b"abc", None]),
        ([[1], {"a": None}], "json", [[1], {"a": None}]),
        ([True, None], "bool", [True, None]),
        ([True, False], "bool", [True, False]),
        ([1, 2], "int32", [1, 2]),
    ],
)
def test_columns_hold_what_json_wrote(values, dtype, expected):
    assert example.column_array(values, dtype).tolist() == expected


def test_whole_numbers_with_a_gap_are_floats_and_moments_have_none():
    assert example.column_array([1, None], "int64").dtype == np.float64
    moments = example.column_array(["2024-01-01T00:00:00Z", None], "datetime64[ns]")
    assert np.isnat(moments).tolist() == [False, True]


def test_zeros_stand_in_for_an_example_except_of_tables_and_text():
    zeros = example.zeros(TENSORS)

    assert [(one.name, one.data.shape) for one in zeros] == [
        ("ids", (2, 4)),
        ("size", (2,)),
    ]
    assert example.zeros(TABLE) is None
    assert example.zeros(Signature(layout=Layout.TENSOR, dtype="str")) is None


def test_outputs_may_lie_in_a_file_of_numpy(tmp_path):
    np.save(tmp_path / "outputs.npy", np.ones((2, 1)))

    assert example.read_outputs(tmp_path, "outputs.npy")[""].shape == (2, 1)
    with pytest.raises(ValueError, match="has no file"):
        example.read_outputs(tmp_path, "other.npy")


def test_objects_among_outputs_must_be_equal():
    objects = [{"words": ["a", "b"]}, {"words": []}]
    outputs = (Tensor("output", object_array(objects)),)

    example.compare(outputs, {"": object_array(objects)}, tolerance=0)
    with pytest.raises(ValueError, match="another value"):
        example.compare(outputs, {"": object_array(objects[::-1])}, tolerance=0)


def test_null_stands_for_nan_among_logged_objects():
    outputs = (Tensor("output", object_array([{"x": [np.nan, 1.0]}])),)

    example.compare(outputs, {"": object_array([{"x": [None, 1]}])}, tolerance=0)
    with pytest.raises(ValueError, match="another value"):
        example.compare(outputs, {"": object_array([{"x": [0, 1]}])}, tolerance=0)


def test_missing_values_are_none_and_nan():
    assert example.column_array(["a", None], "str").tolist() == ["a", None]
    assert np.isnan(example.column_array([1, None], "float64")[1])


def test_a_folder_without_an_example_has_none(tmp_path):
    assert example.read(tmp_path, MATRIX) is None
    assert example.read_outputs(tmp_path) is None


def test_nan_differs_from_every_logged_output():
    outputs = (Tensor("output", np.array([np.nan])),)

    with pytest.raises(ValueError, match="does not reproduce"):
        example.compare(outputs, {"": np.array([1.0])}, tolerance=1e9)


def test_text_outputs_must_be_equal():
    outputs = (Tensor("label", np.array(["a"], dtype=object)),)

    example.compare(outputs, {"label": np.array(["a"])}, tolerance=0)
    with pytest.raises(ValueError, match="another value"):
        example.compare(outputs, {"label": np.array(["b"])}, tolerance=0)
