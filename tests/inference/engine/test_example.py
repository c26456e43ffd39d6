import json

import numpy as np
import pytest

from inference.engine import example
from inference.engine.signature import Column, Layout, Signature
from inference.engine.tensors import Tensor

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
